"""The policy of CoCon, which is mostly DPC's (docs/methods.md 2.5)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from pipeline.errors import UsageError, refuse_unknown
from pipeline.views import VIEWS
from train.augment.draws import Draws
from train.augment.plans import Choice, Filter, Pixels
from train.augment.policy import Size, Streams
from train.augment.standard import Standard
from train.augment.windows import Window, square
from train.clips.colour import Gray
from train.settings import check_number

WINDOWS = 3  # of which the fullest is taken, as published


@dataclass(frozen=True)
class CoCon(Standard):
    """A square of most of the frame, and colours drawn for every frame, so that they do not tell which frames belong
    together.

    Published: `together: false` (each view is cut for itself), `fullest: {flow: 127, segmentation: 0, pose: 0}`,
    `crops: {segmentation: 0.8, pose: 0.8}`, and for the clips `streams: {flow: {input: signed, mirror: never}}`, those
    of people never mirrored either, and shown in tests to the whole of their short side (`crop: 1.0`). On Kinetics the
    published window of RGB is a random resized one, which is policy slic with `area: [0.5, 1]`, `blur: 0` and the
    colours of this one, but for gray, which comes before the jitter only here.

    Args:
        crop: Side of the square, as a fraction of the frame's short side (published: 224 of 240 pixels).
        crops: The same of single views, by name.
        fullest: Views that are cut at the fullest of `WINDOWS` random squares, with the byte that is empty there.
    """

    jitter: float = 1.0
    brightness: float = 0.5
    contrast: float = 0.5
    saturation: float = 0.5
    hue: float = 0.25
    gray: float = 0.5
    gray_kind: Gray = "channel"
    steady: bool = False
    crop: float = 224 / 240
    crops: Mapping[str, float] | None = None
    fullest: Mapping[str, int] | None = None

    gray_first: ClassVar[bool] = True
    filter: ClassVar[Filter | None] = "nearest"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("crop", self.crop, above=0, most=1)
        for view, side in (self.crops or {}).items():
            check_number(f"crops.{view}", side, above=0, most=1)
        for view, empty in (self.fullest or {}).items():
            check_number(f"fullest.{view}", empty, whole=True, least=0, most=255)
        for view in self._apart:
            if view not in VIEWS:
                refuse_unknown("view", view, VIEWS, where="crops, fullest")
        if self._apart and self.together:
            raise UsageError(
                f"{', '.join(self._apart)} cannot be cut as the other views and by windows of their own",
                where="together: true",
                remedy="together: false, or neither crops nor fullest",
            )

    @property
    def _apart(self) -> list[str]:
        """Views whose windows are others than those of the rest."""
        return sorted({*(self.crops or ()), *(self.fullest or ())})

    def drawn(self, streams: Streams, frame_size: Size, length: int, draws: Draws, strong: bool) -> dict[str, Pixels]:
        made = super().drawn(streams, frame_size, length, draws, strong)
        for name, bound in streams.items():
            view = bound.stream.view
            if view not in self._apart:
                continue
            side, rng = (self.crops or {}).get(view, self.crop), draws.of(view, "windows")
            places = rng.random((WINDOWS, 2)).tolist()
            windows = tuple(square(frame_size, side, (down, across)) for down, across in places)
            empty = (self.fullest or {}).get(view)
            choice = None if empty is None else Choice(windows, empty)
            made[name] = replace(made[name], window=windows[0], choice=choice)
        return made

    def window(self, frame_size: tuple[int, int], rng: np.random.Generator, published: bool = False) -> Window:
        down, across = rng.random(2).tolist()
        return square(frame_size, self.crop, (down, across))
