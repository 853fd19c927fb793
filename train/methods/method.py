"""What the trainer and evaluation know of every method."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Self

import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import nn

from train.between_epochs import Plateau
from train.methods.meters import Meter
from train.networks.network import Network
from train.networks.settings import NetworkSettings
from train.optim import STEP_FACTOR, OptimiserSettings, Parameters, configured
from train.settings import Settings


@dataclass(frozen=True)
class Start:
    """What a role of a method may start from: parts that an earlier stage has trained, or a file holds.

    Args:
        stream: Of the earlier stage's network.
        network: What the network that starts is.
        takes: Names of the parts: of the earlier network ("backbone", "head"), and of what else its method trained
            ("prototypes").
        optional: Those of them that may be missing there; which is told, and they stay fresh.
        needed: Whether the role makes no sense with random weights.
        shapes: Of the weights of parts that are none of the network's, where others would not fit.
        leaves: What weights that have no place here begin with, by their names as "part.name".
    """

    stream: str
    network: NetworkSettings
    takes: tuple[str, ...] = ("backbone", "head")
    optional: tuple[str, ...] = ("head",)
    needed: bool = False
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    leaves: tuple[str, ...] = ()


class MethodSettings(Settings, ABC):
    """What a recipe says of a method, and what follows from it without a network."""

    optimiser: OptimiserSettings = OptimiserSettings()

    @property
    @abstractmethod
    def reads(self) -> dict[str, tuple[int, ...]]:
        """Stream -> the numbers, from 0 and rising, of the clips of a sample that a batch must contain of it.

        A sample has as many clips as the highest number says, and all of them are drawn; the others are not read. Of a
        stream that is only read between epochs there is none.
        """

    @property
    @abstractmethod
    def networks(self) -> dict[str, NetworkSettings]:
        """Stream -> the network that is trained, which evaluation uses and a later stage may start from."""

    @property
    def needs_labels(self) -> bool:
        """Whether a video without a class is of no use, and left out."""
        return False

    def of_batch(self, batch: int) -> Self:
        """The settings for a smaller batch, of so many videos over all devices. Most methods take it as they are."""
        return self

    def of_classes(self, names: list[str]) -> Self:
        """The settings for videos of these classes, in the order of their labels. Most methods do not ask for them."""
        return self

    @property
    def gives(self) -> Mapping[str, tuple[int, ...]]:
        """Parts that a later stage may start from beside those of the networks -> the shape of their weights."""
        return {}

    @property
    def starts(self) -> dict[str, Start]:
        """Role -> what it may start from."""
        return {}

    def check_length(self, frames: int) -> None:
        """Refuse, by UsageError, clips of so many frames that the method cannot work with."""

    @abstractmethod
    def check_batch(self, global_batch: int) -> None:
        """Refuse, by UsageError, a number of videos per step (over all ranks) that the method cannot work with."""


class Method(LightningModule, ABC):
    """A method of training: a LightningModule whose `training_step` takes a `train.batches.batch.Batch`.

    `training_step` returns a dictionary of scalar tensors with `loss` among them: means over this rank's clips, every
    one the same number of rows on all ranks. The trainer takes their means over passes and ranks; a method neither logs
    nor reads them, so that a step does not wait for the GPU. Without gradient it changes nothing.

    Args:
        settings: Of the class `Settings`, which each method has.
        channels: Stream -> channels of its clips. Both are what a checkpoint rebuilds the method from.
    """

    Settings: ClassVar[type[MethodSettings]]
    settings: MethodSettings
    more_steps: tuple[int, ...] = ()  # by which its stage was prolonged: see `train.recipe.StageSettings`

    def __init__(self, settings: MethodSettings, channels: Mapping[str, int]) -> None:
        super().__init__()
        self.settings = settings
        used = {stream: channels[stream] for stream in settings.reads}
        self.save_hyperparameters({"settings": settings.as_dict(), "channels": used})

    @property
    @abstractmethod
    def networks(self) -> dict[str, Network]:
        """Stream -> the network that evaluation uses: those that `Settings.networks` describes."""

    @property
    def parts(self) -> dict[str, nn.Module]:
        """What else a later stage may start from, by name: `Settings.gives`."""
        return {}

    @property
    def starting(self) -> dict[str, list[Mapping[str, nn.Module]]]:
        """Role of `Settings.starts` -> where its parts go: by name, in all networks that begin as the same one."""
        return {}

    @abstractmethod
    def meters(self, global_batch: int) -> dict[str, Meter]:
        """Those of the values that `training_step` returns which the progress line shows.

        global_batch: videos in a pass, over all ranks.
        """

    def optimised(self, parameters: Parameters) -> OptimizerLRScheduler:
        """What `configure_optimizers` returns for the parameters that are trained."""
        return configured(self.settings.optimiser, parameters, self.trainer, self.more_steps)

    def configure_callbacks(self) -> list[Callback]:
        """What happens between epochs. A method that has something of its own there adds it."""
        optimiser = self.settings.optimiser
        if optimiser.schedule != "plateau":
            return []
        return [Plateau(optimiser.lr, optimiser.patience, STEP_FACTOR, optimiser.final_lr)]

    def begins_step(self, batch_idx: int) -> bool:
        """Whether this pass is the first of a step of training."""
        return self.training and torch.is_grad_enabled() and batch_idx % self.trainer.accumulate_grad_batches == 0
