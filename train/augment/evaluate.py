"""The policy of evaluation: the whole frame, its centre, or several crops of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipeline.errors import UsageError
from train.augment import steps
from train.augment.draws import Draws
from train.augment.plans import Filter, Pixels
from train.augment.policy import Policy, Size, Streams
from train.augment.standard import as_published
from train.augment.windows import WHOLE, Window, crops
from train.clips import colour
from train.settings import check_choice, check_number

Crops = Literal[1, 3, 10]
JITTER = (0.2, 0.2, 0.2, 0.1)  # half ranges of brightness, contrast, saturation and hue


@dataclass(frozen=True)
class Evaluate(Policy):
    """Whole frame, centre crop, or several crops.

    The colour jitter is CoCLR's, whose published retrieval applies it to test videos too: brightness, contrast and
    saturation times U(.8, 1.2), hue turned by U(-.1, .1), in random order (see `train.clips.colour.jitter`). All
    streams that are images get the same one (published), the others stay as they are.

    Args:
        crop: "whole", or the side of a square as a fraction of the frame's short side; of streams that say nothing
            else.
        jitter: Probability of the colour jitter, drawn once per video (published: .3).
        crops: How many squares, see `train.augment.windows.crops`.
        scaled: Height and width that frames are scaled to before they are cut; none: as they are.
        filter: Of resizing, where the clips' pixels are made as published; none: bilinear without a smoothing filter.
    """

    crop: float | str = "whole"
    jitter: float = 0.0
    crops: Crops = 1
    scaled: Size | None = None
    filter: Filter | None = "bicubic"

    def __post_init__(self) -> None:
        if self.crop != "whole":
            check_number("crop", self.crop, above=0, most=1)
        check_number("jitter", self.jitter, least=0, most=1)
        check_choice("crops", self.crops, Crops)
        if self.crops > 1 and self.crop == "whole":
            raise UsageError(
                f"{self.crops} crops are asked for, and clips show the whole frame",
                where="crops",
                remedy="clips.crop, a fraction of the frame's short side; or a protocol with one crop",
            )

    def pixels(self, streams: Streams, frame_size: Size, length: int, draws: Draws) -> dict[str, Pixels]:
        return self.each(streams, frame_size, draws)[0]

    def each(self, streams: Streams, frame_size: Size, draws: Draws) -> list[dict[str, Pixels]]:
        """The pixels, by stream, of every crop; all of one video have its colours."""
        numbers = draws.shared.random((1, 5))
        changed = draws.shared.random() < self.jitter
        [jittered] = colour.jitter(numbers, *JITTER) if changed else [None]
        taken = steps.jitter(numbers, np.array([changed]), JITTER)
        cut = {name: self._cut(frame_size, bound.stream.crop or self.crop) for name, bound in streams.items()}
        made = []
        for number in range(self.crops):
            shown: dict[str, Pixels] = {}
            for name, bound in streams.items():
                window, mirrored = cut[name][number]
                flip = mirrored and bound.stream.mirror != "never"
                if bound.stream.pixels == "published":
                    shown[name] = as_published(bound, window, flip, self.filter, taken)
                    continue
                affine = bound.affine(flip, jittered if bound.stream.image else None)
                shown[name] = Pixels(window, flip, affine[None].astype(np.float32))
            made.append(shown)
        return made

    def _cut(self, frame_size: Size, side: float | str) -> list[tuple[Window, bool]]:
        return [(WHOLE, False)] if isinstance(side, str) else crops(self.scaled or frame_size, side, self.crops)
