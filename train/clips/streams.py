"""Streams: what a network is given, a view of the store by one of its named inputs."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from pipeline.errors import refuse_unknown
from pipeline.views import VIEWS
from pipeline.views.view import NetworkInput
from train.clips import colour
from train.clips.colour import Statistics

Mirror = Literal["turned", "plain", "never"]
Made = Literal["ours", "published"]  # how pixels are


@dataclass(frozen=True)
class Stream:
    """A network's input. size: height and width of its clips; the rest as in `train.clips.spec`."""

    name: str
    view: str
    input: str
    size: tuple[int, int]
    mirror: Mirror = "turned"
    statistics: Statistics = "imagenet"
    pixels: Made = "ours"
    crop: float | None = None

    @property
    def channels(self) -> int:
        """D, at the network's input."""
        return self._input.channels

    @property
    def image(self) -> bool:
        """Whether the network is given it as RGB images are: with their jitter, blur and normalisation."""
        return self._input.image

    def bound(self, store_settings: Mapping[str, Any]) -> BoundStream:
        """With the maps that follow from the settings of a store which has the view."""
        given = self._input.affine(store_settings[self.view])
        normalised = colour.normalisation(self.statistics) if self.image else colour.identity(self.channels)
        return BoundStream(self, given, colour.compose(given, VIEWS[self.view].mirror), normalised)

    @property
    def _input(self) -> NetworkInput:
        return VIEWS[self.view].inputs[self.input]


@dataclass(frozen=True, eq=False)
class BoundStream:
    """A stream of one store: what stored bytes become.

    given: from the P bytes of a pixel to the input's numbers, which are RGB in 0..255 if it is an image, (D, P + 1).
    turned: the same of frames whose mirror image is shown. normalised: from those numbers to the network's, (D, D + 1).
    """

    stream: Stream
    given: np.ndarray
    turned: np.ndarray
    normalised: np.ndarray

    def shown(self, mirrored: bool) -> np.ndarray:
        """From stored bytes to the input's numbers, (D, P + 1)."""
        return self.turned if mirrored and self.stream.mirror == "turned" else self.given

    def affine(self, mirrored: bool, coloured: np.ndarray | None = None) -> np.ndarray:
        """From stored bytes to the network's input, (..., D, P + 1); `coloured` is done between, (..., D, D + 1)."""
        first = self.shown(mirrored)
        return colour.compose(self.normalised, first if coloured is None else colour.compose(coloured, first))


@dataclass(frozen=True, eq=False)
class Clip:
    """One clip of a sample.

    video: its number in the training set; not always the sample's own. frames: indices of its T frames, int64 (T,), the
    same in every view. shown: name of a stream -> what is shown in its place.
    """

    video: int
    frames: np.ndarray
    shown: Mapping[str, Stream] = field(default_factory=dict)


class StoreStreams:
    """The streams that a network reads from one store. `of` a clip they are what that clip shows in the place of each.

    settings: `VideoStore.settings`.
    """

    def __init__(self, streams: Iterable[Stream], settings: Mapping[str, Any]) -> None:
        self._settings = settings
        self._bound: dict[Stream, BoundStream] = {}
        self.own = {stream.name: self._found(stream) for stream in streams}

    def of(self, clip: Clip) -> dict[str, BoundStream]:
        if not clip.shown:
            return self.own
        return self.own | {name: self._found(stream) for name, stream in clip.shown.items() if name in self.own}

    def _found(self, stream: Stream) -> BoundStream:
        if stream not in self._bound:
            self._bound[stream] = stream.bound(self._settings)
        return self._bound[stream]


@functools.cache
def known_input(view: str, given: str, where: str) -> tuple[str, str]:
    """The names of a view and one of its inputs, an empty one being the default. Raises UsageError for unknown ones."""
    if view not in VIEWS:
        refuse_unknown("view", view, VIEWS, where=where)
    inputs = VIEWS[view].inputs
    if given and given not in inputs:
        refuse_unknown("input", given, inputs, where=f"{where}.input")
    return view, given or VIEWS[view].default_input
