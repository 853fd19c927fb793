"""What the papers' policies have in common: crop, mirror, jitter, gray and blur, each with its probability."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from train.augment import steps
from train.augment.draws import Draws
from train.augment.plans import Filter, Pixels, Published
from train.augment.policy import Policy, Size, Streams
from train.augment.windows import Window, random_resized
from train.clips import colour
from train.clips.colour import Gray
from train.clips.streams import BoundStream
from train.settings import check_choice, check_flag, check_number, check_range

Range = Sequence[float]


@dataclass(frozen=True)
class Standard(Policy):
    """The published operations, drawn once a clip: window, mirror, colour jitter, gray, blur.

    The streams of a clip share all of it. One that is not an image (flow in pixels, by default) gets no colour and no
    blur. What the papers did to flow is a setting of the clips: `streams: {flow: {input: image}}` is treated as RGB in
    all.

    Args:
        flip: Probability of mirroring.
        jitter: Probability of the colour jitter, of half ranges brightness, contrast, saturation and hue (in turns).
        gray: Probability of gray.
        gray_kind: "luminance", or "channel": a copy of one random channel, another one for every frame.
        blur: Probability of a Gaussian blur, whose standard deviation in pixels is drawn in `sigma`.
        steady: Colour is drawn once a clip. False: for every frame.
        together: The streams of a clip share what is drawn. False: each view has draws of its own.
    """

    flip: float = 0.5
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
    together: bool = True

    gray_first: ClassVar[bool] = False  # whether gray comes before the jitter
    # Of pixels as published: the filter of resizing, and the step that blurs.
    filter: ClassVar[Filter | None] = "bicubic"
    blurs_by: ClassVar[str] = "box blur"

    def __post_init__(self) -> None:
        for name in ("flip", "jitter", "brightness", "contrast", "saturation", "gray", "blur"):
            check_number(name, getattr(self, name), least=0, most=1)
        check_number("hue", self.hue, least=0, most=0.5)
        check_range("sigma", self.sigma)
        for name in ("steady", "together"):
            check_flag(name, getattr(self, name))
        check_choice("gray_kind", self.gray_kind, Gray)

    def pixels(self, streams: Streams, frame_size: Size, length: int, draws: Draws) -> dict[str, Pixels]:
        return self.drawn(streams, frame_size, length, draws, strong=True)

    @abstractmethod
    def window(self, frame_size: Size, rng: np.random.Generator, published: bool = False) -> Window:
        """Where a clip of frames of this size is cut; `published`: by the rounding of the papers' code."""

    def drawn(self, streams: Streams, frame_size: Size, length: int, draws: Draws, strong: bool) -> dict[str, Pixels]:
        """`pixels`, or only window and mirror where not `strong`."""
        made: dict[str, Pixels] = {}
        published = any(bound.stream.pixels == "published" for bound in streams.values())
        all_alike = _Drawn(self, frame_size, length, draws.shared, published) if self.together else None
        for name, bound in streams.items():
            view = bound.stream.view
            drawn = all_alike or _Drawn(self, frame_size, length, draws.of(view), published)
            mirrored = drawn.flip and bound.stream.mirror != "never"
            if published:
                taken = self._steps(drawn, draws, view) if strong else ()
                made[name] = as_published(bound, drawn.window, mirrored, self.filter, taken)
                continue
            coloured = self._colours(drawn.numbers, draws, view) if strong and bound.stream.image else None
            affine = bound.affine(mirrored, coloured)
            maps = affine.astype(np.float32).reshape(-1, *affine.shape[-2:])
            made[name] = Pixels(drawn.window, mirrored, maps, drawn.blur if coloured is not None else 0.0)
        return made

    def _steps(self, drawn: _Drawn, draws: Draws, view: str) -> tuple[steps.Step, ...]:
        """The same changes as `_colours` makes, and blur, on bytes and one after the other."""
        frames = len(drawn.numbers)
        numbers = drawn.numbers[:1] if self.steady else drawn.numbers
        ranges = self.brightness, self.contrast, self.saturation, self.hue
        jittered = steps.jitter(numbers[:, :5], numbers[:, 5] < self.jitter, ranges)
        channels = draws.of(view, "copied channel").integers(3, size=frames)
        grayed = steps.gray(self.gray_kind, numbers[:, 6] < self.gray, channels)
        blurred = [(self.blurs_by, np.array([drawn.blur]))] if drawn.blur else []
        return (*grayed, *jittered, *blurred) if self.gray_first else (*jittered, *grayed, *blurred)

    def _colours(self, numbers: np.ndarray, draws: Draws, view: str) -> np.ndarray:
        """Maps from RGB bytes to RGB bytes: (1, 3, 4), or (T, 3, 4) where frames differ. A frame's colour follows from
        its row of `numbers` (T, 7); where `steady`, the first row serves all frames. Which channel gray copies is
        another one in every frame of every view."""
        frames = len(numbers)
        if self.steady:
            numbers = numbers[:1]
        jittered = colour.jitter(numbers[:, :5], self.brightness, self.contrast, self.saturation, self.hue)
        maps = np.where((numbers[:, 5] < self.jitter)[:, None, None], jittered, colour.identity(3))
        grayed = numbers[:, 6] < self.gray
        if not grayed.any():
            return maps
        grays = colour.gray(self.gray_kind, draws.of(view, "copied channel").integers(3, size=frames))
        both = colour.compose(maps, grays) if self.gray_first else colour.compose(grays, maps)
        return np.where(grayed[:, None, None], both, maps)


def as_published(
    bound: BoundStream, window: Window, flip: bool, kind: Filter | None, taken: Sequence[steps.Step]
) -> Pixels:
    """The pixels of a stream as the papers' code makes them; steps are taken on images alone."""
    image = bound.stream.image
    normalised = bound.normalised if image else bound.affine(flip)
    published = Published(kind, bound.shown(flip) if image else None, tuple(taken) if image else ())
    return Pixels(window, flip, normalised[None].astype(np.float32), published=published)


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

    def window(self, frame_size: Size, rng: np.random.Generator, published: bool = False) -> Window:
        return random_resized(rng, frame_size, (self.area[0], self.area[1]), retry=self.retry, rounded=published)


class _Drawn:
    """What is drawn for one clip, or for one of its views. All of it always, so that a setting changes only its own."""

    def __init__(
        self, policy: Standard, frame_size: Size, length: int, rng: np.random.Generator, published: bool
    ) -> None:
        self.window = policy.window(frame_size, rng, published)
        flip, blurred, sigma = rng.random(3).tolist()
        self.flip = flip < policy.flip
        self.blur = policy.sigma[0] + sigma * (policy.sigma[1] - policy.sigma[0]) if blurred < policy.blur else 0.0
        self.numbers = rng.random((length, 7))
