"""One warning a stage when the network waits for data, which says what to change."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from train.batches.batch import Batch
from train.batches.loader import ClipLoader
from train.callbacks import ends_step, loader_of
from train.console import tell
from train.reader.opencv import OpenCVExecutor
from train.training_set import Videos

FILLING = 10  # steps in which the loader gets ahead and libraries tune themselves
WINDOW = 50  # steps that are looked at together
TOO_MUCH = 0.1  # of the time
IDLE = 0.5  # of the threads: less than this at work means that they wait for the disk themselves
LARGE = 1.5  # stored short side over that of the clip, from which decoding mostly makes pixels that nobody sees
SOME = 1000  # videos whose size is looked at


class Waiting(Callback):
    """Warns once when, over `WINDOW` steps, more than `TOO_MUCH` of the time went into waiting for batches.

    Args:
        threads: Of the reader.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.warned = False
        self.steps = -FILLING
        self.waited = self.began = self.busy_before = 0.0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        if self.warned or not trainer.is_global_zero:
            return
        self.waited += loader_of(trainer).waited
        if not ends_step(trainer, batch_idx):
            return
        self.steps += 1
        if self.steps == WINDOW:
            spent, busy = time.perf_counter() - self.began, time.process_time() - self.busy_before
            if self.waited > TOO_MUCH * spent:
                self.warned = True
                tell(advice(loader_of(trainer), self.threads, trainer.num_devices, self.waited / spent, busy / spent))
            self.steps = 0
        if self.steps == 0:
            self.waited, self.began, self.busy_before = 0.0, time.perf_counter(), time.process_time()


def advice(loader: ClipLoader, threads: int, devices: int, waiting: float, busy: float) -> str:
    """The warning's text.

    Args:
        threads: of the reader of each device.
        devices: that train on this machine.
        waiting: share of the time that the network waited.
        busy: cores that this process kept at work on average.
    """
    cores = len(os.sched_getaffinity(0)) // devices
    training_set, reading = loader.planner.training_set, loader.planner.reading
    on_cpu = isinstance(loader.executor, OpenCVExecutor)
    stored, needed = _short_side(training_set.videos), min(reading.spec.size)
    todo = []
    if on_cpu and torch.cuda.is_available():
        todo.append("--hardware.reader dali decodes on the GPU")
    if busy < IDLE * min(threads, cores):
        todo.append(
            f"a faster disk for {training_set.where}: only {busy:.1f} cores are at work, the others wait for it"
        )
    if threads < cores:
        todo.append(f"--hardware.threads {cores}")
    if stored > LARGE * needed:
        todo.append(
            f"smaller stored frames: their short side is {stored:.0f}, the clips' {needed}"
            f" (extract with --rgb.short_side {round(LARGE * needed)} or less)"
        )
    if not todo:
        todo.append("more cores: all of them are at work")
    reader = "opencv" if on_cpu else "dali"
    return (
        f"the network waits for data {100 * min(waiting, 1):.0f} % of the time (reader {reader}, {threads} threads,"
        f" {cores} cores a device)\n  to do: " + "; ".join(todo)
    )


def _short_side(videos: Videos) -> float:
    """Of the stored frames of most videos, in pixels."""
    some = range(0, len(videos), max(1, len(videos) // SOME))
    return float(np.median([min(videos.frame_size(number)) for number in some]))
