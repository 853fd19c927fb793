"""The two-view policy of CoCLR, which ViCC took over (docs/methods.md 2.2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from train.augment.draws import Draws
from train.augment.plans import Pixels
from train.augment.policy import Size
from train.augment.standard import RandomResized
from train.clips.streams import Clip, StoreStreams
from train.settings import check_number


@dataclass(frozen=True)
class CoCLR(RandomResized):
    """Half of the samples show one clip twice, once strongly and once weakly changed; the other half shows two clips.

    Weak is window and mirror alone. Two clips are strongly changed with probability `strong`, each for itself.
    Published, by CoCLR and ViCC alike: `retry: false`, `gray_kind: channel`, and for the clips `streams: {flow: {input:
    image, mirror: plain}}`. With `one_clip: 0` a sample may have any number of clips.

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
    def clips(self) -> int | None:
        return 2 if self.one_clip else None

    def sample(
        self, clips: Sequence[Clip], streams: StoreStreams, frame_size: Callable[[int], Size], draws: Draws
    ) -> list[tuple[Clip, dict[str, Pixels]]]:
        chosen, rng = clips, draws.shared
        same, which, order = rng.random() < self.one_clip, rng.integers(2), rng.integers(2)
        strong = (rng.random(len(chosen)) < self.strong).tolist()
        if same:
            chosen, strong = [chosen[int(which)]] * 2, [order == 0, order == 1]
        made = []
        for number, clip in enumerate(chosen):
            size, length = frame_size(clip.video), len(clip.frames)
            made.append((clip, self.drawn(streams.of(clip), size, length, draws.clip(number), strong[number])))
        return made
