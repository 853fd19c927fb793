"""Bank and retrieval at the size of Kinetics-400: `python -m tests.benchmarks.retrieval --videos 240000 --width 2048`.

A fresh process computes a bank by the code of evaluation, of a simulated store (`tests.benchmarks.memory`), whose clips
are noise that follows from the video and whose network is one matrix: so that what is measured is all but reading and
network. It is ended half-way and goes on. Then the bank is used again, read, and the neighbours of some of its videos
are looked for among all; told are seconds, those of the processor, and the largest resident size after each part, and
what the search takes against faiss's exact index and against the matrix product alone. Limit: 16 GB.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import faiss
import numpy as np
import torch
from torch import Tensor, nn

from eval import features, retrieval
from eval.bank import FeatureBank
from eval.features import Request, Seen
from eval.protocols import Look, Windows
from eval.rows import Rows
from pipeline.store import VideoStore, open_store
from tests.benchmarks import memory
from tests.benchmarks.figures import write_figures
from train.clips.spec import ClipSpec
from train.networks.network import Network
from train.reader import Executor, Group

CLIP = ClipSpec(length=4, stride=1, size=(4, 4))
INPUTS = 3 * 4 * 4 * 4  # numbers of such a clip
ONE = Look(Windows("centre"), Windows("centre"))


class Ended(Exception):
    """What ends the computation half-way."""


class Noise(Executor):
    """Clips of bytes that follow from the video; of so many, and then it fails."""

    def __init__(self, clips: int) -> None:
        self.left = clips

    def read(self, view: str, groups: Sequence[Group]) -> list[Tensor]:
        [(plans, size)] = groups
        self.left -= len(plans)
        if self.left < 0:
            raise Ended
        return [torch.stack([self._clip(plan.video_id, (4, *size, 3)) for plan in plans]).permute(0, 4, 1, 2, 3)]

    def close(self) -> None:
        """There is nothing to let go of."""

    def _clip(self, video: str, shape: tuple[int, ...]) -> Tensor:
        content = hashlib.shake_128(video.encode()).digest(INPUTS)
        return torch.frombuffer(bytearray(content), dtype=torch.uint8).reshape(shape)


class Product(nn.Module):
    """What `features` asks of a network: rows of `width` by one matrix."""

    def __init__(self, width: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(INPUTS, width, generator=generator), requires_grad=False)

    def size(self, layer: str) -> int:
        return self.weight.shape[1]

    def embed(self, clips: Tensor, layer: str) -> Tensor:
        return clips.flatten(1) @ self.weight


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
        begun, worked = time.perf_counter(), time.process_time()
        yield
        seconds, spent, peak = time.perf_counter() - begun, time.process_time() - worked, memory.peak() / 2**30
        figures[name] = {"seconds": seconds, "cpu_seconds": spent, "peak_gib": peak}
        print(f"{name:26} {seconds:8.1f} s, CPU {spent:8.1f} s, largest size so far {peak:6.2f} GiB", flush=True)

    with tempfile.TemporaryDirectory(dir=arguments.folder) as scratch:
        memory.simulate(Path(scratch) / "store", arguments.videos)
        with measured("store opened"), memory.listed(arguments.videos):
            store = open_store(str(Path(scratch) / "store"))
            assert len(store.table) == arguments.videos
        path = Path(scratch) / "bank.h5"
        compute(path, store, arguments, measured)
        print(f"{path.stat().st_size / 2**30:.2f} GiB on the disk")
        with measured("bank read"):
            found = FeatureBank.load(path)
    compare(found, arguments, measured)
    taken = {name: figures[name]["cpu_seconds"] for name in ("search", "faiss", "product alone")}
    print(f"search takes {taken['search'] / taken['product alone']:.2f} of the product alone", end=", ")
    print(f"faiss {taken['faiss'] / taken['product alone']:.2f}")
    write_figures(arguments, parts=figures)


def compute(path: Path, store: VideoStore, arguments: argparse.Namespace, measured: Callable[[str], Any]) -> None:
    videos, network = store.videos, cast(Network, Product(arguments.width))
    digests = features.videos_digest(store, videos), features.contents_digest(store, videos)
    request = Request(
        "bench", "trained", Seen("rgb", CLIP), "backbone", ONE, 0, store.settings_hash, *digests, "", "Noise",
        dtype="float16" if arguments.half else "float32",
    )  # fmt: skip

    def made(clips: int) -> None:
        features.banks({path: request}, lambda _: network, store, videos, Noise(clips))

    with measured("half of it, ended"), suppress(Ended):
        made(len(videos) // 2)
    with Rows(path.with_name("bank.h5.rows"), request.rows_of(), arguments.width, request.dtype) as kept:
        assert len(videos) // 2 - 100 < kept.count <= len(videos) // 2, kept.count
    with measured("the rest, and the bank"):
        made(len(videos))
    with measured("found, and used again"):
        made(0)


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
