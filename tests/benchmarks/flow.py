"""`tvl1-cpu` against `tvl1-opencv`, one thread each, on the same pairs: `python -m tests.benchmarks.flow`.

Pairs are consecutive frames of real clips where those lie beside the checkout (moving cameras and static ones apart),
of synthetic videos otherwise. Both estimators do a pair one after the other and are timed in CPU time, so that a busy
machine slows both; the limit is a ratio of summed times of 8. The summed times tell what a data set costs, the median
of the pairs' ratios is not ruled by a few slow pairs.

Then two processes against one, as extraction runs one for each core: pairs per second of wall time that two get done
together, over those of one alone, round after round. The limit is 1.9; anything else that runs on the machine lowers
it, so the same ratio by CPU time is told beside it: that one is lower than 2 only where the two are in each other's
way.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from pipeline import flow
from pipeline.bench import measuring
from pipeline.bench.pairs import Pair, synthetic_pairs, video_pairs
from tests.benchmarks.figures import write_figures

CLIPS = Path(__file__).resolve().parents[3] / "shared" / "data" / "actions"
KINDS = {"fight": "moving cameras", "ut-interaction": "static cameras"}
SIZES = ((128, 171), (224, 288))
MEASURED = "tvl1-cpu"
PAIRS_OF_A_PROCESS = 48  # two to four seconds
LEAD = 0.2  # seconds until both processes have their pairs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=12, help="pairs of each kind and size")
    parser.add_argument("--rounds", type=int, default=5, help="of two processes against one")
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    print(f"{MEASURED} against {measuring.REFERENCE}, one thread each")
    print(f"  {'pairs':<36} {'of sums':>9} {'median':>9} {'ms a pair':>11} {'ms OpenCV':>11} {'bytes equal':>12}")
    figures = {}
    for size in SIZES:
        for name, pairs in draw(size, arguments.count).items():
            label = f"{name}, {size[0]}x{size[1]}"
            figures[label] = row = measure(pairs)
            print(
                f"  {label:<36} {row['ratio']:>9.2f} {row['median_ratio']:>9.2f} {row['ms_per_pair']:>11.1f}"
                f" {row['ms_per_pair_of_reference']:>11.1f} {row['bytes_equal']:>12.2%}"
            )
    processes = two_against_one(next(iter(draw(SIZES[0], arguments.count).values())), arguments.rounds)
    cores = len(os.sched_getaffinity(0))
    told = f"{processes['ratio']:.2f} times the pairs per second, {processes['ratio_by_cpu_time']:.2f} by CPU time"
    print(f"two processes against one: {told} ({cores} cores)")
    write_figures(arguments, pairs=figures, processes=processes)


def draw(size: tuple[int, int], count: int) -> dict[str, list[Pair]]:
    """Pairs by what they are of."""
    if not CLIPS.is_dir():
        return {"synthetic": synthetic_pairs(size, count)}
    return {f"{kind} ({camera})": video_pairs(CLIPS / kind, size, count)[0] for kind, camera in KINDS.items()}


def measure(pairs: list[Pair]) -> dict[str, float]:
    reference, own = measuring.measure(pairs, [MEASURED])
    ratios = [reference.seconds[pair] / seconds for pair, seconds in own.seconds.items()]
    return {
        "ratio": own.times(reference),
        "median_ratio": statistics.median(ratios),
        "ms_per_pair": 1e3 * own.per_pair,
        "ms_per_pair_of_reference": 1e3 * reference.per_pair,
        "bytes_equal": statistics.mean(own.equal),
    }


def two_against_one(pairs: list[Pair], rounds: int) -> dict[str, float]:
    """Throughput of two processes, each with all pairs, over that of one; medians of rounds, one after the other."""
    repeated = pairs * -(-PAIRS_OF_A_PROCESS // len(pairs))
    first, second = (np.stack([getattr(pair, frame) for pair in repeated]) for frame in ("first", "second"))
    fresh = multiprocessing.get_context("spawn")
    walls, cpus, alone = [], [], []
    with ProcessPoolExecutor(1, fresh) as one, ProcessPoolExecutor(1, fresh) as other:
        for pool in (one, other):
            pool.submit(work, first[:1], second[:1], 0.0).result()
        for _ in range(rounds):
            wall, cpu = one.submit(work, first, second, time.perf_counter() + LEAD).result()
            start = time.perf_counter() + LEAD
            both = [task.result() for task in [pool.submit(work, first, second, start) for pool in (one, other)]]
            alone.append(wall / len(repeated))
            walls.append(2 * wall / max(wall for wall, _ in both))
            cpus.append(2 * cpu / statistics.mean(cpu for _, cpu in both))
    return {
        "ratio": statistics.median(walls),
        "ratio_by_cpu_time": statistics.median(cpus),
        "ms_per_pair_alone": 1e3 * statistics.median(alone),
    }


def work(first: np.ndarray, second: np.ndarray, start: float) -> tuple[float, float]:
    """Seconds of wall time from `start`, on the clock that all processes share, and of CPU time."""
    estimator = flow.create(MEASURED)
    time.sleep(max(0.0, start - time.perf_counter()))
    cpu = time.process_time()
    estimator.estimate(first, second)
    return time.perf_counter() - start, time.process_time() - cpu


if __name__ == "__main__":
    main()
