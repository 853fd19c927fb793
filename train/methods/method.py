"""What the trainer and evaluation know of every method."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from lightning.pytorch import LightningModule

from train.networks.network import Network


@dataclass(frozen=True)
class Meter:
    """A fraction that the progress line shows as a percentage.

    Args:
        label: what it is called there.
        meaning: what it is the share of, and what guessing would give; completes "<label> is ...".
    """

    label: str
    meaning: str


class Method(LightningModule, ABC):
    """A pre-training method: a LightningModule whose `training_step` takes a `train.loader.Batch`.

    `training_step` returns a dictionary of scalar tensors with `loss` among them: means over this rank's clips, every
    one the same number of rows on all ranks. The trainer takes their means over passes and ranks; a method neither logs
    nor reads them, so that a step does not wait for the GPU.
    """

    @property
    @abstractmethod
    def reads(self) -> dict[str, tuple[int, ...]]:
        """Stream -> the numbers, from 0 and rising, of the clips of a sample that a batch must contain of it.

        A sample has as many clips as the highest number says, and all of them are drawn; the others are not read.
        """

    @property
    def streams(self) -> tuple[str, ...]:
        """Views of the store that are read."""
        return tuple(self.reads)

    @property
    @abstractmethod
    def encoders(self) -> dict[str, Network]:
        """Stream -> the network that evaluation uses."""

    @property
    def starts(self) -> dict[str, tuple[str, list[Network]]]:
        """Role -> the stream of an earlier stage's encoder, and the encoders that may start as it is, head included."""
        return {}

    needed_starts: ClassVar[tuple[str, ...]] = ()  # roles that make no sense with random weights

    @abstractmethod
    def meters(self, global_batch: int) -> dict[str, Meter]:
        """Those of the values that `training_step` returns which the progress line shows.

        global_batch: videos in a pass, over all ranks.
        """

    @abstractmethod
    def check_batch(self, global_batch: int) -> None:
        """Refuse, by UsageError, a number of videos per step (over all ranks) that the method cannot work with."""
