"""A few long and several short clips of one video that start apart from each other: GOCA's sampling."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from train.clips import random_clip, sliding_windows
from train.clips.spec import LONGEST, ClipSpec
from train.clips.streams import Clip
from train.sampling.sampling import Sample, Sampling

Short = Literal["pad", "drop"]
MOST = 100  # clips of a kind


class Multiscale(Sampling):
    """First the long clips, of `clips.length` frames, and then the shorter ones, all of one video at one stride.

    Every start lies at least `apart` frames from all before it; where no place is left the distance shrinks until there
    is one. A video that a long clip at `clips.stride` does not fit into gets the largest stride that does.

    Source: GOCA (ECCV 2022), released code, whose stride becomes 0, a still clip, for a video with fewer frames than a
    long clip; here the first frame is repeated in front.

    Args:
        longer, shorter: How many clips of each kind.
        shorter_length: Frames of a shorter clip.
        apart: Frames between starts, if possible.
        short: What becomes of videos with fewer frames than a long clip has: "pad" repeats the first one in front,
            "drop" leaves them out of training.
    """

    name: Literal["multiscale"] = "multiscale"
    longer: int = Field(default=2, ge=1, le=MOST)
    shorter: int = Field(default=4, ge=0, le=MOST)
    shorter_length: int = Field(default=16, ge=1, le=LONGEST)
    apart: int = Field(default=16, ge=0)
    short: Short = "pad"

    fates: ClassVar[dict[str, str]] = {"pad": "their first frame is repeated in front", "drop": "they are left out"}

    @property
    def clips(self) -> int:  # type: ignore[override]
        return self.longer + self.shorter

    def least(self, spec: ClipSpec) -> int:
        return spec.length

    def lengths(self, spec: ClipSpec) -> tuple[int, ...]:
        return tuple(dict.fromkeys((spec.length, *[self.shorter_length] * self.shorter)))

    def draw(self, spec: ClipSpec, sample: Sample, rng: np.random.Generator) -> list[Clip]:
        video, total = sample.video, sample.total
        stride = self._stride(spec, total)
        starts: list[int] = []
        made = []
        for length in [spec.length] * self.longer + [self.shorter_length] * self.shorter:
            last = total - length * stride
            if last < 0:
                made.append(Clip(video, random_clip(total, length, stride, rng)))
                continue
            starts.append(_apart(starts, last, self.apart, rng))
            made.append(Clip(video, starts[-1] + stride * np.arange(length)))
        return made

    def windows(self, spec: ClipSpec, frames: int) -> np.ndarray:
        return sliding_windows(frames, spec.length, self._stride(spec, frames))

    def _stride(self, spec: ClipSpec, frames: int) -> int:
        return max(1, min(spec.stride, frames // spec.length))


def _apart(starts: list[int], last: int, distance: int, rng: np.random.Generator) -> int:
    """A start from 0 to `last` that lies at least `distance` from all the others, or as far as possible."""
    places = np.arange(last + 1)
    nearest = np.abs(places[:, None] - np.array(starts, np.int64)).min(axis=1, initial=distance)
    return int(rng.choice(places[nearest == nearest.max()]))
