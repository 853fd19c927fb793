"""What the papers' policies have in common: crop, mirror, jitter, gray and blur, each with its probability."""

from __future__ import annotations

import itertools
import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np

from pipeline.errors import UsageError, refuse_unknown
from train.augment import colour
from train.augment.colour import FlowInput, Gray, Statistics
from train.augment.plans import Pixels, Policy
from train.augment.windows import Window, random_resized
from train.settings import check_number

Range = Sequence[float]


@dataclass(frozen=True)
class Standard(Policy):
    """The published operations, drawn once a clip: window, mirror, colour jitter, gray, blur.

    RGB and flow share window and mirror. Flow in pixels (the default) is not a picture: it gets no colour and no blur, and
    u changes its sign in the mirror. What the papers did instead is a setting: `flow: image` is treated as RGB in all.

    Args:
        flip: Probability of mirroring.
        flip_negates: Whether u changes its sign in the mirror (published: False).
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
    flip_negates: bool = True
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

    def __post_init__(self) -> None:
        check_range("sigma", self.sigma)
        for name in ("flip", "jitter", "gray", "blur"):
            check_number(name, getattr(self, name), least=0, most=1)
        for name in ("brightness", "contrast", "saturation"):
            check_number(name, getattr(self, name), least=0, most=1)
        check_number("hue", self.hue, least=0, most=0.5)
        check_number("flow_bound", self.flow_bound, above=0)
        for name, choices in (("gray_kind", Gray), ("flow", FlowInput), ("statistics", Statistics)):
            if getattr(self, name) not in get_args(choices):
                refuse_unknown(name, getattr(self, name), get_args(choices), where=name)

    def pixels(self, frame_size: tuple[int, int], length: int, rng: np.random.Generator) -> dict[str, Pixels]:
        return self.drawn(frame_size, length, rng, strong=True)

    @abstractmethod
    def window(self, frame_size: tuple[int, int], rng: np.random.Generator) -> Window:
        """Where a clip of frames of (height, width) is cut."""

    def drawn(
        self, frame_size: tuple[int, int], length: int, rng: np.random.Generator, strong: bool
    ) -> dict[str, Pixels]:
        """`pixels`, or only window and mirror where not `strong`; `rng` moves on by as much."""
        first = _Drawn(self, frame_size, rng)
        second = first if self.together else _Drawn(self, frame_size, first.another())
        rgb = colour.normalisation(self.statistics)
        flow = colour.flow_input(self.flow, self.flow_bound)
        if second.flip and self.flip_negates:
            flow = colour.compose(flow, colour.MIRRORED_FLOW)
        as_image = colour.is_image(self.flow)
        return {
            "rgb": first.pixels(length, strong, None, rgb),
            "flow": second.pixels(length, strong, flow, rgb) if as_image else second.pixels(length, False, None, flow),
        }


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

    def window(self, frame_size: tuple[int, int], rng: np.random.Generator) -> Window:
        return random_resized(rng, frame_size, (self.area[0], self.area[1]), retry=self.retry)


class _Drawn:
    """What is drawn for one clip, or for one of its streams."""

    def __init__(self, policy: Standard, frame_size: tuple[int, int], rng: np.random.Generator) -> None:
        self.policy = policy
        self.window = policy.window(frame_size, rng)
        self.flip = bool(rng.random() < policy.flip)
        blurred, sigma = rng.random() < policy.blur, rng.uniform(policy.sigma[0], policy.sigma[1])
        self.blur = float(sigma) if blurred else 0.0
        # Of its own, so that how many colours are drawn changes nothing that comes after.
        self.colours = int(rng.integers(2**63))

    def another(self) -> np.random.Generator:
        return np.random.default_rng((self.colours, 1))

    def pixels(self, length: int, strong: bool, into_rgb: np.ndarray | None, normalised: np.ndarray) -> Pixels:
        """Through the map `into_rgb` (none for RGB itself), the drawn colours where `strong`, and the map `normalised`."""
        colours = self._colours(length) if strong else [np.eye(len(normalised[0]) - 1, len(normalised[0]))]
        maps = []
        for drawn in colours:
            inner = drawn if into_rgb is None else colour.compose(drawn, into_rgb)
            maps.append(colour.compose(normalised, inner))
        return Pixels(self.window, self.flip, np.stack(maps).astype(np.float32), self.blur if strong else 0.0)

    def _colours(self, length: int) -> list[np.ndarray]:
        """Maps from RGB bytes to RGB bytes: one, or one a frame where they differ."""
        policy, rng = self.policy, np.random.default_rng((self.colours, 0))
        channels = rng.integers(3, size=length)
        draws = [self._jitter_and_coin(rng) for _ in range(1 if policy.steady else length)]
        flickers = any(grayed for _, grayed in draws) and policy.gray_kind == "channel"
        frames = length if flickers or not policy.steady else 1
        return [
            colour.compose(colour.gray(policy.gray_kind, int(channel)), jittered) if grayed else jittered
            for channel, (jittered, grayed) in zip(channels[:frames], itertools.cycle(draws), strict=False)
        ]

    def _jitter_and_coin(self, rng: np.random.Generator) -> tuple[np.ndarray, bool]:
        """A colour map, and whether gray follows."""
        policy = self.policy
        jittered, grayed = rng.random(2) < (policy.jitter, policy.gray)
        drawn = colour.jitter(rng, policy.brightness, policy.contrast, policy.saturation, policy.hue)
        return drawn if jittered else np.eye(3, 4), bool(grayed)


def check_range(name: str, value: object, least: float = 0.0, most: float = math.inf) -> None:
    """Passes two positive numbers that do not fall, both in least..most. Raises UsageError with the setting's name."""
    numbers = isinstance(value, list | tuple) and len(value) == 2 and all(isinstance(v, int | float) for v in value)
    if not numbers or not max(least, 1e-9) <= value[0] <= value[1] <= most:  # type: ignore[index]
        limits = f"in {least:g}..{most:g}" if math.isfinite(most) else f"from {least:g}"
        raise UsageError(f"{name} {value!r} is not a range", where=name, remedy=f"two rising numbers {limits}")
