"""Memory of a reader whose store holds very many videos: `python -m tests.benchmarks.memory --videos 240000`.

The store is simulated: its own record, its catalogue and its annotations are written by the pipeline, the folders of
its videos are only said to be there. A fresh process lists it, in columns, takes the digest of all videos, makes the
loader of a training run and draws plans from it; told are the largest resident size of that process, what of it the
imports alone take, and the seconds of each part. `--listing` leaves out the loader. (The files of a real store are
listed besides: `tests.benchmarks.store` measures that.)

Limits: with `--listing --videos 10000000` 2 GiB and 60 s.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa

from pipeline import storage
from pipeline.store import annotation, catalogue, layout, stamps
from pipeline.store.settings import ExtractionSettings, settings_hash
from pipeline.store.table import Form
from pipeline.store.writing import create_store
from pipeline.views.flow import FlowSettings
from pipeline.views.rgb import RgbSettings
from tests.benchmarks.figures import write_figures

CLASSES = 400  # as Kinetics-400
WIDTHS = 50
BATCHES = 20
FILE = storage.Entry(Path(), "", 2000, 0)  # every record, as its file system tells of it


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=240_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--listing", action="store_true", help="without the loader")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)  # the fresh process: the store to open
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure, arguments.videos, arguments.listing)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "store"
        simulate(root, arguments.videos)
        command = [sys.executable, "-m", "tests.benchmarks.memory", "--videos", str(arguments.videos)]
        command += ["--listing"] if arguments.listing else []
        rounds = [
            json.loads(subprocess.run([*command, "--measure", str(root)], check=True, stdout=subprocess.PIPE).stdout)
            for _ in range(arguments.rounds)
        ]
    report({name: statistics.median(found[name] for found in rounds) for name in rounds[0]}, arguments)


def name(number: int) -> str:
    """The id, as long as those of Kinetics, of a video of a class that follows from its number."""
    return f"train/class_of_action_{number % CLASSES:03d}/{number:011d}_000123_000133"


def names(count: int) -> Iterator[str]:
    """Of all videos, sorted."""
    return (name(number) for label in range(CLASSES) for number in range(label, count, CLASSES))


def simulate(root: Path, count: int) -> None:
    """Write the record, catalogue and annotations of a store of `count` videos of ten seconds, without the videos."""
    settings = ExtractionSettings({"rgb": RgbSettings(), "flow": FlowSettings(estimator="dis")}).resolved()
    create_store(root, settings)
    forms = {str(form(number, settings_hash(settings.as_dict()))): number for number in range(WIDTHS)}
    made = catalogue.written(batches(count), forms)
    layout.catalogue_path(root).write_bytes(made.content)
    stamps.save(root, made.digest, made.stamps)
    classes = [f"class_of_action_{number:03d}" for number in range(CLASSES)]
    table = io.BytesIO()
    table.write(b"video_id,label,source,split\r\n")
    for video_id in names(count):
        table.write(f"{video_id},{video_id.split('/')[1]},,train\r\n".encode())
    layout.annotations_folder(root).mkdir()
    layout.annotations_path(root, annotation.EXTRACTION).write_bytes(annotation.file_of(classes, table.getvalue()))


def form(number: int, hashed: str) -> Form:
    """Two views, frames of sizes that differ from video to video."""
    width = 128 + 2 * number
    return Form(hashed, {"rgb": (0, 128, width, 3), "flow": (1, 2, 128, width)}, "", None, None)


def batches(count: int) -> Iterator[pa.RecordBatch]:
    """The rows of the catalogue, each as extraction commits it."""
    left = names(count)
    while found := list(itertools.islice(left, catalogue.ROWS)):
        ids = pa.array(found)
        numbers = np.array([int(video_id.split("/")[2][:11]) for video_id in found])
        cuts = pa.array([[100, 200] if number % 5 == 0 else [] for number in numbers.tolist()], pa.list_(pa.int32()))
        digests = np.random.default_rng(int(numbers[0])).bytes(16 * len(found))
        columns = {
            "folder": ids,
            "video_id": ids,
            "length": pa.array((240 + numbers % 61).astype(np.int32)),
            "fps": pa.array(25 + numbers % 7 / 10),
            "digest": pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(found), [None, pa.py_buffer(digests)]),
            "form": pa.array((numbers % WIDTHS).astype(np.int32)),
            "cuts": cuts,
            "source": pa.array([""] * len(found)),
            "bytes": pa.array(10**6 + numbers),
            "stamp": pa.array(np.full(len(found), FILE.stamp)),
            "cached": pa.array(np.zeros(len(found), bool)),
        }
        yield pa.RecordBatch.from_arrays(list(columns.values()), schema=catalogue.FOUND)


def listed(count: int) -> Any:
    """The lowest level of a listing: files of records that are as old as can be."""

    def files_below(folder: Path, skip: frozenset[str] = frozenset()) -> Iterator[storage.Entry]:
        for video_id in names(count if folder.name == "videos" else 0):
            yield storage.Entry(folder, f"{video_id}/{layout.RECORD}", FILE.size, FILE.changed)

    return mock.patch.object(storage, "files_below", files_below)


def measure(root: Path, count: int, listing: bool) -> dict[str, float]:
    """Bytes and seconds of one process that reads for training. listing: only what the store is asked for."""
    import train.stages  # noqa: F401  (Lightning and all else that a process which trains has loaded)
    from pipeline.store import open_store
    from train.augment import policy
    from train.batches.planning import Planner, Reading
    from train.clips.spec import ClipSpec
    from train.order import OrderSettings
    from train.sampling.random import Random
    from train.training_set import TrainingSet, of_splits

    imported = peak()
    began = time.perf_counter()
    with listed(count):
        store = open_store(root)
        assert len(store.table) == count
    opened = time.perf_counter()
    assert store.annotated.labels.min() >= 0
    assert store.annotated.sources.max() == count - 1
    annotated = time.perf_counter()
    store.annotated.digest_of(np.arange(count))
    digested = time.perf_counter()
    figures = {
        "bytes": peak(),
        "bytes of imports": imported,
        "s to list the videos": opened - began,
        "s for what is said of them": annotated - opened,
        "s for their digest": digested - annotated,
    }
    if listing:
        return figures
    videos = of_splits(store, ("train", ""))
    reads = dict.fromkeys(("rgb", "flow"), (0, 1))
    training_set = TrainingSet(videos, str(root), least=32, share=0.05)
    planner = Planner(
        Reading(ClipSpec(length=32, stride=1, size=(128, 128)), Random(), policy("small"), reads),
        training_set,
        store.settings,
    )
    order = training_set.order(OrderSettings(), 32, 0)
    drawn = time.perf_counter()
    for number in range(BATCHES):
        epoch, samples = order.share(number)
        for sample in samples:
            planner.plans(int(sample), epoch)
    planned = time.perf_counter()
    return figures | {
        "bytes": peak(),
        "s to make the training set": drawn - digested,
        "ms a batch of plans": 1000 * (planned - drawn) / BATCHES,
    }


def peak() -> int:
    """The largest resident size of this process so far, in bytes.

    Not `getrusage`, which goes on from what the parent had when it started this process.
    """
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) * 1024


def report(figures: dict[str, float], arguments: argparse.Namespace) -> None:
    total, imports = figures["bytes"] / 2**20, figures["bytes of imports"] / 2**20
    each = (figures["bytes"] - figures["bytes of imports"]) / arguments.videos
    print(
        f"{arguments.videos} videos: {total:.0f} MiB at most, of which imports {imports:.0f}; {each:.0f} bytes a video"
    )
    for figure in list(figures)[2:]:
        print(f"  {figures[figure]:>8.2f}  {figure}")
    write_figures(arguments, figures=figures)


if __name__ == "__main__":
    main()
