"""Bank and retrieval at the size of Kinetics-400: `python -m tests.benchmarks.retrieval --videos 240000 --width 2048`.

A fresh process writes the rows as extraction does, makes a bank of them, reads it, and looks for the neighbours of some
of them among all; told are the seconds and the largest resident size after each part, and what the search takes against
faiss's exact index and against the matrix product alone. Limit: 16 GB.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch

from eval import bank, retrieval
from eval.bank import FeatureBank
from eval.rows import Rows
from tests.benchmarks.figures import write_figures

AT_ONCE = 2000  # rows
CLASSES = 400


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=240_000)
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--queries", type=int, default=512)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--half", action="store_true", help="rows are kept as float16")
    parser.add_argument("--folder", type=Path, help="for the files; by default a temporary one")
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    faiss.omp_set_num_threads(arguments.threads)
    figures: dict[str, dict[str, float]] = {}

    @contextmanager
    def measured(name: str) -> Iterator[None]:
        begun = time.perf_counter()
        yield
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        figures[name] = {"seconds": time.perf_counter() - begun, "peak_gib": peak}
        print(f"{name:24} {figures[name]['seconds']:8.1f} s, largest size so far {peak:6.2f} GiB", flush=True)

    with tempfile.TemporaryDirectory(dir=arguments.folder) as scratch:
        path = Path(scratch) / "bank.h5"
        with measured("rows and bank written"):
            write(path, arguments)
        print(f"{path.stat().st_size / 2**30:.2f} GiB on the disk")
        with measured("bank read"):
            found = FeatureBank.load(path)
    compare(found, arguments, measured)
    taken = {name: figures[name]["seconds"] for name in ("search", "faiss", "product alone")}
    print(f"search takes {taken['search'] / taken['product alone']:.2f} of the product alone", end=", ")
    print(f"faiss {taken['faiss'] / taken['product alone']:.2f}")
    write_figures(arguments, parts=figures)


def write(path: Path, arguments: argparse.Namespace) -> None:
    kind, rng = "float16" if arguments.half else "float32", np.random.default_rng(0)
    with Rows(path.with_name("rows"), {}, arguments.width, kind) as rows:
        while rows.count < arguments.videos:
            block = min(AT_ONCE, arguments.videos - rows.count), arguments.width
            rows.append(rng.standard_normal(block, dtype=np.float32))
        size = rows.count, rows.width
        ids, labels = [f"class/{number:09}" for number in range(size[0])], np.arange(size[0]) % CLASSES
        attributes = {"dtype": kind, "stream": "rgb", "videos": "bench"}
        bank.write(path, "rgb", rows.blocks(), size, ids, labels, ["train"] * size[0], attributes)
        rows.remove()


def compare(found: FeatureBank, arguments: argparse.Namespace, measured: Callable[[str], Any]) -> None:
    with measured("rows centred"):
        gallery = retrieval.unit_rows(found.features, True, "gallery")
        queries = gallery[: arguments.queries].clone()
    labels = found.labels
    with measured("search"):
        result = retrieval.search(queries, gallery, labels[: arguments.queries], labels)
    assert (result.rows[:, 0] == np.arange(arguments.queries)).all()
    with measured("product alone"):
        for first in range(0, len(queries), 256):
            queries[first : first + 256] @ gallery.T
    with measured("faiss"):  # last: it keeps a copy of the gallery
        index = faiss.IndexFlatIP(arguments.width)
        index.add(gallery.numpy())
        near = index.search(queries.numpy(), retrieval.NEIGHBOURS)[1]
    assert (near[:, 0] == np.arange(arguments.queries)).all()


if __name__ == "__main__":
    main()
