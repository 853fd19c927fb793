"""What a run leaves behind while it trains: metrics.jsonl, the progress line, checkpoints that continue exactly."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from tqdm import tqdm

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
        if trainer.is_global_zero and self.path.is_file():
            kept = [
                line for line in self.path.read_text().splitlines() if json.loads(line)["step"] <= trainer.global_step
            ]
            aside = self.path.with_name(self.path.name + ".partial")
            aside.write_text("".join(f"{line}\n" for line in kept))
            os.replace(aside, self.path)
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
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")


class Bar(Callback):
    """One line for the whole stage: loss, accuracy, clips a second, share of the time spent waiting for data, time left.

    Where a line cannot be redrawn (a log file), one every ten seconds.
    """

    def __init__(self, title: str, clips_per_step: int) -> None:
        self.title, self.clips_per_step = title, clips_per_step
        self.bar: tqdm | None = None
        self.began = self.waited = 0.0

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

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if self.bar is None:
            return
        self.waited += _loader(trainer).waited
        spent = max(time.perf_counter() - self.began, 1e-9)
        shown = {name: f"{float(value):.3g}" for name, value in trainer.progress_bar_metrics.items()}
        shown["clips/s"] = f"{(trainer.global_step - self.bar.initial) * self.clips_per_step / spent:.0f}"
        shown["data wait"] = f"{100 * self.waited / spent:.0f} %"
        self.bar.set_postfix(shown, refresh=False)
        self.bar.update(trainer.global_step - self.bar.n)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self.bar is not None:
            self.bar.close()


class Checkpoints(Callback):
    """Writes `last.ckpt` every so many steps, at the end, and on SIGINT or SIGTERM, after which training stops.

    Beside what Lightning saves, a checkpoint holds all random states and our metadata. Lightning writes a checkpoint
    aside and renames it, so `last.ckpt` always loads.
    """

    def __init__(self, path: Path, every: int, facts: dict[str, Any]) -> None:
        self.path, self.every, self.facts = path, every, facts
        self.stopped_by: int | None = None
        self._previous: dict[int, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for number in STOP_SIGNALS:
            self._previous[number] = signal.signal(number, self._remember)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if step % self.every == 0 or step == trainer.max_steps or self.stopped_by is not None:
            trainer.save_checkpoint(self.path, weights_only=False)
        if self.stopped_by is not None:
            trainer.should_stop = True

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

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
        if state_dict["cuda"]:
            torch.cuda.set_rng_state_all(state_dict["cuda"])
        version, internal, gauss = state_dict["python"]
        random.setstate((version, tuple(internal), gauss))
        name, keys, *rest = state_dict["numpy"]
        np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))

    def _remember(self, number: int, frame: Any) -> None:
        self.stopped_by = number


def _loader(trainer: Trainer) -> ClipLoader:
    loader = trainer.train_dataloader
    assert isinstance(loader, ClipLoader)
    return loader
