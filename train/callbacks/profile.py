"""A profile of a few steps, in which a person finds the parts of a step by name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.profilers import Profiler
from torch.autograd.profiler import record_function
from torch.profiler import ProfilerActivity, profile

from pipeline import storage
from train.batches.batch import Batch
from train.callbacks import ends_step
from train.console import tell
from train.networks.network import Network

WARM_UP = 3  # steps before the profile begins: the first ones choose algorithms and fill the loader
OPERATORS = 20

# What Lightning calls the parts of a pass -> the range in the trace.
RANGES = {
    "train_dataloader_next": "data wait",
    "batch_to_device": "transfer",
    "training_step": "training step",
    "backward": "backward",
}


class Ranges(Profiler):
    """Ranges of the trace: data wait, transfer, training step (with forward and loss inside), backward, optimiser.

    forward is a network at work, loss what follows it in the training step: whatever the method, it needs no marks.
    """

    def __init__(self) -> None:
        super().__init__()
        self.open: dict[str, record_function] = {}

    def watch(self, network: Network) -> None:
        """Give a network's work the range forward, and what comes after it the range loss."""
        network.register_forward_pre_hook(lambda *_: self._follow("loss", "forward"))
        network.register_forward_hook(lambda *_: self._follow("forward", "loss"))

    def start(self, action_name: str) -> None:
        hook = action_name.rpartition(".")[2]
        if hook in RANGES and not action_name.startswith("[Callback]"):
            self._begin(RANGES[hook])

    def stop(self, action_name: str) -> None:
        caller, _, hook = action_name.rpartition(".")
        if hook == "training_step":
            self._end("loss")
        if hook in RANGES:
            self._end(RANGES[hook])
        if caller.startswith("[LightningModule]") and hook == "on_before_optimizer_step":
            self._begin("optimiser")  # clipping of gradients included
        if caller.startswith("[LightningModule]") and hook == "optimizer_step":
            self._end("optimiser")

    def _follow(self, before: str, after: str) -> None:
        self._end(before)
        self._begin(after)

    def _begin(self, name: str) -> None:
        self.open[name] = record_function(name)
        self.open[name].__enter__()

    def _end(self, name: str) -> None:
        if name in self.open:
            self.open.pop(name).__exit__(None, None, None)


class Profile(Callback):
    """Profiles some steps of the leader: trace.json (ui.perfetto.dev shows it) and operators.txt, the 20 dearest ones.

    Args:
        folder: Where the two go.
        steps: How many; fewer if the stage ends before.
        ranges: Given to the trainer as its profiler.
    """

    def __init__(self, folder: Path, steps: int, ranges: Ranges) -> None:
        self.folder, self.steps, self.ranges = folder, steps, ranges
        self.first = self.done = 0
        self.running: profile | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        for part in pl_module.modules():
            if isinstance(part, Network):
                self.ranges.watch(part)
        self.first = trainer.global_step + min(WARM_UP, int(trainer.max_steps) - trainer.global_step - 1)
        if self.first == trainer.global_step:
            self._begin()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        if not trainer.is_global_zero or not ends_step(trainer, batch_idx):
            return
        self.done = trainer.global_step
        if self.running is not None and self.done == self.first + self.steps:
            self._write()
        elif self.done == self.first:
            self._begin()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.running is not None:
            self._write()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if self.running is not None:
            self.running.stop()

    def _begin(self) -> None:
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it tells of its own start and stop, through the bar
        devices = [ProfilerActivity.CUDA] if torch.cuda.is_available() else []
        self.running = profile(activities=[ProfilerActivity.CPU, *devices])
        self.running.start()

    def _write(self) -> None:
        assert self.running is not None
        self.running.stop()
        order = "self_device_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
        table = self.running.key_averages().table(sort_by=order, row_limit=OPERATORS)
        trace, operators = self.folder / "trace.json", self.folder / "operators.txt"
        with storage.writing("the profile", self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            self.running.export_chrome_trace(str(trace))
            storage.write_atomically(operators, table.encode())
        self.running = None
        tell(f"profile of the steps {self.first + 1} to {self.done}: {trace} (for ui.perfetto.dev), {operators}")
