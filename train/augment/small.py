"""The policy of the small recipes: strong colour for images, gain and offset for all else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from train.augment.draws import Draws
from train.augment.plans import Pixels
from train.augment.policy import Policy, Size, Streams
from train.augment.windows import Window
from train.clips.colour import compose
from train.settings import check_number, check_range


@dataclass(frozen=True)
class Small(Policy):
    """Augmentation of the small-scale study: one window per clip, strong colour for images, gain and offset for all
    else.

    Args:
        area: Range of the window's area, as a fraction of the frame's. Its aspect ratio (width / height, in pixels) is
            log-uniform in 3/4..4/3; a side that does not fit is cut to the frame's.
        flip: Probability of mirroring (off: it would merge opposite motions).
        strength: Of the map of images, which is drawn for normalised pixels: either gray by random weights (p .25) or a
            permutation of the channels plus noise; then gain, inversion and offset.
        flow_gain: What is no image is multiplied by exp(U(-flow_gain, flow_gain)).
        flow_offset: Standard deviation of the constant added to it at the network's input (for flow, a moving camera).
    """

    area: Sequence[float] = (0.5, 1.0)
    flip: float = 0.0
    strength: float = 0.8
    flow_gain: float = 0.25
    flow_offset: float = 0.15

    def __post_init__(self) -> None:
        check_range("area", self.area, most=1.0)
        check_number("flip", self.flip, least=0, most=1)
        check_number("strength", self.strength, least=0)
        check_number("flow_gain", self.flow_gain, least=0)
        check_number("flow_offset", self.flow_offset, least=0)

    @property
    def offset(self) -> float:
        return self.flow_offset

    def pixels(self, streams: Streams, frame_size: Size, length: int, draws: Draws) -> dict[str, Pixels]:
        window = self._window(frame_size, draws.shared)
        flip = bool(draws.shared.random() < self.flip)
        made = {}
        for name, bound in streams.items():
            stream, rng = bound.stream, draws.of(bound.stream.view)
            mirrored = flip and stream.mirror != "never"
            drawn = self._image(rng) if stream.image else self._other(stream.channels, rng)
            changed = compose(drawn, bound.affine(mirrored))
            made[name] = Pixels(window, mirrored, changed[None].astype(np.float32))
        return made

    def _window(self, frame_size: Size, rng: np.random.Generator) -> Window:
        frame_height, frame_width = frame_size
        area = rng.uniform(self.area[0], self.area[1]) * frame_height * frame_width
        aspect = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
        height = min(1.0, np.sqrt(area / aspect) / frame_height)
        width = min(1.0, np.sqrt(area * aspect) / frame_width)
        top, left = rng.random() * (1 - height), rng.random() * (1 - width)
        return float(top), float(left), float(height), float(width)

    def _image(self, rng: np.random.Generator) -> np.ndarray:
        gray, permute, invert = rng.random(3) < (0.25, 0.8 * self.strength, 0.3 * self.strength)
        weights, order, noise = rng.dirichlet((1, 1, 1)), rng.permutation(3), rng.normal(size=(3, 3))
        gain, offset = np.exp(rng.uniform(-0.5, 0.5) * self.strength), rng.normal(size=3)
        if gray:
            mix = np.tile(weights, (3, 1))
        else:
            mix = np.eye(3)[order if permute else [0, 1, 2]] + 0.25 * self.strength * noise
        return np.column_stack([(-gain if invert else gain) * mix, 0.4 * self.strength * offset])

    def _other(self, channels: int, rng: np.random.Generator) -> np.ndarray:
        gain, offset = np.exp(rng.uniform(-1, 1) * self.flow_gain), rng.normal(size=channels)
        return np.column_stack([gain * np.eye(channels), self.flow_offset * offset])
