"""Plans: all that an executor (`train.reader`) needs to make a clip, and nothing that depends on how it is executed.

So the same sample looks the same on any executor, device and number of workers, and after a resume.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from pipeline.errors import Refusal, UsageError
from train.augment.colour import FlowInput, Statistics, is_image
from train.augment.windows import Window
from train.clips import random_clip, sliding_windows

DOMAIN = 0x70697865  # keeps these random numbers apart from those of other users of the same seed


@dataclass(frozen=True, eq=False)
class Pixels:
    """What is done to the frames of one view of a clip, in this order: cut, resize, mirror, blur, then colour.

    window: (top, left, height, width) as fractions of the frame, because views may be stored at different sizes.
    flip: mirror horizontally. The executor does not touch u: that it changes its sign is part of `colour`.
    colour: float32 (K, D, C + 1), from the C stored bytes of a pixel to the D numbers that the network gets:
        `colour[:, :, :C] @ bytes + colour[:, :, C]`. K is 1, or T where each frame has a colour of its own. It holds the
        normalisation and runs on the training device (`train.reader.affine`).
    blur: standard deviation of a Gaussian in pixels of the resized clip; 0 for none.
    """

    window: Window
    flip: bool
    colour: np.ndarray
    blur: float = 0.0


@dataclass(frozen=True, eq=False)
class ClipPlan:
    """One clip of one video. frames: indices of its T frames, int64 (T,), the same in every view. pixels: by view."""

    video_id: str
    frames: np.ndarray
    pixels: Mapping[str, Pixels]


class Policy(ABC):
    """Draws what is done to clips. It draws the same numbers in the same order whatever its settings and whichever views
    are read, so that a setting changes only what it names.

    flow, statistics: what the network is given of flow, and how pixels are normalised, so that evaluation does the same;
    see `train.augment.colour`.
    """

    flow: FlowInput = "pixels"
    statistics: Statistics = "imagenet"

    @property
    def channels(self) -> dict[str, int]:
        """Channels of each view at the network's input."""
        return {"rgb": 3, "flow": 3 if is_image(self.flow) else 2}

    @property
    def views(self) -> int | None:
        """How many clips of a video the policy draws for a sample; None: as many as are asked for."""
        return None

    def check_views(self, count: int) -> None:
        """Raises UsageError for a number of clips of a sample that the policy does not draw."""
        if self.views not in (None, count):
            raise UsageError(
                f"the augmentation draws {self.views} clips of a video and the method takes {count}",
                where=f"augmentation: {type(self).__name__}",
                remedy="settings with which it draws any number (train/augment), or another augmentation",
            )

    @abstractmethod
    def pixels(self, frame_size: tuple[int, int], length: int, rng: np.random.Generator) -> dict[str, Pixels]:
        """The pixels, by view, of one clip of `length` frames of `frame_size` = (height, width)."""

    def sample(
        self, clip: Callable[[], np.ndarray], count: int, frame_size: tuple[int, int], rng: np.random.Generator
    ) -> list[tuple[np.ndarray, dict[str, Pixels]]]:
        """Frames and pixels of the `count` clips of one sample of training; here each drawn for itself.

        clip: draws the frames of a clip at a random place, int64 (T,).
        """
        made = []
        for _ in range(count):
            frames = clip()
            made.append((frames, self.pixels(frame_size, len(frames), rng)))
        return made


def generator(seed: int, epoch: int, sample: int) -> np.random.Generator:
    """The random numbers of one sample of one epoch; equal triples give equal numbers, on any worker."""
    return np.random.default_rng(np.random.SeedSequence((DOMAIN, seed, epoch, sample)))


def clip_length(plans: Sequence[ClipPlan]) -> int:
    """T of a batch. Raises ValueError when its clips differ in it."""
    lengths = {len(plan.frames) for plan in plans}
    if len(lengths) != 1:
        raise ValueError(f"the clips of a batch need one length, not {sorted(lengths)} frames")
    return lengths.pop()


def colour_maps(plans: Sequence[ClipPlan], view: str) -> torch.Tensor:
    """The colours of a batch of B clips, float32 (B, K, D, C + 1); K is T if any clip has a colour for every frame."""
    colours = [plan.pixels[view].colour for plan in plans]
    most = max(len(colour) for colour in colours)
    return torch.from_numpy(np.stack([np.broadcast_to(colour, (most, *colour.shape[1:])) for colour in colours]))


def blur_taps(sigma: float) -> int:
    """Pixels that a Gaussian blur takes along each axis: three standard deviations to either side. 1 for none."""
    return 2 * math.ceil(3 * sigma) + 1


def plan(
    policy: Policy,
    video_id: str,
    num_frames: int,
    length: int,
    stride: int,
    rng: np.random.Generator,
    *,
    frame_size: tuple[int, int],
) -> ClipPlan:
    """One clip at a random place of a video of `num_frames` frames, with the pixels that `policy` draws.

    With two streams `num_frames` is that of flow, one less than that of RGB. `frame_size` is (height, width) of the
    RGB frames, for aspect ratios. Raises Refusal for a video without frames.
    """
    _check_frames(video_id, num_frames)
    frames = random_clip(num_frames, length, stride, rng)
    return ClipPlan(video_id, frames, policy.pixels(frame_size, length, rng))


def sample_plans(
    policy: Policy,
    video_id: str,
    num_frames: int,
    length: int,
    stride: int,
    *,
    frame_size: tuple[int, int],
    seed: int,
    epoch: int,
    sample: int,
    count: int,
) -> list[ClipPlan]:
    """The `count` clips of one sample of training, as `policy.sample` draws them from `generator(seed, epoch, sample)`.

    Arguments as in `plan`. Raises what `plan` raises, and what `policy.check_views` raises.
    """
    _check_frames(video_id, num_frames)
    policy.check_views(count)
    rng = generator(seed, epoch, sample)
    made = policy.sample(lambda: random_clip(num_frames, length, stride, rng), count, frame_size, rng)
    return [ClipPlan(video_id, frames, pixels) for frames, pixels in made]


def window_plans(
    policy: Policy,
    video_id: str,
    num_frames: int,
    length: int,
    stride: int,
    rng: np.random.Generator,
    *,
    frame_size: tuple[int, int],
) -> list[ClipPlan]:
    """All sliding windows of a video, for evaluation; their pixels are drawn once, for the whole video."""
    _check_frames(video_id, num_frames)
    pixels = policy.pixels(frame_size, length, rng)
    return [ClipPlan(video_id, frames, pixels) for frames in sliding_windows(num_frames, length, stride)]


def _check_frames(video_id: str, num_frames: int) -> None:
    if num_frames < 1:
        raise Refusal(
            "a video without a frame that all its views have cannot give a clip",
            where=video_id,
            remedy="leave it out of the manifest; flow has one frame less than its video",
        )
