"""Throughput of the reader against bare decoding and against other loaders: `python -m tests.benchmarks.reader`.

Every row does the same clips of the same videos, round after round, the rows of a round one after the other, so that a
busy machine slows all of them. The figures to trust are ratios of CPU time on one core; bare decoding is `cv2.imdecode`
of the same streams, at hand in memory, each frame dropped at once. What a GPU does costs no CPU time: there wall time
counts.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import importlib.util
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from nvidia.dali import Pipeline, fn
from nvidia.dali.types import DALIDataType

from pipeline import synthetic
from pipeline.extraction.job import extract_video
from pipeline.flow.kernels import kernel
from pipeline.manifest import Video
from pipeline.store import VideoStore, open_store
from pipeline.store.settings import ExtractionSettings
from pipeline.store.writing import create_store
from pipeline.views.flow import FlowSettings
from pipeline.views.rgb import RgbSettings
from tests.benchmarks import peers
from tests.benchmarks.figures import write_figures
from tests.benchmarks.one_core import one_core, real_clips
from train import reader
from train.augment import ClipPlan, colour_maps, policy
from train.batches.planning import Planner, Reading
from train.clips.spec import ClipSpec
from train.reader.affine import normalise
from train.reader.shard import ShardReader
from train.sampling.random import Random
from train.training_set import TrainingSet, Videos

LOOP = "a compiled loop"
BARE, BYTES, FLOATS = "cv2.imdecode only", "opencv, uint8", "opencv, float32"
DALI, DALI_GPU, NVJPEG = "dali on the CPU, uint8", "dali on the GPU, uint8", "nvJPEG only"
PAPERS, PYAV, TORCHCODEC = "papers' loader, float32", "PyAV from mp4, uint8", "torchcodec from mp4, uint8"

MANY = 20  # batches one after the other with threads: a system takes some of them to spread the threads over its cores


@dataclass
class Row:
    """Work on all clips, and what was spent on it in each round.

    clock: CPU seconds spent so far. batches: how often the work does them.
    """

    work: Callable[[], object]
    clock: Callable[[], float] = time.process_time
    batches: int = 1
    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)


Rows = dict[str, Row]


@dataclass(frozen=True)
class Ratio:
    """A ratio, and what it has to reach, if anything; without `value` it was not measured, and `what` says why."""

    what: str
    value: float | None = None
    least: float | None = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path, help="a folder of mp4 files; default: action clips beside the checkout")
    parser.add_argument("--size", type=int, default=112, help="height and width of the clips")
    parser.add_argument("--length", type=int, default=32, help="frames a clip")
    parser.add_argument("--batch", type=int, default=16, help="clips a batch")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    size = (arguments.size, arguments.size)
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        files = videos(arguments.videos, scratch)
        store = make_store(list(files.values()), scratch / "store")
        drawn = draw(store, arguments.length, arguments.batch, size)
        plans = drawn["rgb"]
        with one_core():
            torch.set_num_threads(1)
            rows = {view: rows_of_view(store, view, made, size) for view, made in drawn.items()}
            rows["rgb + flow"] = {FLOATS: Row(lambda: [rows[view][FLOATS].work() for view in ("rgb", "flow")])}
            rows["rgb"] |= rows_of_files(files, plans, size)
            for kind, loader in peers.papers_loaders(scratch, store, plans, size, workers=1).items():
                rows[kind][PAPERS] = Row(loader, lambda spent=loader.cpu_seconds: time.process_time() + spent())
            measure(rows, arguments.rounds)
        rows |= {"threads": rows_of_threads(store, plans, size)}
        if torch.cuda.is_available():
            rows |= {"gpu": rows_of_gpu(store, plans, size)}
        measure({kind: rows[kind] for kind in ("threads", "gpu") if kind in rows}, arguments.rounds)
    report(rows, arguments)


def videos(folder: Path | None, scratch: Path) -> dict[str, Path]:
    """mp4 files by name: those of `folder`, real action clips, or 20 synthetic ones of 64 frames of 128 x 172."""
    found = sorted(folder.rglob("*.mp4")) if folder else real_clips(40)
    for number in range(0 if found else 20):
        name = synthetic.CLASSES[number % len(synthetic.CLASSES)]
        found.append(scratch / f"{number}.mp4")
        synthetic.write_mp4(found[-1], synthetic.video(name, number, frames=64, height=128, width=172))
    return {path.stem: path for path in found}


def make_store(files: list[Path], path: Path) -> VideoStore:
    settings = ExtractionSettings({"rgb": RgbSettings(), "flow": FlowSettings(estimator="dis")}).resolved()
    create_store(path, settings)
    for file in files:
        extract_video(str(file.parent), str(path), Video(file.stem, file.name, "", "", ""), settings.as_dict())
    return open_store(path)


def draw(store: VideoStore, length: int, batch: int, size: tuple[int, int]) -> dict[str, list[ClipPlan]]:
    """Clips of consecutive frames, from videos that are long enough; the windows of both streams are the same."""
    spec, views = ClipSpec(length=length, stride=1, size=size), ("rgb", "flow")
    reading = Reading(spec, Random(), policy("small", flip=0.5), dict.fromkeys(views, (0,)))
    long = TrainingSet(Videos(store.annotated, np.flatnonzero(store.table.frames >= length)), str(store.root))
    planner = Planner(reading, long, store.settings)
    samples = [planner.plans(sample, 0)[0] for sample in range(batch)]
    return {view: [sample[view] for sample in samples] for view in views}


def rows_of_view(store: VideoStore, view: str, plans: list[ClipPlan], size: tuple[int, int]) -> Rows:
    """Ours, on CPUs."""
    shards = ShardReader(store)
    streams = [shards.encoded(made.video_id, view, made.frames)[n] for made in plans for n in made.frames.tolist()]
    flags = cv2.IMREAD_COLOR_RGB if view == "rgb" else cv2.IMREAD_GRAYSCALE
    opencv = reader.create("opencv", store, threads=1)
    dali = dali_on_cpu(store)

    def bare() -> None:
        for stream in streams:
            cv2.imdecode(stream, flags)

    return {
        BARE: Row(bare),
        "read only, checksums": Row(lambda: [shards.encoded(made.video_id, view, made.frames) for made in plans]),
        BYTES: Row(lambda: opencv.run(view, plans, size)),
        FLOATS: Row(float32(opencv, view, plans)),
        DALI: Row(lambda: dali.run(view, plans, size)),
        "dali on the CPU, float32": Row(float32(dali, view, plans)),
    }


def dali_on_cpu(store: VideoStore) -> reader.Executor:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)
        return reader.create("dali", store, threads=1)


def float32(executor: reader.Executor, view: str, plans: list[ClipPlan]) -> Callable[[], object]:
    affine, size = colour_maps(plans), plans[0].stream.size
    return lambda: normalise(clips := executor.run(view, plans, size), affine.to(clips.device))


def rows_of_files(files: dict[str, Path], plans: list[ClipPlan], size: tuple[int, int]) -> Rows:
    """Decoding the mp4 files themselves."""
    rows = {PYAV: Row(lambda: peers.clips_of_files(peers.decode_with_pyav, files, plans, size))}
    if importlib.util.find_spec("torchcodec"):
        decode = peers.decode_with_torchcodec
        rows[TORCHCODEC] = Row(lambda: peers.clips_of_files(decode, files, plans, size))
    return rows


def rows_of_threads(store: VideoStore, plans: list[ClipPlan], size: tuple[int, int]) -> Rows:
    """One thread and two; beside ours a loop without memory, which shows how many cores are to be had."""
    rows = {}
    for threads in (1, 2):
        pool = ThreadPoolExecutor(threads)
        rows[f"{LOOP}, threads: {threads}"] = Row(
            lambda pool=pool: list(pool.map(compiled_loop, [MANY * 10**6] * 16)), batches=MANY
        )
        executor = reader.create("opencv", store, threads)
        floats = float32(executor, "rgb", plans)

        def with_threads(work: Callable[[], object], threads: int = threads) -> None:
            torch.set_num_threads(threads)
            for _ in range(MANY):
                work()

        bytewise = functools.partial(executor.run, "rgb", plans, size)
        rows[f"{BYTES}, threads: {threads}"] = Row(functools.partial(with_threads, bytewise), batches=MANY)
        rows[f"{FLOATS}, threads: {threads}"] = Row(functools.partial(with_threads, floats), batches=MANY)
    return rows


@kernel
def compiled_loop(count):  # pragma: no cover - compiled
    value = 1.0
    for _ in range(count):
        value = value * 1.0000001 + 1e-9
    return value


def rows_of_gpu(store: VideoStore, plans: list[ClipPlan], size: tuple[int, int]) -> Rows:
    """DALI with nvJPEG, and nvJPEG alone."""
    executor = reader.create("dali", store, threads=2)
    shards = ShardReader(store)
    streams = [shards.encoded(made.video_id, "rgb", made.frames)[n] for made in plans for n in made.frames.tolist()]
    pipeline = Pipeline(len(streams), 2, torch.cuda.current_device(), prefetch_queue_depth=1)
    with pipeline:
        source = fn.external_source(name="streams", dtype=DALIDataType.UINT8, ndim=1)
        pipeline.set_outputs(fn.decoders.image(source, device="mixed", jpeg_fancy_upsampling=True))
    return {
        NVJPEG: Row(lambda: pipeline.run(streams=streams)),
        DALI_GPU: Row(lambda: executor.run("rgb", plans, size)),
        "dali on the GPU, float32": Row(float32(executor, "rgb", plans)),
    }


def measure(rows: dict[str, Rows], rounds: int) -> None:
    """Each row goes first in its turn: what was done before is still in the caches."""
    all_rows = [row for named in rows.values() for row in named.values()]
    for number in range(rounds + 1):
        for turn in range(len(all_rows)):
            row = all_rows[(number + turn) % len(all_rows)]
            cpu, wall = row.clock(), time.perf_counter()
            row.work()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if number:  # the first round fills caches, compiles and starts workers
                row.wall.append((time.perf_counter() - wall) / row.batches)
                row.cpu.append((row.clock() - cpu) / row.batches)


def ratio(slow: list[float], fast: list[float]) -> float:
    return statistics.median(one / other for one, other in zip(slow, fast, strict=True))


def ratios(rows: dict[str, Rows]) -> list[Ratio]:
    rgb, both, flow, threads = (rows[kind] for kind in ("rgb", "rgb + flow", "flow", "threads"))
    gpu = rows.get("gpu")
    made = [
        Ratio("opencv, uint8, against bare decoding (CPU)", ratio(rgb[BARE].cpu, rgb[BYTES].cpu), 1.0),
        Ratio("opencv, float32, against bare decoding (CPU)", ratio(rgb[BARE].cpu, rgb[FLOATS].cpu), 0.9),
        Ratio("the same of flow, uint8 (CPU)", ratio(flow[BARE].cpu, flow[BYTES].cpu)),
    ]
    for kind, ours in (("rgb", rgb), ("rgb + flow", both)):
        made.append(Ratio(f"{kind} against the papers' loader (CPU)", ratio(ours[PAPERS].cpu, ours[FLOATS].cpu), 5))
        made.append(Ratio(f"{kind} against the papers' loader (wall)", ratio(ours[PAPERS].wall, ours[FLOATS].wall), 5))
    for name in (LOOP, BYTES, FLOATS):
        one, two = (threads[f"{name}, threads: {count}"].wall for count in (1, 2))
        least = None if name == LOOP else 1.85
        made.append(Ratio(f"two threads against one, {name} (wall)", ratio(one, two), least))
    made.append(Ratio("opencv against dali on the CPU, uint8 (CPU)", ratio(rgb[DALI].cpu, rgb[BYTES].cpu)))
    made.append(Ratio("opencv against PyAV from mp4, uint8 (CPU)", ratio(rgb[PYAV].cpu, rgb[BYTES].cpu)))
    if TORCHCODEC in rgb:
        made.append(Ratio("opencv against torchcodec from mp4 (CPU)", ratio(rgb[TORCHCODEC].cpu, rgb[BYTES].cpu)))
    else:
        made.append(Ratio("torchcodec: not run: it is not installed"))
    if gpu:
        made.append(
            Ratio("dali on a GPU against nvJPEG alone (wall)", ratio(gpu[NVJPEG].wall, gpu[DALI_GPU].wall), 0.7)
        )
        made.append(Ratio("dali on a GPU against on the CPU (wall)", ratio(rgb[DALI].wall, gpu[DALI_GPU].wall)))
    else:
        made.append(Ratio("dali on a GPU: not run: no GPU"))
    return made


def report(rows: dict[str, Rows], arguments: argparse.Namespace) -> None:
    frames = arguments.batch * arguments.length
    figures: dict[str, dict[str, dict[str, float]]] = {}
    for kind, named in rows.items():
        print(f"{kind:<34} {'frames / CPU s':>14} {'frames / s':>12}")
        for name, row in named.items():
            speeds = [frames / statistics.median(spent) for spent in (row.cpu, row.wall)]
            figures.setdefault(kind, {})[name] = dict(zip(("per_cpu_second", "per_second"), speeds, strict=True))
            print(f"  {name:<32} {speeds[0]:>14.0f} {speeds[1]:>12.0f}")
    reached = ratios(rows)
    print(f"{'ratios (medians over the rounds)':<56} {'reached':>8} {'must':>6}")
    for must in reached:
        value = f"{must.value:>8.2f}" if must.value is not None else ""
        print(f"  {must.what:<54} {value}" + (f" {must.least:>6.2f}" if must.least else ""))
    write_figures(arguments, rows=figures, musts=[dataclasses.asdict(must) for must in reached])


if __name__ == "__main__":
    main()
