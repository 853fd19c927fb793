"""The policy of CoCon, which is mostly DPC's (docs/methods.md 2.5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from train.augment.plans import Filter
from train.augment.standard import Standard
from train.augment.windows import Window, square
from train.clips.colour import Gray
from train.settings import check_number


@dataclass(frozen=True)
class CoCon(Standard):
    """A square of most of the frame, and colours drawn for every frame, so that they do not tell which frames belong
    together.

    Published: `together: false` (each view is cut for itself), and for the clips `streams: {flow: {input: signed,
    mirror: never}}`. The published window of flow is the one of three random ones in which most moves; here it is one
    random one, because a plan does not look at pixels. On Kinetics the published window of RGB is a random resized one,
    which is policy slic with `area: [0.5, 1]`, `blur: 0` and the colours of this one, but for gray, which comes before
    the jitter only here.

    Args:
        crop: Side of the square, as a fraction of the frame's short side (published: 224 of 240 pixels).
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

    gray_first: ClassVar[bool] = True
    filter: ClassVar[Filter | None] = "nearest"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("crop", self.crop, above=0, most=1)

    def window(self, frame_size: tuple[int, int], rng: np.random.Generator, published: bool = False) -> Window:
        down, across = rng.random(2).tolist()
        return square(frame_size, self.crop, (down, across))
