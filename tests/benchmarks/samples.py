"""What the clips of a sample cost when a frame that several of them show is decoded once: `python -m
tests.benchmarks.samples`.

Batches of the recipes for UCF101 are read from a store of its size (186 frames of 320x240), whole and clip by clip, as
if every clip were alone; the two in turn, so that a busy machine slows both, on one core. Told are the frames that the
clips of a sample show and those of them that differ, and how many of the shown ones a second of CPU gives.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from pipeline import synthetic
from pipeline.store import VideoStore
from tests.benchmarks.figures import write_figures
from tests.benchmarks.one_core import one_core
from tests.train.stores import write_frames
from train import recipe
from train.batches.loader import ClipLoader
from train.hardware import Hardware
from train.reader import Group
from train.stage_data import make_loader, training_set_of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=["coclr", "vicc", "goca", "slic"])
    parser.add_argument("--pixels", default="ours", choices=("ours", "published"))
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, one_core():
        torch.set_num_threads(1)
        store = make_store(Path(scratch) / "store", arguments.batch)
        figures = {method: measure(method, store, arguments) for method in arguments.methods}
    write_figures(arguments, figures=figures)


def make_store(path: Path, videos: int) -> VideoStore:
    """With synthetic frames in the place of flow, too: two planes of what JPEG makes of moving shapes."""
    frames = {}
    for number in range(videos):
        name = synthetic.CLASSES[number % len(synthetic.CLASSES)]
        rgb = synthetic.video(name, number, frames=186, height=240, width=320)
        frames[f"{number:02}"] = (rgb, np.ascontiguousarray(rgb[1:, ..., :2].transpose(0, 3, 1, 2)))
    return write_frames(path, frames)


def measure(method: str, store: VideoStore, arguments: argparse.Namespace) -> dict[str, float]:
    made = recipe.load(recipe.find("ucf101", method))
    stage = made.stages[0].changed(batch=arguments.batch)
    made = made.changed(clips=made.clips.changed(pixels=arguments.pixels), stages=[stage])
    loader = make_loader(made, stage, store, training_set_of(made, stage, store), Hardware(reader="opencv", threads=1))
    together = loader.executor.read

    def alone(view: str, groups: Sequence[Group]) -> list[torch.Tensor]:
        return [torch.cat([together(view, [([plan], size)])[0] for plan in plans]) for plans, size in groups]

    spent: dict[Callable, list[float]] = {together: [], alone: []}
    for number in range(arguments.rounds + 1):
        for way, seconds in spent.items():
            loader.executor.read = way  # type: ignore[method-assign]
            began = time.process_time()
            loader.load(number)
            if number:  # the first compiles and fills caches
                seconds.append(time.process_time() - began)
    samples = arguments.batch * (arguments.rounds + 1)
    shown, decoded = (count / samples for count in frames(loader, arguments.rounds + 1))
    loader.close()
    per_second = {way: arguments.batch * shown / statistics.median(seconds) for way, seconds in spent.items()}
    figures = {
        "shown": shown,
        "decoded": decoded,
        "per_cpu_second": per_second[together],
        "alone_per_cpu_second": per_second[alone],
        "ratio": statistics.median(one / other for one, other in zip(spent[alone], spent[together], strict=True)),
    }
    print(f"{method:>6}: " + ", ".join(f"{name} {value:.4g}" for name, value in figures.items()), flush=True)
    return figures


def frames(loader: ClipLoader, batches: int) -> tuple[int, int]:
    """Of all samples: frames of their clips, and of these the different ones."""
    shown, different = 0, 0
    for number in range(batches):
        epoch, samples = loader.order.share(number)
        for sample in samples.tolist():
            clips = loader.planner.plans(sample, epoch)
            plans = [
                clips[number][name] for name, numbers in loader.planner.reading.clips.items() for number in numbers
            ]
            shown += sum(len(plan.frames) for plan in plans)
            different += len({(plan.stream.view, plan.video_id, int(n)) for plan in plans for n in plan.frames})
    return shown, different


if __name__ == "__main__":
    main()
