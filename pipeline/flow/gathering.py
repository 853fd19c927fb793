"""One GPU for all threads of a process: pairs of several videos are computed in one batch.

A GPU is full from hundreds of pairs and a video's block has at most 64; while it computes the pairs of some videos,
other threads decode and encode theirs.
"""

from __future__ import annotations

import os
import threading
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

from pipeline.flow.estimator import BLACK, FlowEstimator, check_frames, gray
from pipeline.flow.quantisation import Quantiser, bytes_of


class Gathering:
    """An estimator that any number of threads call at once. The flow is that of the estimator alone, in every bit.

    Whenever the GPU is free it gets the pairs that wait, the oldest first and with them all others of their size (of
    any, where the estimator mixes them), up to its `batch_size`; it never waits for more. Only full batches are sent
    ahead of that: one for each of its streams and one behind them, so that no stream waits for the host. One thread
    launches all batches; it lives while pairs wait, so nothing is to be shut down. Memory: a copy of the frames and the
    flow of these batches, beside the pairs that the callers themselves hold while they wait.

    When a batch fails its callers' pairs are tried again, each caller's alone, so that an error reaches only the caller
    whose pairs cause it. When not even black frames succeed then, the GPU is lost to this process (after an illegal
    access, every later call fails), so it ends: extraction does its videos again in another.
    """

    def __init__(self, estimator: FlowEstimator) -> None:
        self.estimator = estimator
        self._changed = threading.Condition()
        self._waiting: list[_Pairs] = []
        self._unfinished = 0  # batches that are launched and not collected
        self._launching = False  # whether there is a thread that launches

    def prepare(self) -> None:
        """Nothing: the process that starts others would take a GPU's memory for it, and has no use for it itself."""

    def try_out(self) -> None:
        """`FlowEstimator.try_out`; the process lives on where it fails, to tell why."""
        self._flow(_Pairs(BLACK, BLACK, alone=True))

    def remedy(self) -> str:
        return self.estimator.remedy()

    def estimate(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """`FlowEstimator.estimate`; waits until the GPU has done these pairs."""
        return self._found(first, second, None)

    def quantised(self, first: np.ndarray, second: np.ndarray, quantise: Quantiser) -> np.ndarray:
        """`FlowEstimator.quantised`, by the GPU where the estimator has `bytes_back`."""
        if self.estimator.bytes_back:
            return self._found(first, second, quantise)
        return bytes_of(self.estimate(first, second), quantise, self.estimator.name)

    def _found(self, first: np.ndarray, second: np.ndarray, quantise: Quantiser | None) -> np.ndarray:
        check_frames(first, second)
        if not len(first):
            return np.empty((0, 2, *first.shape[1:3]), np.uint8 if quantise else np.float32)
        if not self.estimator.sees_colour:  # here, where it keeps no GPU waiting
            first, second = gray(first), gray(second)
        try:
            try:
                return self._flow(_Pairs(first, second, quantise))
            except _OthersToo:
                return self._flow(_Pairs(first, second, quantise, alone=True))
        except Exception:
            self._require_gpu()
            raise

    def _flow(self, pairs: _Pairs) -> np.ndarray:
        """The flow of these pairs. Raises _OthersToo where they were in a batch with others that failed."""
        with self._changed:
            if not self._launching:
                threading.Thread(target=self._launch_all, name="flow batches").start()
                self._launching = True
            self._waiting.append(pairs)
            self._changed.notify_all()
        batch = pairs.launched.result()
        try:
            return batch.collect()[pairs.number]
        except Exception as error:
            if batch.callers > 1:
                raise _OthersToo from error
            raise
        finally:
            with self._changed:
                self._unfinished -= not batch.collected
                batch.collected = True
                self._changed.notify_all()

    def _launch_all(self) -> None:
        while group := self._next():
            self._launch(group)
            del group  # so that these frames are not kept while this thread waits for others

    def _next(self) -> list[_Pairs]:
        """The pairs of the next batch, once it may be launched; none when this thread is to end."""
        with self._changed:
            while self._waiting:
                group, full = self._group()
                if not self._unfinished or (full and self._unfinished <= self.estimator.streams):
                    self._waiting = [pairs for pairs in self._waiting if pairs not in group]
                    self._unfinished += 1
                    return group
                self._changed.wait()
            self._launching = False
            return []

    def _group(self) -> tuple[list[_Pairs], bool]:
        """The pairs that would be computed next, and whether no more would fit."""
        oldest, *others = self._waiting
        group, count = [oldest], len(oldest.first)
        if oldest.alone:
            return group, True
        for pairs in others:
            if pairs.alone or pairs.quantise != oldest.quantise:
                continue
            if pairs.size != oldest.size and not self.estimator.mixes_sizes:
                continue
            if count + len(pairs.first) > self.estimator.batch_size:
                return group, True
            group.append(pairs)
            count += len(pairs.first)
        return group, count >= self.estimator.batch_size

    def _launch(self, group: Sequence[_Pairs]) -> None:
        """Launch one batch and tell its callers. What goes wrong is raised where they collect the flow."""
        try:
            collect = self.estimator.launch_groups([(p.first, p.second) for p in group], group[0].quantise)
        except Exception as error:  # noqa: BLE001  whatever it is, it is the callers'
            collect = _raising(error)
        batch = _Batch(collect, len(group))
        for number, pairs in enumerate(group):
            pairs.number = number
            pairs.launched.set_result(batch)

    def _require_gpu(self) -> None:
        """End this process where even a pair of black frames fails."""
        try:
            self.try_out()
        except Exception:  # noqa: BLE001  any error means that nothing works any more
            traceback.print_exc()
            os._exit(1)


@dataclass(eq=False)
class _Pairs:
    """What a caller waits for."""

    first: np.ndarray
    second: np.ndarray
    quantise: Quantiser | None = None
    alone: bool = False  # not to be computed with others'
    number: int = field(init=False)  # in the batch
    launched: Future[_Batch] = field(default_factory=Future)

    @property
    def size(self) -> tuple[int, ...]:
        return self.first.shape[1:]


@dataclass(eq=False)
class _Batch:
    collect: Callable[[], list[np.ndarray]]  # waits for the GPU and gives the flow of each caller's pairs
    callers: int
    collected: bool = False


class _OthersToo(Exception):
    """Pairs of other callers were in the batch that failed."""


def _raising(error: Exception) -> Callable[[], list[np.ndarray]]:
    def collect() -> list[np.ndarray]:
        raise error

    return collect
