"""Ends of training before its end: a signal, or the time that a job was given."""

from __future__ import annotations

import signal
import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import distributed

from train.batches.batch import Batch
from train.callbacks import ends_step

SIGNALS = (signal.SIGINT, signal.SIGTERM)
TIME_IS_UP = 124  # as `timeout` has it


class Stopping(Callback):
    """Ends training after the step in which SIGINT or SIGTERM came or the deadline passed, on all ranks together.

    `exit_code` is what the command exits with: 0 as long as nothing asked it to stop, 128 + number of the signal, or
    124 for the deadline. `train.callbacks.checkpointing.Checkpoints` comes after this one and writes the checkpoint.

    Args:
        deadline: of `time.monotonic`.
    """

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.exit_code = 0
        self._previous: dict[int, Any] = {}
        self._ranks: distributed.ProcessGroup | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for number in SIGNALS:
            self._previous[number] = signal.signal(number, self._remember)
        if trainer.world_size > 1:
            # Of CPUs: asking by way of the GPUs would make every step wait for them, as Lightning's own message about
            # SIGTERM does, which has nothing to tell once the signal is ours.
            self._ranks = distributed.new_group(backend="gloo")
            trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        if not ends_step(trainer, batch_idx):
            return
        if time.monotonic() >= self.deadline:
            self.exit_code = self.exit_code or TIME_IS_UP
        if self._ranks is not None:
            # A rank that stopped alone, or wrote a checkpoint alone, would wait for the others forever.
            code = torch.tensor(self.exit_code)
            distributed.all_reduce(code, distributed.ReduceOp.MAX, self._ranks)
            self.exit_code = int(code)
        if self.exit_code:
            trainer.should_stop = True

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._restore_signals()  # not in `teardown`, which comes after Lightning has put its own handlers away

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._restore_signals()

    def _remember(self, number: int, frame: Any) -> None:
        self.exit_code = 128 + number

    def _restore_signals(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
