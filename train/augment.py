"""Which pixels a clip shows: crop window, flip and colour, drawn as pure functions of (seed, epoch, sample index).

A plan says all that an executor (`train.reader`) needs and holds nothing that depends on how it is executed, so that
the same sample looks the same on any executor, device, number of workers and after a resume. A plan covers every view
of its clip: RGB and flow share frames, window and flip. Each policy draws the same numbers in the same order whatever
its settings and whichever views are read later.

Colour is one affine map per view, `out = A[:, :C] @ pixel + A[:, C]` with pixels in 0..255. It folds the jitter with
the normalisation, and runs on the training device (`train.reader.affine`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from pipeline.errors import Refusal, UsageError
from train.clips import random_clip, sliding_windows
from train.registry import Registry
from train.settings import check_number

Window = tuple[float, float, float, float]

DOMAIN = 0x70697865  # keeps these random numbers apart from those of other users of the same seed
IMAGENET_MEAN = np.array([0.485, 0.456, 0.406])  # of pixels in 0..1
IMAGENET_STD = np.array([0.229, 0.224, 0.225])
FLOW_SCALE = 2.5  # pixels that become 1 at the network's input: 1 px -> 0.4, as in the small-scale study
LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
# RGB -> YIQ. Hue turns I and Q about the gray axis, which is linear; a shift of HSV's hue is not.
YIQ = np.array([LUMA, [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])


@dataclass(frozen=True, eq=False)
class ClipPlan:
    """One clip of one video: what to read and what to make of it.

    frames: indices of its T frames, int64 (T,), the same in every view.
    window: (top, left, height, width) as fractions of the frame, because views may be stored at different sizes.
    flip: mirror horizontally; flow's u is negated as well.
    colour: per view, float32 (C, C + 1): the affine map from bytes to network input.
    """

    video_id: str
    frames: np.ndarray
    window: Window
    flip: bool
    colour: Mapping[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Pixels:
    """The part of a plan that a policy draws: see `ClipPlan`."""

    window: Window
    flip: bool
    colour: Mapping[str, np.ndarray]


class Policy(Protocol):
    """Draws the pixels of one clip of frames of `frame_size` = (height, width)."""

    def draw(self, frame_size: tuple[int, int], rng: np.random.Generator) -> Pixels: ...


def base_affine(flow_bound: float = 20.0) -> dict[str, np.ndarray]:
    """Normalisation without jitter, per view, float64 (C, C + 1).

    rgb: `(v / 255 - mean) / std` with ImageNet's mean and std. flow: bytes to pixels of the stored flow, `v * 2 bound /
    255 - bound` (as `pipeline.flow.dequantise`; 20 in all published systems), then divided by FLOW_SCALE.
    """
    scale = 2 * flow_bound / 255 / FLOW_SCALE
    return {
        "rgb": np.column_stack([np.diag(1 / 255 / IMAGENET_STD), -IMAGENET_MEAN / IMAGENET_STD]),
        "flow": np.column_stack([scale * np.eye(2), np.full(2, -flow_bound / FLOW_SCALE)]),
    }


def generator(seed: int, epoch: int, sample: int) -> np.random.Generator:
    """The random numbers of one sample of one epoch; equal triples give equal numbers, on any worker."""
    return np.random.default_rng(np.random.SeedSequence((DOMAIN, seed, epoch, sample)))


def pixel_window(window: Window, height: int, width: int) -> tuple[int, int, int, int]:
    """(top, left, height, width) in whole pixels of a frame of `height` x `width`.

    Every executor cuts this window. The two edges of each axis are rounded to the nearest pixel, at least one apart.
    """
    top, down = _edges(window[0], window[2], height)
    left, across = _edges(window[1], window[3], width)
    return top, left, down, across


def _edges(start: float, extent: float, size: int) -> tuple[int, int]:
    first = min(round(start * size), size - 1)
    last = min(max(round((start + extent) * size), first + 1), size)
    return first, last - first


def clip_length(plans: Sequence[ClipPlan]) -> int:
    """T of a batch. Raises ValueError when its clips differ in it."""
    lengths = {len(plan.frames) for plan in plans}
    if len(lengths) != 1:
        raise ValueError(f"the clips of a batch need one length, not {sorted(lengths)} frames")
    return lengths.pop()


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
    pixels = policy.draw(frame_size, rng)
    return ClipPlan(video_id, frames, pixels.window, pixels.flip, pixels.colour)


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
    """The `count` clips of one sample of training: independent draws of `plan` from `generator(seed, epoch, sample)`.

    The first clips do not depend on how many are asked for.
    """
    rng = generator(seed, epoch, sample)
    return [plan(policy, video_id, num_frames, length, stride, rng, frame_size=frame_size) for _ in range(count)]


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
    pixels = policy.draw(frame_size, rng)
    windows = sliding_windows(num_frames, length, stride)
    return [ClipPlan(video_id, frames, pixels.window, pixels.flip, pixels.colour) for frames in windows]


def _check_frames(video_id: str, num_frames: int) -> None:
    if num_frames < 1:
        raise Refusal(
            "a video without a frame that all its views have cannot give a clip",
            where=video_id,
            remedy="leave it out of the manifest; flow has one frame less than its video",
        )


@dataclass(frozen=True)
class Small:
    """Augmentation of the small-scale study: one window per view, strong colour for RGB, gain and offset for flow.

    Args:
        area: Range of the window's area, as a fraction of the frame's. Its aspect ratio (width / height, in pixels) is
            log-uniform in 3/4..4/3; a side that does not fit is cut to the frame's.
        flip: Probability of mirroring (off: it would merge opposite motions).
        strength: Of the RGB map, which is drawn for normalised pixels: either gray by random weights (p .25) or a
            permutation of the channels plus noise; then gain, inversion and offset.
        flow_gain: Flow is multiplied by exp(U(-flow_gain, flow_gain)).
        flow_offset: Standard deviation of the constant added to flow at the network's input (a moving camera).
        flow_bound: Of the store's flow, in pixels.
    """

    area: Sequence[float] = (0.5, 1.0)
    flip: float = 0.0
    strength: float = 0.8
    flow_gain: float = 0.25
    flow_offset: float = 0.15
    flow_bound: float = 20.0

    def __post_init__(self) -> None:
        if len(self.area) != 2 or not 0 < self.area[0] <= self.area[1] <= 1:
            raise UsageError(f"area {self.area!r} is not a range", remedy="two rising fractions of the frame in 0..1")
        check_number("flip", self.flip, least=0, most=1)
        check_number("strength", self.strength, least=0)
        check_number("flow_gain", self.flow_gain, least=0)
        check_number("flow_offset", self.flow_offset, least=0)
        check_number("flow_bound", self.flow_bound, above=0)

    def draw(self, frame_size: tuple[int, int], rng: np.random.Generator) -> Pixels:
        window = self._window(frame_size, rng)
        flip = bool(rng.random() < self.flip)
        jitter = {"rgb": self._rgb(rng), "flow": self._flow(rng)}
        base = base_affine(self.flow_bound)
        return Pixels(window, flip, {view: _compose(jitter[view], base[view]).astype(np.float32) for view in base})

    def _window(self, frame_size: tuple[int, int], rng: np.random.Generator) -> Window:
        frame_height, frame_width = frame_size
        area = rng.uniform(self.area[0], self.area[1]) * frame_height * frame_width
        aspect = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
        height = min(1.0, np.sqrt(area / aspect) / frame_height)
        width = min(1.0, np.sqrt(area * aspect) / frame_width)
        top, left = rng.random() * (1 - height), rng.random() * (1 - width)
        return float(top), float(left), float(height), float(width)

    def _rgb(self, rng: np.random.Generator) -> np.ndarray:
        gray, permute, invert = rng.random(3) < (0.25, 0.8 * self.strength, 0.3 * self.strength)
        weights, order, noise = rng.dirichlet((1, 1, 1)), rng.permutation(3), rng.normal(size=(3, 3))
        gain, offset = np.exp(rng.uniform(-0.5, 0.5) * self.strength), rng.normal(size=3)
        if gray:
            mix = np.tile(weights, (3, 1))
        else:
            mix = np.eye(3)[order if permute else [0, 1, 2]] + 0.25 * self.strength * noise
        return np.column_stack([(-gain if invert else gain) * mix, 0.4 * self.strength * offset])

    def _flow(self, rng: np.random.Generator) -> np.ndarray:
        gain, offset = np.exp(rng.uniform(-1, 1) * self.flow_gain), rng.normal(size=2)
        return np.column_stack([gain * np.eye(2), self.flow_offset * offset])


@dataclass(frozen=True)
class Evaluate:
    """Whole frame or centre crop, no flip.

    The colour jitter is CoCLR's, whose published retrieval applies it to test videos too: brightness, contrast and
    saturation times U(.8, 1.2), hue turned by U(-.1, .1), in random order. All four are linear here, so that they fold
    into one matrix: contrast is about a fixed gray level (that of ImageNet's mean; the published one is about each
    frame's own mean), hue turns in YIQ (published: HSV), and nothing is cut to 0..255 on the way. Flow stays as it is
    (published: the same jitter, as if it were an RGB image).

    Args:
        crop: "whole", or the side of a centred square as a fraction of the frame's short side.
        jitter: Probability of the colour jitter, drawn once per video (published: .3).
        flow_bound: Of the store's flow, in pixels.
    """

    crop: float | str = "whole"
    jitter: float = 0.0
    flow_bound: float = 20.0

    def __post_init__(self) -> None:
        if self.crop != "whole":
            check_number("crop", self.crop, above=0, most=1)
        check_number("jitter", self.jitter, least=0, most=1)
        check_number("flow_bound", self.flow_bound, above=0)

    def draw(self, frame_size: tuple[int, int], rng: np.random.Generator) -> Pixels:
        jitter, applied = _colour_jitter(rng, 0.2, 0.2, 0.2, 0.1), rng.random() < self.jitter
        colour = base_affine(self.flow_bound)
        if applied:
            colour["rgb"] = _compose(colour["rgb"], jitter)
        return Pixels(self._window(frame_size), False, {view: map_.astype(np.float32) for view, map_ in colour.items()})

    def _window(self, frame_size: tuple[int, int]) -> Window:
        if isinstance(self.crop, str):
            return 0.0, 0.0, 1.0, 1.0
        side = self.crop * min(frame_size)
        height, width = side / frame_size[0], side / frame_size[1]
        return (1 - height) / 2, (1 - width) / 2, height, width


POLICIES = Registry("augmentation", {"small": "train.augment:Small", "evaluate": "train.augment:Evaluate"})


def policy(name: str, **settings: object) -> Policy:
    """The named policy with its settings. Raises UsageError for a name, key or value that cannot be meant."""
    return POLICIES.create(name, **settings)


def _colour_jitter(
    rng: np.random.Generator, brightness: float, contrast: float, saturation: float, hue: float
) -> np.ndarray:
    """A random colour map for pixels in 0..255, (3, 4); the arguments are the half ranges of the factors."""
    light, spread, vivid = 1 + rng.uniform(-1, 1, 3) * (brightness, contrast, saturation)
    angle = 2 * np.pi * rng.uniform(-hue, hue)
    rotation = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    gray = 255 * LUMA @ IMAGENET_MEAN
    steps = [
        np.column_stack([light * np.eye(3), np.zeros(3)]),
        np.column_stack([spread * np.eye(3), np.full(3, (1 - spread) * gray)]),
        np.column_stack([vivid * np.eye(3) + (1 - vivid) * LUMA, np.zeros(3)]),
        np.column_stack([np.linalg.inv(YIQ) @ rotation @ YIQ, np.zeros(3)]),
    ]
    total = np.eye(3, 4)
    for step in rng.permutation(4):
        total = _compose(steps[step], total)
    return total


def _compose(second: np.ndarray, first: np.ndarray) -> np.ndarray:
    """The affine map that applies `first` and then `second`; both (C, C + 1)."""
    channels = len(first)
    total = second[:, :channels] @ first
    total[:, channels] += second[:, channels]
    return total
