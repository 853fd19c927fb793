"""What a run leaves behind while it trains: metrics.jsonl, the progress line, checkpoints that continue exactly."""

from __future__ import annotations

import json
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins.io import TorchCheckpointIO
from tqdm import tqdm

from pipeline import storage
from train import checkpoints
from train.checkpoints import METADATA
from train.loader import Batch, ClipLoader

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Metrics(Callback):
    """One JSON object per logged step: step, epoch, every logged value, data_time and step_time.

    data_time: seconds that the step waited for its batch; step_time: seconds from batch to batch, waiting included; both
    are means since the last line. After a stop, lines behind the checkpoint are dropped: they are made again.
    """

    def __init__(self, path: Path, every: int) -> None:
        self.path, self.every = path, every
        self.waited = self.spent = 0.0
        self.steps = 0
        self.mark = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            with checkpoints.writing("the metrics", self.path):
                self.path.parent.mkdir(parents=True, exist_ok=True)
                if self.path.is_file():
                    storage.write_atomically(self.path, "".join(self._kept(trainer.global_step)).encode())
        self.mark = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        now = time.perf_counter()
        self.waited += _loader(trainer).waited
        self.spent += now - self.mark
        self.mark = now
        self.steps += 1
        if trainer.global_step % self.every and trainer.global_step != trainer.max_steps:
            return
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        times = {"data_time": self.waited / self.steps, "step_time": self.spent / self.steps}
        line = {"step": trainer.global_step, "epoch": trainer.current_epoch, **values, **times}
        self.waited = self.spent = 0.0
        self.steps = 0
        if trainer.is_global_zero:
            with checkpoints.writing("the metrics", self.path), open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")

    def _kept(self, step: int) -> list[str]:
        """The lines up to a step. A last one without its end was being written when the run was killed."""
        lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
        return [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]


class Bar(Callback):
    """One line for the whole stage: loss, accuracy, clips a second, share of the time spent waiting for data, time left.

    Where a line cannot be redrawn (a log file), one every ten seconds.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self.bar: tqdm | None = None
        self.began = self.shown = self.waited = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        live = sys.stderr.isatty()
        self.bar = tqdm(
            desc=self.title,
            total=trainer.max_steps,
            initial=trainer.global_step,
            unit="step",
            dynamic_ncols=live,
            ncols=None if live else 140,
            mininterval=0.2 if live else 10,
            bar_format="{desc} {percentage:3.0f}%|{bar:20}| {n_fmt}/{total_fmt} steps [{elapsed}, {remaining} left]{postfix}",
        )
        self.began = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        if self.bar is None:
            return
        loader, now = _loader(trainer), time.perf_counter()
        self.waited += loader.waited
        if now - self.shown < self.bar.mininterval and trainer.global_step < trainer.max_steps:
            return  # to read the loss, the CPU has to wait for the GPU
        self.shown = now
        clips = (trainer.global_step - self.bar.initial) * loader.batch * loader.views_per_video
        values = {name: f"{float(value):.3g}" for name, value in trainer.progress_bar_metrics.items()}
        values["clips/s"] = f"{clips / (now - self.began):.0f}"
        values["data wait"] = f"{100 * self.waited / (now - self.began):.0f} %"
        self.bar.set_postfix(values, refresh=False)
        self.bar.update(trainer.global_step - self.bar.n)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._close()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._close()

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.close()


class WholeFiles(TorchCheckpointIO):
    """Replaces a checkpoint in one step: there is always a whole one, the old or the new.

    Lightning itself writes to the system's folder for temporary files and moves the file from there, which on another
    file system is a copy that can be cut short.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        checkpoints.write(checkpoint, Path(path))


class Checkpoints(Callback):
    """Writes `last.ckpt` every so many steps, at the end, and on SIGINT or SIGTERM, after which training stops.

    Beside what Lightning saves, a checkpoint holds all random states and our metadata. `stopped_by` is the number of the
    signal, 0 without one.
    """

    def __init__(self, path: Path, every: int, facts: dict[str, Any]) -> None:
        self.path, self.every, self.facts = path, every, facts
        self.stopped_by = 0
        self._previous: dict[int, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for number in STOP_SIGNALS:
            self._previous[number] = signal.signal(number, self._remember)
        if trainer.global_step % trainer.num_training_batches == 0:
            # Lightning takes a checkpoint of an epoch's last batch for one in mid-epoch, and would leave out the hooks
            # of the next epoch's start.
            trainer.fit_loop.reset_restart_stage()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        step = trainer.global_step
        self._agree(trainer)
        if step % self.every == 0 or step == trainer.max_steps or self.stopped_by:
            trainer.save_checkpoint(self.path, weights_only=False)
        if self.stopped_by:
            trainer.should_stop = True

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._restore_signals()  # not in `teardown`, which comes after Lightning has put its own handlers away

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._restore_signals()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        step = trainer.global_step
        checkpoint[METADATA] = {**self.facts, "step": step, "finished": step >= trainer.max_steps}

    def state_dict(self) -> dict[str, Any]:
        version, internal, gauss = random.getstate()
        name, keys, *rest = np.random.get_state()
        return {
            "torch": torch.random.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            "python": (version, list(internal), gauss),
            "numpy": (name, torch.from_numpy(np.asarray(keys, np.int64)), *rest),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        torch.random.set_rng_state(state_dict["torch"])
        for device, state in zip(range(torch.cuda.device_count()), state_dict["cuda"], strict=False):
            torch.cuda.set_rng_state(state, device)  # a run may go on with fewer devices, or more
        version, internal, gauss = state_dict["python"]
        random.setstate((version, tuple(internal), gauss))
        name, keys, *rest = state_dict["numpy"]
        np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))

    def _remember(self, number: int, frame: Any) -> None:
        self.stopped_by = number

    def _agree(self, trainer: Trainer) -> None:
        """Ranks stop together: one that stopped alone, or wrote a checkpoint alone, would wait for the others forever."""
        if trainer.world_size > 1:
            number = torch.tensor(self.stopped_by, device=trainer.strategy.root_device)
            self.stopped_by = int(trainer.strategy.reduce(number, reduce_op="max"))

    def _restore_signals(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}


def _loader(trainer: Trainer) -> ClipLoader:
    loader = trainer.train_dataloader
    assert isinstance(loader, ClipLoader)
    return loader
