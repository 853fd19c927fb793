"""One warning a stage when the network waits for data, which says what to change."""

from __future__ import annotations

import os
import re
import time
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, Self

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
IDLE = 0.5  # of the threads: less than this at work means that they wait for something themselves
FULL = 0.8  # of them: more than this at work means that there are too few
STALLED = 0.1  # of the time: more than this in which a program waited for a disk, or for memory, is why
PRESSURE = Path("/proc/pressure")  # where Linux tells it
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
        self.waited = 0.0
        self.before = Clocks.read()

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
            passed = Clocks.read().since(self.before)
            if self.waited > TOO_MUCH * passed.time:
                self.warned = True
                if said := advice(loader_of(trainer), self.threads, trainer.num_devices, self.waited, passed):
                    tell(said)
            self.steps = 0
        if self.steps == 0:
            self.waited, self.before = 0.0, Clocks.read()


@dataclass(frozen=True)
class Clocks:
    """Seconds: of time; that this process computed, and all of this machine; that a program of it waited for a disk,
    and for memory (0 where the system does not tell)."""

    time: float
    own: float
    everyone: float
    disk: float
    memory: float

    @classmethod
    def read(cls) -> Self:
        cores = psutil.cpu_times()
        everyone = cores.user + cores.system + getattr(cores, "nice", 0.0)
        return cls(time.perf_counter(), time.process_time(), everyone, _stalled("io"), _stalled("memory"))

    def since(self, before: Clocks) -> Clocks:
        return Clocks(*(now - then for now, then in zip(astuple(self), astuple(before), strict=True)))


def _stalled(kind: str) -> float:
    try:
        some = re.match(r"some .*total=(\d+)", (PRESSURE / kind).read_text())
    except OSError:
        return 0.0
    return int(some[1]) / 1e6 if some else 0.0


def advice(loader: ClipLoader, threads: int, devices: int, waited: float, passed: Clocks) -> str:
    """The warning's text; empty where the cause is not known.

    Args:
        threads: of the reader of each device.
        devices: that train on this machine, each by a process like this one.
        waited: seconds that the network waited for data.
        passed: meanwhile.
    """
    busy = passed.own / passed.time  # cores
    others = max(0.0, passed.everyone - devices * passed.own) / passed.time
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
    elif passed.memory > STALLED * passed.time:
        share = f"{100 * passed.memory / passed.time:.0f} % of the time"
        todo.append(f"more memory, or fewer programs that take it: {share} something waited for a page of it")
    elif busy < IDLE * min(threads, cores) and passed.disk > STALLED * passed.time:
        share = f"{100 * passed.disk / passed.time:.0f} % of the time something waited for a disk"
        todo.append(f"a faster disk for {training_set.where}: only {busy:.1f} cores are at work, and {share}")
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
        f"the network waits for data {100 * min(waited / passed.time, 1):.0f} % of the time (reader {reader},"
        f" {threads} threads, {cores} cores a device)\n  to do: " + "; ".join(todo)
    )


def _short_side(videos: Videos) -> float:
    """Of the stored frames of most videos, in pixels."""
    some = range(0, len(videos), max(1, len(videos) // SOME))
    return float(np.median([min(videos.frame_size(number)) for number in some]))
