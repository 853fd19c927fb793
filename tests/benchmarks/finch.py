"""What FINCH's first partition costs: `python -m tests.benchmarks.finch --rows 240000`.

Three kinds of rows, of 128 dimensions or `--dim`: `random` (no groups at all: no pair can be left out), `groups` (of 95
rows, as a class of UCF101 has) and `cone` (ten directions that matter, all rows within a narrow cone, as an untrained
network's features). Told are the seconds of CPU and wall, the share of pairs that were looked at (1/2 is every pair
once), the same pairs' matrix products alone as a share of the CPU time, the largest resident memory of the process, and
with `--approximate` the recall: which share of rows found its very nearest (by brute force for `--check` of them).

Limits: 20,000 rows in 3 s, 240,000 in 300 s and 4 GB, on two cores.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.benchmarks.figures import write_figures
from train.clustering import divisions, nearest
from train.clustering import finch as finch_module
from train.clustering.finch import finch

KINDS = ("random", "groups", "cone")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS)
    parser.add_argument("--approximate", action="store_true")
    parser.add_argument("--check", type=int, default=1000, help="rows whose very nearest is sought by brute force")
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    print(f"{arguments.rows} rows of {arguments.dim}, {torch.get_num_threads()} threads")
    figures = {kind: measure(kind, arguments) for kind in arguments.kinds}
    write_figures(arguments, figures=figures)


def rows_of(kind: str, count: int, dim: int) -> torch.Tensor:
    """(count, dim) float32, the same every time."""
    rng = torch.Generator().manual_seed(0)
    rows = torch.randn(count, dim, generator=rng)
    if kind == "random":
        return rows
    if kind == "groups":
        centres = torch.randn(max(1, count // 95), dim, generator=rng)
        rows.mul_(0.5)
        for some in rows.split(2**16):
            some.add_(centres[torch.randint(len(centres), (len(some),), generator=rng)])
        return rows
    axes = torch.randn(10, dim, generator=rng)
    rows.mul_(0.05).add_(3)
    for some in rows.split(2**16):
        some.add_(torch.randn(len(some), 10, generator=rng) @ axes)
    return rows


def measure(kind: str, arguments: argparse.Namespace) -> dict[str, float]:
    rows = rows_of(kind, arguments.rows, arguments.dim)
    looked, found = [0], []
    improve, search, together = nearest._Search._improve, finch_module.nearest_rows, divisions._improve

    def counting(search: nearest._Search, places: slice | torch.Tensor, similar: torch.Tensor, start: int) -> None:
        looked[0] += similar.numel()
        improve(search, places, similar, start)

    def counting_all(directions: torch.Tensor, *others: torch.Tensor) -> None:
        looked[0] += 2 * len(directions) ** 2
        together(directions, *others)

    def keeping(*given: Any) -> torch.Tensor:
        found.append(search(*given))
        return found[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nearest._Search, "_improve", counting)
        patch.setattr(divisions, "_improve", counting_all)
        patch.setattr(finch_module, "nearest_rows", keeping)
        wall, cpu = time.perf_counter(), time.process_time()
        made = finch(rows, partitions=1, neighbours="approximate" if arguments.approximate else "exact")
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    share = looked[0] / arguments.rows**2 / 2  # both sides of a block are one product
    figures = {
        "wall_s": wall,
        "cpu_s": cpu,
        "pairs": share,
        "products": share * arguments.rows**2 * product_seconds(arguments.dim) / cpu,
        "memory_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "clusters": float(made.counts[0]),
    }
    if arguments.approximate:
        figures["recall"] = recall(rows, found[0], arguments.check)
    print(f"{kind:>7}: " + ", ".join(f"{name} {value:.4g}" for name, value in figures.items()), flush=True)
    return figures


def product_seconds(dim: int) -> float:
    """CPU seconds that one pair takes in a product of two blocks, alone."""
    block = torch.randn(nearest.BLOCK, dim)
    rounds, best = 50, float("inf")
    for _ in range(5):
        start = time.process_time()
        for _ in range(rounds):
            block @ block.T
        best = min(best, time.process_time() - start)
    return best / rounds / nearest.BLOCK**2


def recall(rows: torch.Tensor, found: torch.Tensor, checked: int) -> float:
    """Share of rows, `checked` of them, for which the very nearest row was found."""
    some = torch.randperm(len(rows), generator=torch.Generator().manual_seed(1))[:checked].sort().values
    asking = torch.nn.functional.normalize(rows[some], dim=1)
    best = torch.full((len(some),), -torch.inf)
    wanted = torch.zeros(len(some), dtype=torch.int64)
    for start in range(0, len(rows), 2**16):
        similar = asking @ torch.nn.functional.normalize(rows[start : start + 2**16], dim=1).T
        own = (some >= start) & (some < start + similar.shape[1])
        similar[own.nonzero()[:, 0], some[own] - start] = -torch.inf
        top, at = similar.max(1)
        wanted = torch.where(top > best, at + start, wanted)
        best = torch.maximum(best, top)
    return (found[some] == wanted).double().mean().item()


if __name__ == "__main__":
    main()
