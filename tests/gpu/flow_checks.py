"""Checks of tvl1-cuda: right, repeatable, how fast, and what the time goes into."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from typing import Any

import numpy as np
import torch

from pipeline import flow
from pipeline.flow.quantisation import Quantiser
from tests.benchmarks import flow_gpu
from tests.gpu.clock import DEVICE, bandwidth, synchronise, timed
from tests.gpu.given import Found, Given
from tests.gpu.references import load, made

REPEATS = 5
MEAN_PIXELS = {False: 0.03, True: 0.2}  # of difference that may be, by whether planes are in half precision
SAME_BYTES = 0.95  # the least share of equal bytes, in single precision


def agreement(given: Given) -> Found:
    """Every size against tvl1-cpu, in both precisions; the same bits every time."""
    figures: dict[str, Any] = {}
    right = True
    for pairs in load(given.references):
        size = "x".join(map(str, pairs.first.shape[1:]))
        for half in (False, True):
            estimator = flow.create("tvl1-cuda", half_precision=half, **given.flow)
            runs = [estimator.estimate(pairs.first, pairs.second) for _ in range(given.few(REPEATS, 2))]
            found = runs[0][:, :, :: pairs.step, :: pairs.step]
            apart = float(np.hypot(*(found - pairs.flow).transpose(1, 0, 2, 3)).mean())
            equal = float((flow.quantise(found) == flow.quantise(pairs.flow.astype(np.float32))).mean())
            same = all(np.array_equal(run, runs[0]) for run in runs)
            holds = same and apart <= MEAN_PIXELS[half] and (half or equal >= SAME_BYTES)
            right &= holds
            figures[f"{size} {'fp16' if half else 'fp32'}"] = {
                "mean_pixels": apart, "equal_bytes": equal, "repeats_equal": same, "holds": holds,
            }  # fmt: skip
    worst = max(row["mean_pixels"] for row in figures.values())
    return Found(
        right, f"at most {worst:.4f} px from tvl1-cpu on average, {len(figures)} sizes and precisions", figures
    )


def rates(given: Given) -> Found:
    """Pairs a second of the reference's pairs, of others, and with one pair that never settles."""
    real = load(given.references)[0]
    count = given.few(512, 2)
    other = made(real.first.shape[1:], count)
    cut = (real.first.copy(), real.second.copy())
    cut[1][0] = np.random.default_rng(0).integers(0, 256, cut[1][0].shape, dtype=np.uint8)
    arguments = argparse.Namespace(rounds=given.few(3, 1), bandwidth=bandwidth(given.few(1 << 28, 1 << 16)))
    figures: dict[str, Any] = {"bandwidth_tb_s": arguments.bandwidth}
    for name, (first, second) in {"reference": (real.first, real.second), "synthetic": other, "one cut": cut}.items():
        for precision in ("single", "half")[: given.few(2, 1)]:
            for fused in (False, True):
                row = flow_gpu.measure(first, second, precision, arguments, fused, **given.flow)
                figures[f"{name}, {precision}{', fused' if fused else ''}"] = row
    best = max(row["pairs_per_second"] for row in figures.values() if isinstance(row, dict))
    return Found(None, f"up to {best:,.0f} pairs/s of {real.first.shape[1]} x {real.first.shape[2]}", figures)


def streams(given: Given) -> Found:
    """Pairs a second with one, two and four batches at the same time, launch by launch and `fused`."""
    real = load(given.references)[0]
    figures: dict[str, float] = {}
    for fused in (False, True):
        for count in (1, 2, 4)[: given.few(3, 2)]:
            estimator = flow.create("tvl1-cuda", streams=count, fused=fused, **given.flow)

            def work(estimator: Any = estimator, count: int = count) -> None:
                for collect in [estimator.launch(real.first, real.second) for _ in range(count)]:
                    collect()

            name = f"{count} streams{', fused' if fused else ''}"
            figures[name] = count * len(real.first) / timed(work, given.few(3, 1))
    return Found(None, ", ".join(f"{name}: {rate:,.0f} pairs/s" for name, rate in figures.items()), figures)


def sizes(given: Given) -> Found:
    """Bytes made on the GPU, of all sizes in one launch a level: equal to those of each alone, made on the host."""
    groups = [(pairs.first, pairs.second) for pairs in load(given.references)]
    apart = flow.create("tvl1-cuda", **given.flow)
    together = flow.create("tvl1-cuda", fused=True, bytes_back=True, **given.flow)
    figures: dict[str, Any] = {}
    for mapping in ("linear", "sqrt"):
        quantise = Quantiser(mapping=mapping)  # type: ignore[arg-type]
        found = together.launch_groups(groups, quantise)()
        expected = [quantise(apart.estimate(*group)) for group in groups]
        figures[mapping] = all(map(np.array_equal, found, expected))
    right = all(figures.values())
    pairs = sum(len(first) for first, _ in groups)
    figures["pairs_per_second"] = pairs / timed(lambda: together.launch_groups(groups, quantise)(), given.few(3, 1))
    words = f"bytes of {len(groups)} sizes in one launch {'equal' if right else 'DIFFER from'} those of each alone"
    return Found(right, f"{words}, {figures['pairs_per_second']:,.0f} pairs/s", figures)


def profile(given: Given) -> Found:
    """What the time of one replay goes into: kernels by name, and gaps between them."""
    from pipeline.flow.tvl1_cuda import TVL1CUDA, Solver

    real = load(given.references)[0]
    solver = Solver(TVL1CUDA(**given.flow), len(real.first), real.first.shape[1:])
    solver.solve(real.first, real.second)
    kinds = [torch.profiler.ProfilerActivity.CUDA if DEVICE == "cuda" else torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=kinds) as profiled:
        solver.graph.replay() if solver.graph else solver._launch()
        synchronise()
    rows = [(event.key, event.self_device_time_total or event.self_cpu_time_total) for event in profiled.key_averages()]
    spent = sum(time for _, time in rows)
    whole = 1e6 * timed(solver.graph.replay if solver.graph else solver._launch, 1)
    shares = {name: time / whole for name, time in sorted(rows, key=lambda row: -row[1])[:8]}
    figures = {"shares": shares, "gaps": 1 - spent / whole, "microseconds": whole}
    first = next(iter(shares), "nothing")
    return Found(None, f"{first} takes {shares.get(first, 0):.0%} of a replay, gaps {figures['gaps']:.0%}", figures)


def memcheck(given: Given) -> Found:
    """A tiny case under NVIDIA's compute-sanitizer, where it is installed."""
    code = (
        "import numpy as np; from pipeline import flow; a = np.zeros((2, 20, 21), np.uint8);"
        "print(flow.create('tvl1-cuda', warps=1, inner_iterations=2, outer_iterations=2).estimate(a, a + 3).shape)"
    )
    tool = shutil.which("compute-sanitizer")
    checker = [tool, "--tool", "memcheck", "--error-exitcode", "9"] if tool else []
    run = subprocess.run([*checker, sys.executable, "-c", code], capture_output=True, text=True)
    said = (run.stdout + run.stderr)[-2000:]
    if not tool:
        return Found(None if not run.returncode else False, "compute-sanitizer is not installed", {"output": said})
    return Found(run.returncode == 0, "no fault" if run.returncode == 0 else "faults: see the output", {"output": said})
