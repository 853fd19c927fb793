"""What every sampling has: clips of a sample of training, windows of evaluation, and what becomes of short videos."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pipeline.errors import UsageError
from train.clips import sliding_windows
from train.clips.spec import ClipSpec
from train.clips.streams import Clip, Stream
from train.sampling.columns import Column
from train.sampling.groups import Groups
from train.settings import Settings


@dataclass(frozen=True, slots=True)
class Sample:
    """What the clips of one sample are drawn from.

    video: number of the sample's video. frames: of every video of the training set, (N,). count: how many clips the
    method reads, where that decides. groups: of the videos, where there are any.
    """

    video: int
    frames: np.ndarray | Column
    count: int
    groups: Groups | None = None

    @property
    def total(self) -> int:
        """Frames of the sample's video."""
        return int(self.frames[self.video])


class Sampling(Settings, ABC):
    """Frames are drawn as pure functions of what they are given: the same generator gives the same clips.

    name: in SAMPLINGS. short: what becomes of videos with fewer frames than `least`: "drop" leaves them out of
    training; any other word of `fates` keeps them, and says how a clip is made of them. fates: those words, each with
    the end of a sentence that says so.
    """

    name: str
    short: str

    fates: ClassVar[Mapping[str, str]]
    clips: ClassVar[int | None] = None  # of a sample; None: as many as the method reads

    @abstractmethod
    def least(self, spec: ClipSpec) -> int:
        """Frames that a video needs not to be short."""

    @abstractmethod
    def draw(self, spec: ClipSpec, sample: Sample, rng: np.random.Generator) -> list[Clip]:
        """The clips of one sample."""

    def lengths(self, spec: ClipSpec) -> tuple[int, ...]:
        """Frames of the clips of a sample, each number once."""
        return (spec.length,)

    def windows(self, spec: ClipSpec, frames: int) -> np.ndarray:
        """All clips of a video of so many frames, for evaluation: frame indices, int64 (W, T)."""
        return sliding_windows(frames, spec.length, spec.stride)

    def others(self, spec: ClipSpec) -> dict[str, list[Stream]]:
        """Name of a stream -> what may be shown in its place."""
        return {}

    def check(self, spec: ClipSpec, count: int) -> None:
        """Raises UsageError where a method reads more clips than a sample has, or where `spec` does not suit."""
        if self.clips is not None and count > self.clips:
            raise UsageError(
                f"the method reads clip {count} of a sample, which has {self.clips}",
                where=f"sampling: {type(self).__name__}",
                remedy="another sampling in the recipe, or another method",
            )
