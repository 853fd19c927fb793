"""How fast tvl1-cuda is, and how near to the limit of the GPU's memory: `python -m tests.benchmarks.flow_gpu`.

The limit: an iteration of the inner loop must read and write so many bytes a pixel (BYTES; specs/tvl1.md section 4), so
with the iterations that these pairs took, the bandwidth of the memory bounds the pairs a second, if nothing stayed in the
caches. Told beside it: pairs a second from frames in the host's memory to flow in the host's memory, and what UCF101 takes.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from pipeline import synthetic
from pipeline.flow.estimator import gray
from tests.benchmarks.figures import write_figures

SIZES = ((128, 171), (224, 288), (240, 320))
# Bytes a pixel and iteration if every plane passes once: ix, iy, rho and u, v and four duals in, u, v and the duals out.
BYTES = {"single": 60, "half": 38}  # half precision: all but u and v take two bytes
BANDWIDTHS = {"H200": 4.8, "H100 80GB HBM3": 3.35}  # TB/s, from the data sheets
UCF101 = 2_500_000  # pairs
FRAMES = 17  # of a video


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=512, help="of a batch")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--bandwidth", type=float, help="of the GPU's memory, TB/s; known for H100 (SXM) and H200")
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("this benchmark needs an NVIDIA GPU, and PyTorch finds none on this machine")
    gpu = torch.cuda.get_device_name()
    known = (speed for name, speed in BANDWIDTHS.items() if name in gpu)
    arguments.bandwidth = arguments.bandwidth or next(known, None)
    if not arguments.bandwidth:
        parser.error(f"the memory bandwidth of {gpu} is not known here; give it with --bandwidth")
    print(f"{gpu}, {arguments.bandwidth} TB/s, {arguments.pairs} pairs a batch")
    print(f"  {'size':<10} {'planes':<8} {'pairs / s':>10} {'on the GPU':>11} {'of the limit':>13} {'UCF101':>11}")
    figures = {}
    for size in SIZES:
        first, second = frames(arguments.pairs, size)
        for precision in BYTES:
            name = f"{size[0]}x{size[1]} {precision}"
            figures[name] = row = measure(first, second, precision, arguments)
            rates = f"{row['pairs_per_second']:>10.0f} {row['pairs_per_second_on_the_gpu']:>11.0f}"
            share, minutes = 100 * row["share_of_bandwidth_bound"], UCF101 / row["pairs_per_second"] / 60
            print(f"  {size[0]}x{size[1]:<6} {precision:<8} {rates} {share:>11.0f} % {minutes:>7.1f} min", flush=True)
    write_figures(arguments, sizes=figures)


def frames(pairs: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Gray frames of synthetic videos of all classes, no pair across two videos."""
    first, second = [], []
    for number, kind in zip(range(-(-pairs // (FRAMES - 1))), itertools.cycle(synthetic.CLASSES), strict=False):
        video = gray(synthetic.video(kind, number, frames=FRAMES, height=size[0], width=size[1]))
        first.append(video[:-1])
        second.append(video[1:])
    return np.concatenate(first)[:pairs], np.concatenate(second)[:pairs]


def measure(first: np.ndarray, second: np.ndarray, precision: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Medians over the rounds."""
    from pipeline.flow.tvl1_cuda import TVL1CUDA, Solver

    half = precision == "half"
    solver = Solver(TVL1CUDA(half_precision=half), len(first), first.shape[1:], half)
    whole = timed(lambda: solver.solve(first, second), arguments.rounds)
    inside = timed(solver.graph.replay, arguments.rounds)
    pixel_iterations = solver.pixel_iterations()
    bound = pixel_iterations * BYTES[precision] / (arguments.bandwidth * 1e12)
    return {
        "pairs_per_second": len(first) / whole,
        "pairs_per_second_on_the_gpu": len(first) / inside,
        "pixel_iterations_per_pair": pixel_iterations / len(first),
        "share_of_bandwidth_bound": bound / inside,
        "hours_for_ucf101": UCF101 / len(first) * whole / 3600,
    }


def timed(work: Callable[[], object], rounds: int) -> float:
    """Seconds; the first time does not count."""
    seconds = []
    for _ in range(rounds + 1):
        torch.cuda.synchronize()
        began = time.perf_counter()
        work()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:])


if __name__ == "__main__":
    main()
