"""How fast flow estimators are and how far they agree: all of them on the same pairs, in turn, in one run.

CPU estimators are timed by the CPU time of one thread, so that other work on the machine changes little; those that use
a GPU by wall time, in batches. The figures to trust are the ratios: pairs differ by a factor of three, machines by
more.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline import flow
from pipeline.bench.pairs import Pair, estimate
from pipeline.errors import Refusal
from pipeline.flow.estimator import FlowEstimator

REFERENCE = "tvl1-opencv"  # what the field's published numbers were made with
UCF101_PAIRS = 2.5e6  # of consecutive frames, in its 13,320 videos
WARM_UP = 128  # pixels: large enough for every estimator, and soon done by the slowest
GPU_BATCH, GPU_ROUNDS = 256, 3


@dataclass
class Result:
    """What one estimator did. Lists have an entry for every pair that it could do."""

    name: str
    problem: str = ""  # why it does not run here; nothing was measured then
    gpu: bool = False
    seconds: dict[str, float] = field(default_factory=dict)  # by the pair's name
    batch_seconds: float = 0.0  # a pair, in batches; GPU only
    difference: list[float] = field(default_factory=list)  # pixels to the reference's flow, mean of a pair
    equal: list[float] = field(default_factory=list)  # share of the stored bytes that are the reference's
    within_one: list[float] = field(default_factory=list)
    errors: dict[str, float] = field(default_factory=dict)  # pixels to the true flow, mean over where it is known
    failures: dict[str, str] = field(default_factory=dict)  # pairs that it could not do, and why

    @property
    def per_pair(self) -> float:
        """Seconds: of CPU time, or of wall time on a GPU."""
        return self.batch_seconds or (statistics.mean(self.seconds.values()) if self.seconds else float("nan"))

    def times(self, reference: Result) -> float:
        """How many times as fast as the reference on the same pairs (sums); NaN without a common pair."""
        both = [name for name in self.seconds if name in reference.seconds]
        if not both:
            return float("nan")
        own = self.batch_seconds * len(both) or sum(self.seconds[name] for name in both)
        return sum(reference.seconds[name] for name in both) / own

    def figures(self, reference: Result) -> dict[str, Any]:
        """For JSON; None where nothing was measured."""
        if self.problem:
            return {"problem": self.problem}
        return {
            "device": "gpu" if self.gpu else "cpu, one thread",
            "ms_per_pair": _number(1e3 * self.per_pair),
            "pairs_per_second": _number(1 / self.per_pair),
            "times_reference": _number(self.times(reference)),
            "difference_px": _mean(self.difference),
            "bytes_equal": _mean(self.equal),
            "bytes_within_one": _mean(self.within_one),
            "error_px": _mean(list(self.errors.values())),
            "errors_px": self.errors,
            "ucf101_hours": _number(self.per_pair * UCF101_PAIRS / 3600),
            "seconds": self.seconds,
            "failures": self.failures,
        }


def measure(
    pairs: Sequence[Pair],
    names: Sequence[str],
    progress: Callable[[str], None] = lambda doing: None,
    settings: dict[str, dict[str, Any]] | None = None,
) -> list[Result]:
    """One result for each name, the reference's first, which is added when it is not named.

    settings: of estimators, by name. An estimator that cannot run here, or fails on a pair, says so in its result.
    `progress` is called before every estimate with what comes next.
    """
    if not pairs:
        raise ValueError("there is no pair to measure with")
    largest = max(pairs, key=lambda pair: min(pair.first.shape[:2]))
    runners = []
    for name in dict.fromkeys((REFERENCE, *names)):
        progress(f"preparing {name}")
        runners.append(_Runner(name, (settings or {}).get(name, {}), largest))
    for pair in pairs:
        reference: np.ndarray | None = None
        for runner in runners:
            if runner.result.problem:
                continue
            progress(f"{runner.result.name}, {pair.name}")
            found = runner.run(pair)
            if runner.result.name == REFERENCE:
                reference = found
            if found is not None:
                compare(runner.result, pair, found, reference)
    for runner in runners:
        if runner.result.gpu and runner.result.seconds and len({pair.first.shape for pair in pairs}) == 1:
            progress(f"{runner.result.name}, in batches")
            runner.run_batches(pairs)
    return [runner.result for runner in runners]


def compare(result: Result, pair: Pair, found: np.ndarray, reference: np.ndarray | None) -> None:
    """Adds to the result how far a flow is from the reference's, and from the truth where that is known."""
    if reference is not None:
        stored = flow.quantise(found).astype(np.int16)
        apart = np.abs(stored - flow.quantise(reference))
        result.difference.append(float(np.hypot(*(found - reference)).mean()))
        result.equal.append(float((apart == 0).mean()))
        result.within_one.append(float((apart <= 1).mean()))
    if pair.truth is not None:
        result.errors[pair.name] = float(np.nanmean(np.hypot(*(found - pair.truth))))


class _Runner:
    """One estimator, created and warmed up, or the reason why not."""

    def __init__(self, name: str, settings: dict[str, Any], pair: Pair) -> None:
        self.result = Result(name)
        try:
            self.estimator: FlowEstimator = flow.create(name, **settings)
            self.estimator.prepare()
            _one_thread()
            first, second = (image[None, :WARM_UP, :WARM_UP].copy() for image in (pair.first, pair.second))
            self.estimator.estimate(first, second)
            self.result.gpu = self.estimator.on_gpu
        except Refusal as refusal:
            self.result.problem = refusal.what
        except Exception as error:  # noqa: BLE001  whatever one estimator lacks, the others are measured
            self.result.problem = _one_line(error)

    def run(self, pair: Pair) -> np.ndarray | None:
        """The flow (2, H, W) of a pair, and how long it took."""
        clock = time.perf_counter if self.result.gpu else time.process_time
        began = clock()
        try:
            found = estimate(self.estimator, pair.first[None], pair.second[None], pair.name)[0]
        except Refusal as refusal:
            self.result.failures[pair.name] = refusal.what
            return None
        except Exception as error:  # noqa: BLE001  as above
            self.result.failures[pair.name] = _one_line(error)
            return None
        self.result.seconds[pair.name] = clock() - began
        return found

    def run_batches(self, pairs: Sequence[Pair]) -> None:
        """GPUs do many small pairs at once: what counts is the time of full batches, of the same pairs repeated."""
        chosen = [pairs[i % len(pairs)] for i in range(GPU_BATCH)]
        first, second = np.stack([pair.first for pair in chosen]), np.stack([pair.second for pair in chosen])
        spent = []
        try:
            for _ in range(1 + GPU_ROUNDS):
                began = time.perf_counter()
                self.estimator.estimate(first, second)
                spent.append(time.perf_counter() - began)
        except Exception as error:  # noqa: BLE001  as above; the time of single pairs is told then
            self.result.failures[f"a batch of {len(chosen)}"] = _one_line(error)
            return
        self.result.batch_seconds = statistics.median(spent[1:]) / len(chosen)


def _one_thread() -> None:
    if "torch" in sys.modules:  # OpenCV's threads are set by its estimators
        sys.modules["torch"].set_num_threads(1)


def _one_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}" if lines[0] else type(error).__name__


def _number(value: float) -> float | None:
    return None if np.isnan(value) else value


def _mean(values: list[float]) -> float | None:
    return statistics.mean(values) if values else None
