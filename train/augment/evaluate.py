"""The policy of evaluation: the whole frame or its centre."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from train.augment.colour import FlowInput, Statistics, compose, jitter, normalisation, normalised_flow
from train.augment.plans import Pixels, Policy
from train.augment.windows import WHOLE, square
from train.settings import check_number


@dataclass(frozen=True)
class Evaluate(Policy):
    """Whole frame or centre crop, no flip.

    The colour jitter is CoCLR's, whose published retrieval applies it to test videos too: brightness, contrast and
    saturation times U(.8, 1.2), hue turned by U(-.1, .1), in random order (see `train.augment.colour.jitter`). Flow stays
    as it is (published: the same jitter, as if it were an RGB image).

    Args:
        crop: "whole", or the side of a centred square as a fraction of the frame's short side.
        jitter: Probability of the colour jitter, drawn once per video (published: .3).
        flow, statistics: What the network was trained on, see `train.augment.colour`.
        flow_bound: Of the store's flow, in pixels.
    """

    crop: float | str = "whole"
    jitter: float = 0.0
    flow: FlowInput = "pixels"
    statistics: Statistics = "imagenet"
    flow_bound: float = 20.0

    def __post_init__(self) -> None:
        if self.crop != "whole":
            check_number("crop", self.crop, above=0, most=1)
        check_number("jitter", self.jitter, least=0, most=1)
        check_number("flow_bound", self.flow_bound, above=0)

    def pixels(self, frame_size: tuple[int, int], length: int, rng: np.random.Generator) -> dict[str, Pixels]:
        drawn, applied = jitter(rng, 0.2, 0.2, 0.2, 0.1), rng.random() < self.jitter
        maps = {
            "rgb": normalisation(self.statistics),
            "flow": normalised_flow(self.flow, self.flow_bound, self.statistics),
        }
        if applied:
            maps["rgb"] = compose(maps["rgb"], drawn)
        window = WHOLE if isinstance(self.crop, str) else square(frame_size, self.crop)
        return {view: Pixels(window, False, colour[None].astype(np.float32)) for view, colour in maps.items()}
