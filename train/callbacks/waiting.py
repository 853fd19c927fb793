"""One warning a stage when the network waits for data, which says what to change."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np
import psutil
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
FULL = 0.8  # of them: more than this at work means that there are too few
TAKEN = 0.25  # of the machine's cores: more than this at work for others is why ours are slow
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
        self.waited = self.began = self.busy_before = self.all_before = 0.0

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
                others = max(0.0, _busy_everywhere() - self.all_before - trainer.num_devices * busy) / spent
                share, cores = self.waited / spent, busy / spent
                if said := advice(loader_of(trainer), self.threads, trainer.num_devices, share, cores, others):
                    tell(said)
            self.steps = 0
        if self.steps == 0:
            self.waited, self.began, self.busy_before = 0.0, time.perf_counter(), time.process_time()
            self.all_before = _busy_everywhere()


def _busy_everywhere() -> float:
    """Seconds that the cores of this machine have worked, for whomever."""
    times = psutil.cpu_times()
    return times.user + times.system + getattr(times, "nice", 0.0)


def advice(loader: ClipLoader, threads: int, devices: int, waiting: float, busy: float, others: float = 0.0) -> str:
    """The warning's text; empty where the cause is not known.

    Args:
        threads: of the reader of each device.
        devices: that train on this machine.
        waiting: share of the time that the network waited.
        busy: cores that this process kept at work on average.
        others: cores of this machine that other processes kept at work.
    """
    cores = len(os.sched_getaffinity(0)) // devices
    training_set, reading = loader.planner.training_set, loader.planner.reading
    on_cpu = isinstance(loader.executor, OpenCVExecutor)
    stored, needed = _short_side(training_set.videos), min(reading.spec.size)
    todo = []
    if on_cpu and torch.cuda.is_available():
        todo.append("--hardware.reader dali decodes on the GPU")
    taken = others > TAKEN * len(os.sched_getaffinity(0))
    if taken:
        todo.append(f"fewer other programs: they take {others:.1f} of the cores of this machine")
    elif busy < IDLE * min(threads, cores):
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
    if not todo and busy > FULL * min(threads, cores):
        todo.append("more cores: all of them are at work")
    if not todo:
        return ""
    reader = "opencv" if on_cpu else "dali"
    return (
        f"the network waits for data {100 * min(waiting, 1):.0f} % of the time (reader {reader}, {threads} threads,"
        f" {cores} cores a device)\n  to do: " + "; ".join(todo)
    )


def _short_side(videos: Videos) -> float:
    """Of the stored frames of most videos, in pixels."""
    some = range(0, len(videos), max(1, len(videos) // SOME))
    return float(np.median([min(videos.frame_size(number)) for number in some]))
