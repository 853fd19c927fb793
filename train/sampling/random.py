"""Clips at random places of one video, each drawn for itself: CoCLR's sampling, which ViCC took over."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from train.clips import random_clip
from train.clips.spec import ClipSpec
from train.clips.streams import Clip
from train.sampling.sampling import Sample, Sampling

Short = Literal["pad", "drop"]


class Random(Sampling):
    """As many clips as the method reads, see `train.clips.random_clip`. Evaluation: sliding windows.

    Args:
        short: What becomes of videos with fewer frames than a clip spans: "pad" repeats their first frame in front, as
            CoCLR does, "drop" leaves them out of training.
    """

    name: Literal["random"] = "random"
    short: Short = "pad"

    fates: ClassVar[dict[str, str]] = {"pad": "their first frame is repeated in front", "drop": "they are left out"}

    def least(self, spec: ClipSpec) -> int:
        return spec.span

    def draw(self, spec: ClipSpec, sample: Sample, rng: np.random.Generator) -> list[Clip]:
        return [
            Clip(sample.video, random_clip(sample.total, spec.length, spec.stride, rng)) for _ in range(sample.count)
        ]
