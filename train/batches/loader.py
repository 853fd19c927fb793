"""Batches of clips, the same on any number of ranks and after any interruption.

The order of an epoch follows from (seed, epoch), the frames and pixels of a sample from (seed, epoch, sample): nothing
is remembered but how many batches were delivered.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch

from pipeline.errors import Refusal, UsageError, counted
from train.augment import ClipPlan, colour_maps
from train.batches.batch import Batch, Part
from train.batches.planning import Planner
from train.hardware import AHEAD
from train.order import Order
from train.reader import Executor
from train.reader.streams import used_here

Kind = tuple[str, int, tuple[int, int], bool]  # view, length and size of clips; whether the reader makes images of them


class ClipLoader:
    """Iterates over the rest of the current epoch; call `iter` again for the next one.

    order: whose batches, over all ranks, are shared among `world_size` of them, each of which gets its slice, in rank
    order. executor: the loader's own from now on. pin: put what is on the CPU into page-locked memory, for training on
    a GPU. ahead: batches that are made while one is worked on. `state_dict` and `load_state_dict` hold the position,
    which is the same for any number of ranks. `waited` is the time, in seconds, that the last batch was waited for.
    `close` it when it is no longer needed.

    What `groups` the training set has when `iter` is called is what all batches of that epoch are drawn from: whoever
    changes them does it before.

    Memory: a rank's part of a batch takes batch / ranks * length * height * width bytes for each plane (3 of rgb, 2 of
    flow; four times that where values are float32, see `train.reader.Executor`) of each clip that is read, on the
    device where the executor makes clips. At most `ahead` + 1 such batches exist at once, if the one that was worked on
    is let go before the next one is asked for.

    Raises Refusal and UsageError at once for what could not work later: too few videos, a batch that the ranks cannot
    share, a video without frames, clips longer than every video.
    """

    def __init__(
        self,
        planner: Planner,
        order: Order,
        executor: Executor,
        rank: int = 0,
        world_size: int = 1,
        pin: bool = False,
        ahead: int = AHEAD,
    ) -> None:
        self.planner, self.order, self.executor = planner, order, executor
        self.rank, self.world_size, self.pin, self.ahead = rank, world_size, pin, ahead
        self.delivered = 0
        self.waited = 0.0
        try:
            _check(planner, order, world_size)
        except (Refusal, UsageError):
            executor.close()
            raise

    def __len__(self) -> int:
        """Batches of an epoch."""
        return len(self.order)

    def state_dict(self) -> dict[str, int]:
        return {"delivered": self.delivered}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.delivered = state["delivered"]

    def load(self, number: int) -> Batch:
        """This rank's part of the batch with that number since the start of training; the same whenever it is asked
        for."""
        epoch, samples = self.order.share(number, self.rank, self.world_size)
        training_set = self.planner.training_set
        chosen = samples % len(training_set)
        parts = self._read([self.planner.plans(int(sample), epoch) for sample in samples])
        groups = np.full(len(chosen), -1) if training_set.groups is None else training_set.groups.labels[chosen]
        columns = (training_set.videos.labels[chosen], training_set.videos.sources[chosen], chosen, groups)
        mixed = frozenset(self.planner.reading.sampling.others(self.planner.reading.spec))
        batch = Batch(parts, *(torch.from_numpy(column.astype(np.int64)) for column in columns), mixed=mixed)
        return batch.pin_memory() if self.pin else batch

    def __iter__(self) -> Iterator[Batch]:
        end = (self.delivered // len(self) + 1) * len(self)
        # A thread a batch: one is planned, or waits for a disk, while another's frames are decoded. The executor's own
        # threads share that work, batch after batch.
        pool = ThreadPoolExecutor(self.ahead, thread_name_prefix="clips")
        coming: deque[Future[Batch]] = deque()
        try:
            for number in range(self.delivered, min(self.delivered + self.ahead, end)):
                coming.append(pool.submit(self.load, number))
            while coming:
                began = time.perf_counter()
                batch = coming.popleft().result().mapped(used_here)  # by the network's stream
                self.waited = time.perf_counter() - began
                following = self.delivered + self.ahead
                if following < end:
                    coming.append(pool.submit(self.load, following))
                self.delivered += 1
                yield batch
        finally:
            pool.shutdown(cancel_futures=True)  # who stops early waits for those that were begun

    def close(self) -> None:
        """Let go of the executor's threads and files."""
        self.executor.close()

    def _read(self, samples: list[list[dict[str, ClipPlan]]]) -> dict[str, dict[int, list[Part]]]:
        """The parts of a batch. All that has one view is read at once, whichever stream, length and size it is for."""
        wanted: dict[Kind, list[ClipPlan]] = {}
        places: list[tuple[str, int, Kind, list[int]]] = []
        for stream, numbers in self.planner.reading.clips.items():
            for number in numbers:
                kinds: dict[Kind, list[int]] = {}
                for row, sample in enumerate(samples):
                    plan = sample[number][stream]
                    kind = plan.stream.view, len(plan.frames), plan.stream.size, plan.pixels.image
                    kinds.setdefault(kind, []).append(row)
                for kind, rows in kinds.items():
                    wanted.setdefault(kind, []).extend(samples[row][number][stream] for row in rows)
                    places.append((stream, number, kind, rows))
        read: dict[Kind, torch.Tensor] = {}
        for view in dict.fromkeys(kind[0] for kind in wanted):
            kinds_of_view = [kind for kind in wanted if kind[0] == view]
            groups = [(wanted[kind], kind[2]) for kind in kinds_of_view]
            read |= zip(kinds_of_view, self.executor.read(view, groups), strict=True)
        taken = dict.fromkeys(wanted, 0)
        parts: dict[str, dict[int, list[Part]]] = {}
        for stream, number, kind, rows in places:
            mine = slice(taken[kind], taken[kind] + len(rows))
            taken[kind] = mine.stop
            part = Part(torch.tensor(rows), read[kind][mine], colour_maps(wanted[kind][mine]))
            parts.setdefault(stream, {}).setdefault(number, []).append(part)
        return parts


def _check(planner: Planner, order: Order, world_size: int) -> None:
    training_set, spec = planner.training_set, planner.reading.spec
    frames, where = np.asarray(training_set.videos.frames), training_set.where
    if not len(order):
        passes = f", accumulated {order.accumulate} times" if order.accumulate > 1 else ""
        raise Refusal(
            f"{counted(order.size, 'video')} for training: fewer than one batch of {order.batch}{passes}",
            where=where,
            remedy="a smaller batch in the recipe, or more videos",
        )
    if order.batch % world_size:
        raise UsageError(
            f"a batch of {order.batch} cannot be shared evenly by {world_size} processes",
            where="batch",
            remedy="a batch in the recipe that is a multiple of the number of devices",
        )
    if order.last % world_size:
        raise UsageError(
            f"the last batch of an epoch, of {counted(order.last, 'video')},"
            f" cannot be shared evenly by {world_size} processes",
            where="order.last",
            remedy="order.last: drop in the recipe, or another batch",
        )
    if frames.max() < training_set.least:
        raise Refusal(
            f"a clip needs {training_set.least} frames (clips of {spec.length}, {spec.stride} apart); the longest video"
            f" has {frames.max()} that all its views have",
            where=where,
            remedy="shorter clips or a smaller stride in the recipe",
        )
