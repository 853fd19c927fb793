"""What the papers' policies have in common: crop, mirror, jitter, gray and blur, each with its probability."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from pipeline.views.flow import FLOW
from train.augment import colour
from train.augment.colour import FlowInput, Gray, Statistics
from train.augment.plans import Pixels, Policy
from train.augment.windows import Window, random_resized
from train.settings import check_choice, check_flag, check_number, check_range

Range = Sequence[float]
FlowFlip = Literal["negated", "plain", "never"]


@dataclass(frozen=True)
class Standard(Policy):
    """The published operations, drawn once a clip: window, mirror, colour jitter, gray, blur.

    RGB and flow share window and mirror. Flow in pixels (the default) is not a picture: it gets no colour and no blur, and
    u changes its sign in the mirror. What the papers did instead is a setting: `flow: image` is treated as RGB in all.

    Args:
        flip: Probability of mirroring.
        flow_flip: Flow in the mirror: "negated", u changes its sign; "plain", it does not (published, mostly); "never",
            flow is not mirrored.
        jitter: Probability of the colour jitter, of half ranges brightness, contrast, saturation and hue (in turns).
        gray: Probability of gray.
        gray_kind: "luminance", or "channel": a copy of one random channel, another one for every frame.
        blur: Probability of a Gaussian blur, whose standard deviation in pixels is drawn in `sigma`.
        steady: Colour is drawn once a clip. False: for every frame.
        flow: What the network is given of flow, see `train.augment.colour.flow_input`; "image" and "u" also get the colour
            and the blur of RGB.
        statistics: Mean and deviation of normalisation: "imagenet" or "kinetics".
        together: RGB and flow of a clip share what is drawn. False: each has draws of its own.
        flow_bound: Of the store's flow, in pixels.
    """

    flip: float = 0.5
    flow_flip: FlowFlip = "negated"
    jitter: float = 0.8
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.1
    gray: float = 0.2
    gray_kind: Gray = "luminance"
    blur: float = 0.0
    sigma: Range = (0.1, 2.0)
    steady: bool = True
    flow: FlowInput = "pixels"
    statistics: Statistics = "imagenet"
    together: bool = True
    flow_bound: float = 20.0

    gray_first: ClassVar[bool] = False  # whether gray comes before the jitter

    def __post_init__(self) -> None:
        for name in ("flip", "jitter", "brightness", "contrast", "saturation", "gray", "blur"):
            check_number(name, getattr(self, name), least=0, most=1)
        check_number("hue", self.hue, least=0, most=0.5)
        check_range("sigma", self.sigma)
        check_number("flow_bound", self.flow_bound, above=0)
        for name in ("steady", "together"):
            check_flag(name, getattr(self, name))
        check_choice("flow_flip", self.flow_flip, FlowFlip)
        check_choice("gray_kind", self.gray_kind, Gray)
        check_choice("flow", self.flow, FlowInput)
        check_choice("statistics", self.statistics, Statistics)

    def pixels(self, frame_size: tuple[int, int], length: int, rng: np.random.Generator) -> dict[str, Pixels]:
        return self.drawn(frame_size, length, rng, strong=True)

    @abstractmethod
    def window(self, frame_size: tuple[int, int], rng: np.random.Generator) -> Window:
        """Where a clip of frames of (height, width) is cut."""

    def drawn(
        self, frame_size: tuple[int, int], length: int, rng: np.random.Generator, strong: bool
    ) -> dict[str, Pixels]:
        """`pixels`, or only window and mirror where not `strong`; `rng` moves on by as much."""
        first, own = (_Draws(self, frame_size, length, rng) for _ in range(2))
        second = first if self.together else own
        rgb = colour.normalisation(self.statistics)[None]
        flow = colour.flow_input(self.flow, self.flow_bound)[None]
        mirrored = second.flip and self.flow_flip != "never"
        if mirrored and self.flow_flip == "negated":
            flow = colour.compose(flow, FLOW.mirror)
        coloured = strong and colour.is_image(self.flow)
        if coloured:
            flow = colour.compose(self._colours(second.numbers, 8), flow)
        if colour.is_image(self.flow):
            flow = colour.compose(rgb, flow)
        if strong:
            rgb = colour.compose(rgb, self._colours(first.numbers, 7))
        return {
            "rgb": Pixels(first.window, first.flip, rgb.astype(np.float32), first.blur if strong else 0.0),
            "flow": Pixels(second.window, mirrored, flow.astype(np.float32), second.blur if coloured else 0.0),
        }

    def _colours(self, numbers: np.ndarray, copied: int) -> np.ndarray:
        """Maps from RGB bytes to RGB bytes: (1, 3, 4), or (T, 3, 4) where frames differ. A frame's colour follows from its
        row of `numbers` (T, 9), whose column `copied` says which channel gray copies; where `steady`, the first row
        serves all frames in all else."""
        channels = (3 * numbers[:, copied]).astype(int)
        if self.steady:
            numbers = numbers[:1]
        jittered = colour.jitter(numbers[:, :5], self.brightness, self.contrast, self.saturation, self.hue)
        maps = np.where((numbers[:, 5] < self.jitter)[:, None, None], jittered, colour.IDENTITY)
        grayed = numbers[:, 6] < self.gray
        if not grayed.any():
            return maps
        grays = colour.gray(self.gray_kind, channels)
        both = colour.compose(maps, grays) if self.gray_first else colour.compose(grays, maps)
        return np.where(grayed[:, None, None], both, maps)


@dataclass(frozen=True)
class RandomResized(Standard):
    """With a random resized crop.

    Args:
        area: Range of the window's area, as a fraction of the frame's; its aspect ratio is drawn in 3/4..4/3.
        retry: Draw a window that does not fit again. False: the whole frame in its place (CoCLR's code).
    """

    area: Range = (0.2, 1.0)
    retry: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("area", self.area, most=1.0)
        check_flag("retry", self.retry)

    def window(self, frame_size: tuple[int, int], rng: np.random.Generator) -> Window:
        return random_resized(rng, frame_size, (self.area[0], self.area[1]), retry=self.retry)


class _Draws:
    """What is drawn for one clip, or for one of its streams. All of it always, so that a setting changes only its own."""

    def __init__(self, policy: Standard, frame_size: tuple[int, int], length: int, rng: np.random.Generator) -> None:
        self.window = policy.window(frame_size, rng)
        flip, blurred, sigma = rng.random(3).tolist()
        self.flip = flip < policy.flip
        self.blur = policy.sigma[0] + sigma * (policy.sigma[1] - policy.sigma[0]) if blurred < policy.blur else 0.0
        self.numbers = rng.random((length, 9))
