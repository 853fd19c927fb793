"""What the trainer and evaluation know of every method."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from lightning.pytorch import LightningModule

from train.encoder import Encoder


class Method(LightningModule, ABC):
    """A pre-training method: a LightningModule whose `training_step` takes a `train.loader.Batch`."""

    views_per_video: ClassVar[int]  # clips of a video in a batch

    @property
    @abstractmethod
    def streams(self) -> tuple[str, ...]:
        """Views of the store that a batch must contain."""

    @property
    @abstractmethod
    def encoders(self) -> dict[str, Encoder]:
        """Stream -> the network that evaluation uses."""

    @abstractmethod
    def check_batch(self, global_batch: int) -> None:
        """Refuse, by UsageError, a number of videos per step (over all ranks) that the method cannot work with."""
