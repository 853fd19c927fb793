"""What extraction adds to decoding, flow and encoding: `python -m tests.benchmarks.extraction`.

Overhead is the time that all workers together had, from the moment the first one begins until the last video is
committed, against what they spent on decoding, flow and encoding (the store's journal): 1.1 reads "a tenth more". The
limit is 1.15 for short, small videos with the fastest flow; with TV-L1 it vanishes. The CPU time of all processes is
told as well, against that of a bare loop over the same videos in one process. Starting the workers is a fixed cost,
taken off and told apart.

Then, of these videos, of real clips where they are, and of videos as large as those of UCF101: the rate of RGB alone on
one core against a bare loop of PyAV and OpenCV (the limit is .8), what comes on top of the time of TV-L1 (decoding,
both encodings, writing, everything: the limit is .07), how many times the rate of one worker two have (the limit is
1.85), and the size of the store against the papers' LMDBs.

`--instant` measures something else instead: the CPU time of a frame with an estimator that takes no time, and how many
frames/s a machine of 16 cores has by division (the goal is 10,000), which is what it could give a GPU to do.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from pipeline import importers, synthetic
from pipeline.extraction.run import extract
from pipeline.manifest import Manifest
from pipeline.storage import disk
from pipeline.store.settings import ExtractionSettings
from pipeline.store.writing import VideoWriter, create_store
from pipeline.video.decode import decode
from pipeline.views import Extractor
from pipeline.views.flow import FlowSettings
from pipeline.views.rgb import RgbSettings
from pipeline.views.size import Block
from tests.benchmarks import instant, one_core
from tests.benchmarks.figures import journal_lines, write_figures

WORK = ("decode", "flow", "encode")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path, help="default: synthetic videos, 48 frames of 112x84, made for this run")
    parser.add_argument("--count", type=int, default=240, help="how many synthetic videos")
    parser.add_argument("--flow", default="dis", choices=["dis", "tvl1-opencv", "none"])
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--large", type=int, default=40, help="how many synthetic videos as large as those of UCF101")
    parser.add_argument("--flow-videos", type=int, default=5, help="how many videos TV-L1 is computed of")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--instant", action="store_true", help="CPU time beside an estimator that takes no time")
    arguments = parser.parse_args()
    if arguments.instant:
        return all_but_flow(arguments)
    flow = {} if arguments.flow == "none" else {"flow": FlowSettings(estimator=arguments.flow)}
    settings = ExtractionSettings({"rgb": RgbSettings(), **flow}).resolved()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        videos = arguments.videos or make_videos(scratch / "videos", arguments.count)
        listed = importers.read("folder", videos)
        rounds = [
            measure(scratch / str(i), videos, listed, settings, arguments.workers) for i in range(arguments.rounds)
        ]
        figures = {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}
        figures |= writing(scratch, videos / listed.rows[0].path, settings)
        large = one_core.as_large_as_ucf101(scratch / "large", arguments.large)
        figures |= {"as UCF101: two workers against one, RGB": two_workers(scratch, large[0].parent, arguments.rounds)}
        kinds = {
            "short": ([videos / row.path for row in listed.rows[:40]], arguments.flow_videos),
            "real clips": (one_core.real_clips(40), arguments.flow_videos),
            "as UCF101": (large, 1),
        }
        for kind, (paths, flow_videos) in kinds.items():
            found = one_core.measure(paths, scratch / kind, "tvl1-cpu", flow_videos) if paths else {}
            figures |= {f"{kind}: {name}": value for name, value in found.items()}
    report(figures, len(listed.rows), arguments)


def all_but_flow(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        large = one_core.as_large_as_ucf101(Path(folder) / "large", arguments.large)
        real = one_core.real_clips(arguments.large)
        kinds = {"as UCF101": large} | ({"real clips": real} if real else {})
        found = {kind: instant.measure(paths, Path(folder) / kind) for kind, paths in kinds.items()}
    figures = {f"{kind}: {name}": value for kind, row in found.items() for name, value in row.items()}
    report(figures, arguments.large, arguments)


def make_videos(folder: Path, count: int) -> Path:
    synthetic.generate(folder, train_per_class=-(-count // len(synthetic.CLASSES)), test_per_class=0)
    return folder


def measure(
    store: Path, videos: Path, listed: Manifest, settings: ExtractionSettings, workers: int
) -> dict[str, float]:
    """One bare loop and one extraction, and one of a video for each worker, for what starting costs."""
    cv2.setNumThreads(1)
    few = Manifest(listed.rows[:workers], listed.classes)
    before = cpu_seconds()
    extract(few, videos, store.with_name(f"{store.name}-start"), settings, workers)
    starting = cpu_seconds() - before
    began, before = time.time(), cpu_seconds()
    extract(listed, videos, store, settings, workers)
    ended, cpu = time.time(), cpu_seconds() - before - starting
    before = cpu_seconds()
    for row in listed.rows[workers:]:
        bare_loop(videos / row.path, settings)
    bare = cpu_seconds() - before
    (file,) = (store / "journal").iterdir()
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()[1:]]
    spent = {kind: sum(line["seconds"].get(kind, 0.0) for line in lines) for kind in (*WORK, "write", "total")}
    first, lasted = span(store)
    available = lasted * workers
    work = sum(spent[kind] for kind in WORK)
    return {
        "overhead against the workers' own work": available / work,
        "CPU time against a bare loop": cpu / bare,
        "share of writing": spent["write"] / work,
        "share of the rest of the task": (spent["total"] - work - spent["write"]) / work,
        "share of waiting between tasks": (available - spent["total"]) / work,
        "ms a video, work": 1e3 * work / len(lines),
        "ms a video, beyond it": 1e3 * (available - work) / len(lines),
        "ms a video, CPU time of a bare loop": 1e3 * bare / (len(lines) - workers),
        "videos/s": len(lines) / lasted,
        "s to start": first - began,
        "s to end": ended - first - lasted,
    }


def two_workers(scratch: Path, videos: Path, rounds: int) -> float:
    """The rate at which two workers store videos, without flow, against that of one; in turn, once they are warm."""
    listed, settings = importers.read("folder", videos), ExtractionSettings({"rgb": RgbSettings()}).resolved()
    rates: dict[int, list[float]] = {1: [], 2: []}
    for number in range(rounds):
        for workers in rates:
            store = scratch / f"workers-{number}-{workers}"
            extract(listed, videos, store, settings, workers)
            times = sorted(line["time"] for line in journal_lines(store))[4:]
            rates[workers].append((len(times) - 1) / (times[-1] - times[0]))
    return statistics.median(rates[2]) / statistics.median(rates[1])


def span(store: Path) -> tuple[float, float]:
    """When a store's first video began, and how many seconds later its last one was committed."""
    lines = journal_lines(store)
    first = min(line["time"] - line["seconds"]["total"] for line in lines)
    return first, max(line["time"] for line in lines) - first


