"""The policy of evaluation: the whole frame or its centre."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from train.augment.draws import Draws
from train.augment.plans import Pixels
from train.augment.policy import Policy, Size, Streams
from train.augment.windows import WHOLE, square
from train.clips import colour
from train.settings import check_number


@dataclass(frozen=True)
class Evaluate(Policy):
    """Whole frame or centre crop, no flip.

    The colour jitter is CoCLR's, whose published retrieval applies it to test videos too: brightness, contrast and
    saturation times U(.8, 1.2), hue turned by U(-.1, .1), in random order (see `train.clips.colour.jitter`). All
    streams that are images get the same one (published), the others stay as they are.

    Args:
        crop: "whole", or the side of a centred square as a fraction of the frame's short side.
        jitter: Probability of the colour jitter, drawn once per video (published: .3).
    """

    crop: float | str = "whole"
    jitter: float = 0.0

    def __post_init__(self) -> None:
        if self.crop != "whole":
            check_number("crop", self.crop, above=0, most=1)
        check_number("jitter", self.jitter, least=0, most=1)

    def pixels(self, streams: Streams, frame_size: Size, length: int, draws: Draws) -> dict[str, Pixels]:
        [drawn] = colour.jitter(draws.shared.random((1, 5)), 0.2, 0.2, 0.2, 0.1)
        jittered = drawn if draws.shared.random() < self.jitter else None
        window = WHOLE if isinstance(self.crop, str) else square(frame_size, self.crop)
        maps = {name: bound.affine(False, jittered if bound.stream.image else None) for name, bound in streams.items()}
        return {name: Pixels(window, False, affine[None].astype(np.float32)) for name, affine in maps.items()}
