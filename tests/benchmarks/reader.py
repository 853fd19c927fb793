"""Throughput of the reader's executors, in parts of what bare decoding costs: `python -m tests.benchmarks.reader`.

Every row does the same clips of the same videos, round after round, the rows of a round one after the other, so that
a busy machine slows all of them. The figure to trust is the ratio: frames per second of CPU time against
`cv2.imdecode` of the same frames with the bytes at hand. (The part of DALI that runs on a GPU costs no CPU time: look
at wall time there.)
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import torch

from pipeline import synthetic
from pipeline.importers import folder
from pipeline.job import extract_video
from pipeline.settings import ExtractionSettings
from pipeline.store import VideoStore, open_store
from pipeline.views.flow import FlowSettings
from pipeline.views.rgb import RgbSettings
from pipeline.writer import create_store
from tests.benchmarks.figures import write_figures
from train import reader
from train.augment import ClipPlan, colour_maps, generator, plan, policy
from train.reader.affine import normalise
from train.reader.shard import ShardReader


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, help="default: a small synthetic store, made for this run")
    parser.add_argument("--size", type=int, default=112, help="height and width of the clips")
    parser.add_argument("--length", type=int, default=32, help="frames a clip")
    parser.add_argument("--batch", type=int, default=16, help="clips a batch")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as scratch:
        store = open_store(arguments.store) if arguments.store else synthetic_store(Path(scratch))
        figures = {
            view: measure(store, view, arguments)
            for view in ("rgb", "flow")
            if all(view in store.info(video_id).views for video_id in store.videos)
        }
    report(figures, arguments)


def synthetic_store(root: Path) -> VideoStore:
    """20 videos of 64 frames of 128 x 172, as UCF101 is usually stored."""
    videos, path = root / "videos", root / "store"
    synthetic.generate(videos, train_per_class=2, test_per_class=0, frames=64, height=128, width=172)
    settings = ExtractionSettings({"rgb": RgbSettings(), "flow": FlowSettings(estimator="dis")}).resolved()
    create_store(path, settings)
    for video in folder.read(videos).rows:
        extract_video(str(videos), str(path), video, settings.as_dict())
    return open_store(path)


def measure(store: VideoStore, view: str, arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Per row: ratio to bare decoding, and frames per second of CPU time and of wall time (medians)."""
    plans = draw(store, arguments.length, arguments.batch)
    affine = colour_maps(plans, view)
    shards = ShardReader(store)
    streams = [shards.encoded(made.video_id, view, made.frames)[n] for made in plans for n in made.frames.tolist()]
    flags = cv2.IMREAD_COLOR_RGB if view == "rgb" else cv2.IMREAD_GRAYSCALE
    size = (arguments.size, arguments.size)
    opencv, dali = (reader.create(name, store, size, arguments.threads) for name in ("opencv", "dali"))

    def float32(executor: reader.Executor) -> Callable[[], object]:
        return lambda: normalise((clips := executor.run(view, plans)), affine.to(clips.device))

    rows: dict[str, Callable[[], object]] = {
        "cv2.imdecode only": lambda: [cv2.imdecode(stream, flags) for stream in streams],
        "read only, checksums": lambda: [shards.encoded(made.video_id, view, made.frames) for made in plans],
        "opencv, uint8 clips": lambda: opencv.run(view, plans),
        "opencv, float32 clips": float32(opencv),
        "dali, uint8 clips": lambda: dali.run(view, plans),
        "dali, float32 clips": float32(dali),
    }
    cv2.setNumThreads(1)
    spent = {name: ([], []) for name in rows}
    for number in range(arguments.rounds + 1):
        for name, work in rows.items():
            wall, cpu = time.perf_counter(), time.process_time()
            work()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if number:  # the first round fills caches and builds pipelines
                spent[name][0].append(time.process_time() - cpu)
                spent[name][1].append(time.perf_counter() - wall)
    opencv.close(), dali.close()
    bare = spent["cv2.imdecode only"][0]
    return {
        name: {
            "ratio": statistics.median(b / c for b, c in zip(bare, cpu, strict=True)),
            "frames_per_cpu_second": len(streams) / statistics.median(cpu),
            "frames_per_second": len(streams) / statistics.median(wall),
        }
        for name, (cpu, wall) in spent.items()
    }


def draw(store: VideoStore, length: int, batch: int) -> list[ClipPlan]:
    rng, small = generator(0, 0, 0), policy("small", flip=0.5)
    plans = []
    for i in range(batch):
        video_id = store.videos[i % len(store.videos)]
        info = store.info(video_id)
        plans.append(plan(small, video_id, info.length - 1, length, 1, rng, frame_size=(info.height, info.width)))
    return plans


def report(figures: dict[str, dict[str, dict[str, float]]], arguments: argparse.Namespace) -> None:
    for view, rows in figures.items():
        print(f"{view:<24} {'of imdecode':>12} {'f / CPU s':>12} {'f / s':>12}   ({arguments.threads} threads)")
        for name, row in rows.items():
            speeds = f"{row['frames_per_cpu_second']:>12.0f} {row['frames_per_second']:>12.0f}"
            print(f"  {name:<22} {row['ratio']:>12.2f} {speeds}")
    write_figures(arguments, views=figures)


if __name__ == "__main__":
    main()
