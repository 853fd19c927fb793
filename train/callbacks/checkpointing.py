"""Checkpoints that continue exactly: the last one, numbered ones, and the best by a metric."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins.io import TorchCheckpointIO

from pipeline.errors import refuse_unknown
from train import checkpoints
from train.batches.batch import Batch
from train.callbacks import ends_step
from train.callbacks.metrics import NOT_OF_THE_NETWORK, Metrics
from train.callbacks.stopping import Stopping
from train.checkpoints import METADATA, OPTIMISED
from train.optim import ByStep
from train.recipe import Recipe

BEST = "best.ckpt"


class WholeFiles(TorchCheckpointIO):
    """Replaces a checkpoint in one step: there is always a whole one, the old or the new.

    Lightning itself writes to the system's folder for temporary files and moves the file from there, which on another
    file system is a copy that can be cut short.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        checkpoints.write(checkpoint, Path(path))


class Checkpoints(Callback):
    """Writes checkpoints after optimiser steps; each holds, beside what Lightning saves, all random states and our
    facts.

    last.ckpt: every `checkpoint_every` steps, at the end, and where training is stopped. step-N.ckpt: every
    `keep_every` steps, and stays. best.ckpt: whenever a line of metrics.jsonl has a better value than all before it;
    NaN is never better. All three continue a run when put in the place of last.ckpt.

    Raises UsageError at the first line of metrics.jsonl when `keep_best` names a metric that no line has.

    Args:
        folder: Of the checkpoints.
        facts: What a checkpoint says of where it comes from.
        metrics, stopping: Callbacks that come before this one.
    """

    def __init__(
        self, folder: Path, recipe: Recipe, facts: dict[str, Any], metrics: Metrics, stopping: Stopping
    ) -> None:
        self.folder, self.recipe, self.facts = folder, recipe, facts
        self.metrics, self.stopping = metrics, stopping
        self.best: float | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.global_step * trainer.accumulate_grad_batches % trainer.num_training_batches == 0:
            # Lightning takes a checkpoint of an epoch's last batch for one in mid-epoch, and would leave out the hooks
            # of the next epoch's start.
            trainer.fit_loop.reset_restart_stage()
        for schedule in (config.scheduler for config in trainer.lr_scheduler_configs):
            if isinstance(schedule, ByStep):
                schedule.hold()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        if not ends_step(trainer, batch_idx):
            return
        step, due = trainer.global_step, []
        if self.recipe.keep_best.metric and self.metrics.latest.get("step") == step and self._improves():
            due.append(BEST)
        if self.recipe.keep_every and step % self.recipe.keep_every == 0:
            due.append(f"step-{step}.ckpt")
        if step % self.recipe.checkpoint_every == 0 or step == trainer.max_steps or self.stopping.exit_code:
            due.append("last.ckpt")
        if due and trainer.is_global_zero:
            self.metrics.flush()
        for name in due:
            trainer.save_checkpoint(self.folder / name, weights_only=False)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        step = trainer.global_step
        now = {"step": step, "finished": step >= trainer.max_steps}
        checkpoint[METADATA] = {**self.facts, **now, OPTIMISED: checkpoints.kept_by(checkpoint["optimizer_states"])}

    def state_dict(self) -> dict[str, Any]:
        version, internal, gauss = random.getstate()
        name, keys, *rest = np.random.get_state()
        return {
            "best": self.best,
            "torch": torch.random.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            "python": (version, list(internal), gauss),
            "numpy": (name, torch.from_numpy(np.asarray(keys, np.int64)), *rest),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = state_dict["best"]
        torch.random.set_rng_state(state_dict["torch"])
        for device, state in zip(range(torch.cuda.device_count()), state_dict["cuda"], strict=False):
            torch.cuda.set_rng_state(state, device)  # a run may go on with fewer devices, or more
        version, internal, gauss = state_dict["python"]
        random.setstate((version, tuple(internal), gauss))
        name, keys, *rest = state_dict["numpy"]
        np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))

    def _improves(self) -> bool:
        """Whether the line just written is better than all before; remembers it if so."""
        metric, mode = self.recipe.keep_best.metric, self.recipe.keep_best.mode
        line = self.metrics.latest
        known = [name for name in (*line, *self.metrics.also) if name not in NOT_OF_THE_NETWORK]
        if metric not in known:
            refuse_unknown("metric", metric, known, where="keep_best.metric")
        if metric not in line:
            return False
        value, best = line[metric], self.best
        better = value == value if best is None else (value < best if mode == "min" else value > best)
        self.best = value if better else best
        return better
