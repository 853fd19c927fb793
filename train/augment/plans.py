"""Plans: all that an executor (`train.reader`) needs to make a clip, and nothing that depends on how it is executed.

So the same sample looks the same on any executor, device and number of workers, and after a resume.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from train.augment.windows import Window

if TYPE_CHECKING:
    from train.clips.streams import Stream


Filter = Literal["bicubic", "bilinear", "nearest"]


@dataclass(frozen=True, eq=False)
class Published:
    """What is done to frames by the steps of the papers' code, each on bytes, which it rounds and cuts to 0..255.

    filter: of resizing, as Pillow does it; none: bilinear without a smoothing filter, as everywhere else.
    given: float64 (3, P + 1), from the P stored bytes of a pixel to the RGB bytes that steps work on; none of a stream
        that is no image, whose bytes are the stored ones.
    steps: in order, names in `train.reader.bytewise.STEPS` with a number for all frames, (1,), or one for each, (T,);
        NaN leaves a frame alone.
    """

    filter: Filter | None
    given: np.ndarray | None
    steps: tuple[tuple[str, np.ndarray], ...] = ()


@dataclass(frozen=True)
class Choice:
    """Windows of which the executor cuts a clip at the fullest: whose bytes are, in the mean of all frames of the clip,
    farthest from `empty`. Of equally full ones the first."""

    windows: tuple[Window, ...]
    empty: int


@dataclass(frozen=True, eq=False)
class Pixels:
    """What is done to the frames of one stream of a clip, in this order: cut, resize, mirror, blur, then colour.

    window: (top, left, height, width) as fractions of the frame, because views may be stored at different sizes.
    flip: mirror horizontally. The executor moves pixels: that u of flow changes its sign is part of `colour`.
    colour: float32 (K, D, P + 1), from the P stored bytes of a pixel to the D numbers that the network gets:
        `colour[:, :, :P] @ bytes + colour[:, :, P]`. K is 1, or T where each frame has a colour of its own. It holds
        the normalisation and runs on the training device (`train.reader.affine`).
    blur: standard deviation of a Gaussian in pixels of the resized clip; 0 for none.
    published: steps on bytes in the place of blur and of what is not affine in colour, which then begins with the RGB
        bytes of an image.
    choice: windows of which one is taken; `window` is the first of them.
    """

    window: Window
    flip: bool
    colour: np.ndarray
    blur: float = 0.0
    published: Published | None = None
    choice: Choice | None = None

    @property
    def windows(self) -> tuple[Window, ...]:
        """One of which the clip is cut at."""
        return self.choice.windows if self.choice else (self.window,)

    @property
    def image(self) -> bool:
        """Whether the executor makes RGB bytes of what is stored."""
        return self.published is not None and self.published.given is not None


@dataclass(frozen=True, eq=False)
class ClipPlan:
    """One stream of one clip. frames: indices of its T frames, int64 (T,), of the video and of every view of it."""

    video_id: str
    frames: np.ndarray
    stream: Stream
    pixels: Pixels


def clip_length(plans: Sequence[ClipPlan]) -> int:
    """T of a batch. Raises ValueError when its clips differ in it."""
    lengths = {len(plan.frames) for plan in plans}
    if len(lengths) != 1:
        raise ValueError(f"the clips of a batch need one length, not {sorted(lengths)} frames")
    return lengths.pop()


def colour_maps(plans: Sequence[ClipPlan]) -> torch.Tensor:
    """The colours of a batch of B clips, float32 (B, K, D, P + 1); K is T if any clip has a colour for every frame."""
    colours = [plan.pixels.colour for plan in plans]
    most = max(len(colour) for colour in colours)
    return torch.from_numpy(np.stack([np.broadcast_to(colour, (most, *colour.shape[1:])) for colour in colours]))


def blur_taps(sigma: float) -> int:
    """Pixels that a Gaussian blur takes along each axis: three standard deviations to either side. 1 for none."""
    return 2 * math.ceil(3 * sigma) + 1
