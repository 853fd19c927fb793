"""metrics.jsonl and TensorBoard: means over steps and ranks, read from the device only where a line is written."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any, TextIO

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from pipeline import storage
from pipeline.errors import Refusal
from train.batches.batch import Batch
from train.callbacks import ends_step, loader_of
from train.console import tell
from train.hardware.collectives import mean_over_ranks

NOT_OF_THE_NETWORK = ("step", "epoch", "data_time", "step_time")  # times differ between ranks, too


class Metrics(Callback):
    """One JSON object per logged step: step, epoch, lr, what the method's `training_step` returns, data_time,
    step_time.

    Values of the method are means over all passes since the last line and over all ranks; until then they are summed on
    the device, so that a step neither waits for the GPU nor for other ranks. `lr` is that of the step itself.
    data_time: seconds that a step waited for its batches; step_time: seconds from step to step, waiting included; both
    are means of this rank since the last line. After a stop, lines behind the checkpoint are dropped: they are made
    again, bit for bit, because sums that are not yet written are part of the checkpoint.

    Args:
        every: steps between lines; the last step of a stage always has one.
        also: names that other callbacks `note` now and then.

    `latest` is the last line, empty before the first one of this process.
    """

    def __init__(self, path: Path, every: int, also: tuple[str, ...] = ()) -> None:
        self.path, self.every, self.also = path, every, also
        self.latest: dict[str, float] = {}
        self.sums: dict[str, Any] = {}  # name -> float64 scalar, on the device as soon as a pass was added
        self.passes = 0
        self.noted: dict[str, float] = {}
        self.lr = 0.0
        self.waited = self.spent = self.mark = 0.0
        self.steps = 0

    def note(self, values: dict[str, float], seconds: float) -> None:
        """Values, equal on all ranks, that a callback before this one measured after the step: it gets a line.

        seconds: that it took, which are not the step's.
        """
        self.noted |= values
        self.mark += seconds

    def due(self, trainer: Trainer) -> bool:
        """Whether the step that has ended gets a line."""
        step = trainer.global_step
        return step % self.every == 0 or step == trainer.max_steps or bool(self.noted)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            with storage.writing("the metrics", self.path):
                self.path.parent.mkdir(parents=True, exist_ok=True)
                if self.path.exists():
                    self._mend(trainer.global_step)
        self.mark = time.perf_counter()

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        self.lr = optimizer.param_groups[0]["lr"]  # later the schedule has moved on

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        self._add(outputs, trainer.accumulate_grad_batches)
        self.waited += loader_of(trainer).waited
        if not ends_step(trainer, batch_idx):
            return
        now = time.perf_counter()
        self.spent += now - self.mark
        self.mark = now
        self.steps += 1
        if self.due(trainer):
            self._write_line(trainer)

    def flush(self) -> None:
        """Make durable the lines before a checkpoint that vouches for their steps."""
        if self.path.is_file():
            with storage.writing("the metrics", self.path), self._appending() as file:
                os.fsync(file.fileno())

    def state_dict(self) -> dict[str, Any]:
        values = mean_over_ranks(self._stacked()).tolist() if self.sums else []
        return {"passes": self.passes, "sums": dict(zip(self.sums, values, strict=True))}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.passes, self.sums = state_dict["passes"], dict(state_dict["sums"])

    def _add(self, outputs: dict[str, Tensor], accumulate: int) -> None:
        for name, value in outputs.items():
            # Lightning has divided the loss by the passes of a step.
            whole = value.detach().double() * (accumulate if name == "loss" else 1)
            self.sums[name] = self.sums.get(name, 0.0) + whole
        self.passes += 1

    def _write_line(self, trainer: Trainer) -> None:
        means = (mean_over_ranks(self._stacked()) / self.passes).tolist()
        values = {**dict(zip(self.sums, means, strict=True)), "lr": self.lr, **self.noted}
        values |= {"data_time": self.waited / self.steps, "step_time": self.spent / self.steps}
        step, epoch = trainer.global_step, trainer.current_epoch
        self.latest = {"step": step, "epoch": epoch, **values}
        self.sums, self.noted = {}, {}
        self.waited = self.spent = 0.0
        self.passes = self.steps = 0
        if trainer.is_global_zero:
            with storage.writing("the metrics", self.path), self._appending() as file:
                file.write(json.dumps(self.latest) + "\n")
        for logger in trainer.loggers:
            logger.log_metrics(values, step)

    def _appending(self) -> TextIO:
        return open(self.path, "a", encoding="utf-8", opener=storage.open_own)

    def _stacked(self) -> Tensor:
        return torch.stack([torch.as_tensor(total, dtype=torch.float64) for total in self.sums.values()])

    def _mend(self, step: int) -> None:
        """Leave the lines up to a step; tells of what is none."""
        lines, damaged = read_lines(self.path)
        lost = len(range(self.every, step + 1, self.every)) - sum(
            line["step"] <= step and line["step"] % self.every == 0 for line in lines
        )
        if damaged or lost:
            tell(
                f"{self.path}: {damaged} damaged lines, as a kill or a power cut leaves them, are left out; the lines"
                f" of {lost} steps up to step {step} are lost, those after it are written again"
            )
        kept = [json.dumps(line) + "\n" for line in lines if line["step"] <= step]
        storage.write_atomically(self.path, "".join(kept).encode())


def read_lines(path: Path) -> tuple[list[dict[str, float]], int]:
    """The lines of a metrics.jsonl, and how many others there are: cut short, of no numbers, not after the step before.

    Raises Refusal where it cannot be read at all.
    """
    found: list[dict[str, float]] = []
    damaged = 0
    try:
        content = storage.read_regular(path)
    except OSError as error:
        remedy = "move away what lies in its place: the lines after the last checkpoint are written again"
        raise Refusal(f"the metrics cannot be read: {error.strerror}", where=str(path), remedy=remedy) from error
    for written in content.splitlines(keepends=True):
        try:
            line = json.loads(written.strip(b"\0\n") if written.endswith(b"\n") else b"")
        except (ValueError, RecursionError):
            line = None
        if _is_line(line) and (not found or line["step"] > found[-1]["step"]):
            found.append(line)
        else:
            damaged += 1
    return found, damaged


def _is_line(line: Any) -> bool:
    return (
        isinstance(line, dict)
        and type(line.get("step")) is int
        and all(name.isascii() for name in line)
        and all(type(value) is float or (type(value) is int and abs(value) < 2**63) for value in line.values())
    )
