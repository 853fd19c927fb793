"""What an assignment of ViCC costs with many prototypes and a long queue: `python -m tests.benchmarks.assignment`.

The scores of all queued rows are one matrix (N, K); told is what the process holds at most beside it, and the
CPU seconds that scoring and assigning take. Of several ranks each scores and holds its share of the queue.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path

import torch

from tests.benchmarks.figures import write_figures
from train.clustering.prototypes import Prototypes
from train.clustering.sinkhorn import assign

GIB = 2**30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prototypes", type=int, default=10_000)
    parser.add_argument("--queue", type=int, default=65_536)
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--batch", type=int, default=256, help="of all ranks")
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    prototypes = Prototypes(arguments.prototypes, arguments.dim)
    queued, own = arguments.queue // arguments.ranks, arguments.batch // arguments.ranks
    queue, rows = (torch.nn.functional.normalize(torch.randn(count, arguments.dim), dim=1) for count in (queued, own))
    before = memory()
    began = time.process_time()
    with torch.no_grad():
        scores, of_queue = prototypes(rows), prototypes(queue)
        scored = time.process_time()
        assigned = assign(scores, queued=of_queue)
    ended, held = time.process_time(), (of_queue.numel() + scores.numel()) * 4
    figures = {
        "scores_gib": held / GIB,
        "peak_gib": (memory() - before) / GIB,
        "beside_gib": (memory() - before - held) / GIB,
        "score_cpu_s": scored - began,
        "assign_cpu_s": ended - scored,
    }
    assert torch.allclose(assigned.exp().sum(dim=1), torch.ones(own), atol=1e-4)
    print(", ".join(f"{name} {value:.3g}" for name, value in figures.items()))
    write_figures(arguments, figures=figures)


def memory() -> int:
    """The most that this process has held so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
