"""The policy of evaluation: the whole frame or its centre."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from train.augment import colour
from train.augment.colour import FlowInput, Statistics
from train.augment.plans import Pixels, Policy
from train.augment.windows import WHOLE, square
from train.settings import check_choice, check_number


@dataclass(frozen=True)
class Evaluate(Policy):
    """Whole frame or centre crop, no flip.

    The colour jitter is CoCLR's, whose published retrieval applies it to test videos too: brightness, contrast and
    saturation times U(.8, 1.2), hue turned by U(-.1, .1), in random order (see `train.augment.colour.jitter`). Flow gets
    the same one where the network is given it as an image (published), and stays as it is otherwise.

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
        check_choice("flow", self.flow, FlowInput)
        check_choice("statistics", self.statistics, Statistics)

    def pixels(self, frame_size: tuple[int, int], length: int, rng: np.random.Generator) -> dict[str, Pixels]:
        [drawn] = colour.jitter(rng.random((1, 5)), 0.2, 0.2, 0.2, 0.1)
        jittered = drawn if rng.random() < self.jitter else colour.IDENTITY
        rgb = colour.compose(colour.normalisation(self.statistics), jittered)
        flow = colour.flow_input(self.flow, self.flow_bound)
        if colour.is_image(self.flow):
            flow = colour.compose(rgb, flow)
        window = WHOLE if isinstance(self.crop, str) else square(frame_size, self.crop)
        maps = {"rgb": rgb, "flow": flow}
        return {view: Pixels(window, False, affine[None].astype(np.float32)) for view, affine in maps.items()}
