"""The two-view policy of CoCLR, which ViCC took over (specs/coclr.md section 5.2)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from train.augment.plans import Pixels
from train.augment.standard import RandomResized
from train.settings import check_number


@dataclass(frozen=True)
class CoCLR(RandomResized):
    """Half of the samples show one clip twice, once strongly and once weakly changed; the other half shows two clips.

    Weak is window and mirror alone. Two clips are strongly changed with probability `strong`, each for itself. Published,
    by CoCLR and ViCC alike: `retry: false`, `gray_kind: channel`, `flow: image`, `flow_flip: plain`. With `one_clip: 0` any
    number of clips is drawn.

    Args:
        one_clip: Probability that both views show the same clip.
        strong: Probability of strong changes for each of two clips.
    """

    blur: float = 0.5
    one_clip: float = 0.5
    strong: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("one_clip", self.one_clip, least=0, most=1)
        check_number("strong", self.strong, least=0, most=1)

    @property
    def views(self) -> int | None:
        return 2 if self.one_clip else None

    def sample(
        self, clip: Callable[[], np.ndarray], count: int, frame_size: tuple[int, int], rng: np.random.Generator
    ) -> list[tuple[np.ndarray, dict[str, Pixels]]]:
        frames = [clip() for _ in range(count)]
        same, which, order = rng.random() < self.one_clip, rng.integers(2), rng.integers(2)
        strong = (rng.random(count) < self.strong).tolist()
        if same:
            frames, strong = [frames[which]] * 2, [order == 0, order == 1]
        return [
            (shown, self.drawn(frame_size, len(shown), rng, changed))
            for shown, changed in zip(frames, strong, strict=True)
        ]
