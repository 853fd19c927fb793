"""What every policy has: it draws what is done to the pixels of clips."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence

from pipeline.errors import UsageError
from train.augment.draws import Draws
from train.augment.plans import Pixels
from train.clips.streams import BoundStream, Clip, StoreStreams

Size = tuple[int, int]  # height and width
Streams = Mapping[str, "BoundStream"]


class Policy(ABC):
    """Draws what is done to clips. It draws the same numbers in the same order whatever its settings, so that a setting
    changes only what it names; and what views do not share from numbers of each view, so that others may be read beside
    it.
    """

    @property
    def offset(self) -> float:
        """Spread of the constants that are added, at the network's input, to clips of what is no image."""
        return 0.0

    @property
    def clips(self) -> int | None:
        """Of how many clips a sample must be; None: of any number."""
        return None

    def check_count(self, count: int) -> None:
        """Raises UsageError for a number of clips of a sample that the policy has no draws for."""
        if self.clips not in (None, count):
            raise UsageError(
                f"the augmentation draws {self.clips} clips of a video and a sample has {count}",
                where=f"augmentation: {type(self).__name__}",
                remedy="settings with which it draws any number (train/augment), or another augmentation",
            )

    @abstractmethod
    def pixels(self, streams: Streams, frame_size: Size, length: int, draws: Draws) -> dict[str, Pixels]:
        """The pixels, by stream, of one clip of `length` frames of `frame_size`."""

    def sample(
        self, clips: Sequence[Clip], streams: StoreStreams, frame_size: Callable[[int], Size], draws: Draws
    ) -> list[tuple[Clip, dict[str, Pixels]]]:
        """The clips of one sample of training with the pixels of each; here each drawn for itself.

        frame_size: of a video, by its number.
        """
        return [
            (clip, self.pixels(streams.of(clip), frame_size(clip.video), len(clip.frames), draws.clip(number)))
            for number, clip in enumerate(clips)
        ]
