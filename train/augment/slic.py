"""The policy of SLIC (docs/methods.md 2.4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from train.augment.plans import Filter
from train.augment.standard import RandomResized, Range


@dataclass(frozen=True)
class SLIC(RandomResized):
    """A window of at least a quarter of the frame, strong colour, sometimes gray and blurred; each clip for itself.

    Published, for the clips: `streams: {flow: {input: u, mirror: plain}}`, and on Kinetics `statistics: kinetics`. The
    published blur has a kernel of 15 pixels, which is 3.5 times its standard deviation of 2 to either side; with
    `clips.pixels: ours` it ends at three times.
    """

    area: Range = (0.25, 1.0)
    brightness: float = 0.5
    contrast: float = 0.5
    saturation: float = 0.5
    hue: float = 0.5
    blur: float = 0.2
    sigma: Range = (2.0, 2.0)

    filter: ClassVar[Filter | None] = "bilinear"
    blurs_by: ClassVar[str] = "gaussian blur"