def bare_loop(path: Path, settings: ExtractionSettings) -> None:
    """Decoding, flow and encoding of one video, and nothing else."""
    views = settings.extractors(path.stem)
    for frames in decode(path):
        block = Block(frames)
        for view in views:
            view.add(block)


def cpu_seconds() -> float:
    """Of this process and all it started that have ended."""
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


def writing(scratch: Path, video: Path, settings: ExtractionSettings, repeats: int = 40) -> dict[str, float]:
    """Milliseconds to write one encoded video durably, to write it without a flush, and as 15 single flushes would."""
    blocks = [Block(frames) for frames in decode(video)]
    views = settings.extractors(video.stem)
    streams = [(view, [stream for block in blocks for stream in view.add(block)]) for view in views]
    flush = disk.flush_file_system
    ways: dict[str, Callable[[Path], None]] = {
        "ms to write a video": flush,
        "ms to write it without flushing": lambda folder: None,
        "ms to write it with an fsync a file and folder": flush_one_by_one,
    }
    create_store(scratch / "writing", settings)
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(repeats):
        for name, way in ways.items():
            disk.flush_file_system = way
            began = time.perf_counter()
            write(scratch / "writing", f"{name}/{number}", streams)
            spent[name].append(1e3 * (time.perf_counter() - began))
    disk.flush_file_system = flush
    return {name: statistics.median(times) for name, times in spent.items()}


def write(store: Path, video_id: str, streams: list[tuple[Extractor, list[np.ndarray]]]) -> None:
    writer = VideoWriter(store, video_id)
    writer.begin()
    for view, encoded in streams:
        writer.add(view, list(encoded))
    writer.commit([view for view, _ in streams], {"length": len(streams[0][1])})


def flush_one_by_one(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder, folder.parent]:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def report(figures: dict[str, float], count: int, arguments: argparse.Namespace) -> None:
    how = f"flow {arguments.flow}, {arguments.workers} workers, {arguments.rounds} rounds"
    print(f"extraction of {count} videos, {'flow in no time, one core' if arguments.instant else how}")
    for name, value in figures.items():
        print(f"  {name:<58} {value:8.3f}")
    write_figures(arguments, videos=count, figures=figures)


if __name__ == "__main__":
    main()
