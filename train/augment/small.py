"""The policy of the small recipes: strong colour for RGB, gain and offset for flow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.views.flow import FLOW
from train.augment.colour import base_affine, compose
from train.augment.plans import Pixels, Policy
from train.augment.windows import Window
from train.settings import check_number, check_range


@dataclass(frozen=True)
class Small(Policy):
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
        check_range("area", self.area, most=1.0)
        check_number("flip", self.flip, least=0, most=1)
        check_number("strength", self.strength, least=0)
        check_number("flow_gain", self.flow_gain, least=0)
        check_number("flow_offset", self.flow_offset, least=0)
        check_number("flow_bound", self.flow_bound, above=0)

    def pixels(self, frame_size: tuple[int, int], length: int, rng: np.random.Generator) -> dict[str, Pixels]:
        window = self._window(frame_size, rng)
        flip = bool(rng.random() < self.flip)
        maps = {"rgb": self._rgb(rng), "flow": self._flow(rng)}
        for view, base in base_affine(self.flow_bound).items():
            maps[view] = compose(maps[view], base)
        if flip:
            maps["flow"] = compose(maps["flow"], FLOW.mirror)
        return {view: Pixels(window, flip, colour[None].astype(np.float32)) for view, colour in maps.items()}

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
