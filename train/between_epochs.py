"""What happens before an epoch begins: pseudo-labels by clustering, a learning rate that follows a held-out loss.

A method brings such callbacks by Lightning's `configure_callbacks`. They act in `on_train_epoch_start` alone, so that a
run that is stopped anywhere goes on exactly: what was decided is in the checkpoint, and a checkpoint of an epoch's last
step lies before the decision of the next.
"""

from __future__ import annotations

import math
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from train.batches.batch import Batch
from train.batches.loader import ClipLoader
from train.hardware.collectives import mean_over_ranks
from train.optim import RATE
from train.sampling.groups import Groups

ONCE = sys.maxsize  # epochs between decisions of which there is one
HELD_OUT_LOSS = "held_out_loss"  # in metrics.jsonl
THRESHOLD = 1e-4  # a loss that is not lower by this share of the best one is no better, as in torch's ReduceLROnPlateau


@runtime_checkable
class Notes(Protocol):
    """What writes metrics.jsonl: see `train.callbacks.metrics.Metrics.note`."""

    def note(self, values: dict[str, float], seconds: float) -> None: ...


class BetweenEpochs(Callback, ABC):
    """Something that is decided every `every` epochs, from epoch `first` on, and holds until it is decided again.

    All ranks `compute`, together if they like; what rank 0 came to is everybody's. Meanwhile the method is in
    evaluation mode, without gradient, and random numbers that are drawn have no consequence for training.
    """

    def __init__(self, every: int = 1, first: int = 0) -> None:
        self.every, self.first = every, first
        self.decided: Tensor | None = None
        self.noted: dict[str, float] = {}  # of the decision, for the next line of metrics.jsonl

    @abstractmethod
    def compute(self, trainer: Trainer, method: LightningModule) -> Tensor:
        """The decision, all of it, on the CPU. It may depend on `decided`, the one before."""

    @abstractmethod
    def apply(self, trainer: Trainer, method: LightningModule, decided: Tensor) -> None:
        """Let it hold. Called for a second time after a stop, with the same decision."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.decided is not None:
            self.apply(trainer, pl_module, self.decided)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        passed = trainer.current_epoch - self.first
        if passed < 0 or passed % self.every:
            return
        began = time.perf_counter()
        with _aside(pl_module):
            found = self.compute(trainer, pl_module)
        self.decided = trainer.strategy.broadcast(found)
        self.apply(trainer, pl_module, self.decided)
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, Notes):
                callback.note(self.noted, time.perf_counter() - began)

    def state_dict(self) -> dict[str, Any]:
        return {"decided": self.decided}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.decided = state_dict["decided"]


class Grouping(BetweenEpochs):
    """Groups of the training videos, such as clusters, from which the loader and the method read pseudo-labels.

    `compute` gives the group of every video, int64 (N,).
    """

    def apply(self, trainer: Trainer, method: LightningModule, decided: Tensor) -> None:
        loader = trainer.train_dataloader
        assert isinstance(loader, ClipLoader)
        loader.planner.training_set.groups = Groups(np.asarray(decided))


class Plateau(BetweenEpochs):
    """Divides the learning rate when the loss of held-out videos has not become lower for more than `patience` epochs.

    It is looked at after every epoch; torch's rule (`ReduceLROnPlateau`, mode min). Lightning's own follows the end of
    an epoch, where its step falls behind the checkpoint.

    Args:
        lr: To begin with.
        patience: Epochs without a lower loss that are waited for.
        factor: By which the learning rate is multiplied.
        lowest: Learning rate.
    """

    def __init__(self, lr: float, patience: int, factor: float, lowest: float) -> None:
        super().__init__(first=1)
        self.lr, self.patience, self.factor, self.lowest = lr, patience, factor, lowest

    def compute(self, trainer: Trainer, method: LightningModule) -> Tensor:
        """Best loss, epochs since it, and learning rate, float64 (3,)."""
        best, waited, lr = (math.inf, 0.0, self.lr) if self.decided is None else self.decided.tolist()
        loss = held_out_loss(trainer, method)
        self.noted = {HELD_OUT_LOSS: loss}
        if loss < best * (1 - THRESHOLD) or not math.isfinite(best):
            best, waited = loss, 0.0
        else:
            waited += 1
        if waited > self.patience:
            lr, waited = max(lr * self.factor, self.lowest), 0.0
        return torch.tensor([best, waited, lr], dtype=torch.float64)

    def apply(self, trainer: Trainer, method: LightningModule, decided: Tensor) -> None:
        for optimiser in trainer.optimizers:
            for group in optimiser.param_groups:
                group["lr"] = float(decided[2]) * group.get(RATE, 1.0)


class HeldOut(Protocol):
    """What a stage's data gives beside training batches."""

    def held_out(self) -> Iterable[Batch]:
        """This rank's share of whole batches of the held-out videos, the same every time."""


def held_out_loss(trainer: Trainer, method: LightningModule) -> float:
    """Mean over batches and ranks of what `training_step` calls loss, on videos that are not trained on."""
    data: HeldOut = trainer.datamodule  # type: ignore[attr-defined]
    losses = []
    for number, batch in enumerate(data.held_out()):
        on_device = method.transfer_batch_to_device(batch, method.device, 0)
        with trainer.precision_plugin.train_step_context():
            values: Any = method.training_step(on_device, number)
        losses.append(values["loss"].double())
    return float(mean_over_ranks(torch.stack(losses).mean()))


@contextmanager
def _aside(method: LightningModule) -> Iterator[None]:
    modes = {module: module.training for module in method.modules()}
    method.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode
