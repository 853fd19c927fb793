"""The policy of GOCA (docs/methods.md 2.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from train.augment.plans import Filter
from train.augment.standard import Range, Standard
from train.augment.windows import Window, square
from train.settings import check_number, check_range


@dataclass(frozen=True)
class GOCA(Standard):
    """The frame's short side is scaled to a random length, and a square of `crop` is cut from it at a random place.

    Published: `together: false` (the two streams of a clip are changed by separate draws), and for the clips `streams:
    {flow: {input: image, mirror: plain}}`; with R(2+1)D `scale: [128, 160]` and `crop: 112`. No blur: the released code
    builds one and never applies it.

    Args:
        scale: Range of the scaled short side, in pixels; uniform.
        crop: Side of the square, in the same pixels.
    """

    saturation: float = 0.2
    scale: Range = (136.0, 190.0)
    crop: float = 128.0

    filter: ClassVar[Filter | None] = None  # of torchvision on tensors

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("crop", self.crop, above=0)
        check_range("scale", self.scale, least=self.crop)

    def window(self, frame_size: tuple[int, int], rng: np.random.Generator, published: bool = False) -> Window:
        extent, down, across = rng.random(3).tolist()
        short_side = self.scale[0] + extent * (self.scale[1] - self.scale[0])
        return square(frame_size, self.crop / short_side, (down, across))
