"""What reading costs a training step: `python -m tests.benchmarks.training`.

Blocks of steps alternate, within one run of the trainer: batches from the loader, then the same batches again from
memory, so that a busy machine slows both. The figure to trust is the ratio of their step times (1 = reading costs
nothing); without a GPU it cannot reach 1, because reading and training share the cores. Told beside it: the share of a
step that is spent waiting for its batch, and how fast the loader alone is, with nobody training.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import train  # noqa: F401  (before torch and lightning)

# isort: split
import numpy as np
import torch
from lightning.pytorch import Trainer

from pipeline import importers, synthetic
from pipeline.extraction.run import extract
from pipeline.store import VideoStore, open_store
from pipeline.store.settings import ExtractionSettings
from pipeline.views.flow import FlowSettings
from pipeline.views.rgb import RgbSettings
from tests.benchmarks.figures import write_figures
from train import checkpoints, stage_data
from train import recipe as recipes
from train.batches.batch import Batch
from train.batches.loader import AHEAD, ClipLoader
from train.hardware import Hardware
from train.networks.compiling import compile_backbones
from train.recipe import Recipe, StageSettings
from train.stage_data import training_set_of
from train.training_set import TrainingSet

FILLING = AHEAD + 2  # steps until the loader is as far ahead as it stays
EPOCH = 800  # videos an epoch, as in `make demo`; fewer are listed again


class Alternating:
    """The loader's batches in blocks, each block once more from memory; times every step between two requests."""

    def __init__(self, loader: ClipLoader, rounds: int, steps: int) -> None:
        self.loader, self.rounds, self.steps = loader, rounds, steps
        self.reading: list[float] = []  # seconds a step, of each block
        self.replaying: list[float] = []
        self.waiting: list[float] = []

    def __len__(self) -> int:
        return self.rounds * (FILLING + 2 * self.steps) + 1

    def __iter__(self) -> Iterator[Batch]:
        for _ in range(self.rounds):
            source = self._endless()
            yield from islice(source, FILLING)
            kept, waited, began = [], 0.0, now()
            for batch in islice(source, self.steps):
                waited += self.loader.waited
                kept.append(batch)
                yield batch
            read = now()
            source.close()
            turned = now()
            yield from kept
            self.replaying.append((now() - turned) / self.steps)
            self.reading.append((read - began) / self.steps)
            self.waiting.append(waited / self.steps)
        yield batch  # without another request the time of the last step would not be known

    def _endless(self) -> Iterator[Batch]:
        while True:
            yield from self.loader


def now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, help="default: a small synthetic store, made for this run")
    parser.add_argument("--videos", type=int, default=100, help="how many synthetic videos")
    parser.add_argument("--recipe", default="small")
    parser.add_argument("--method", default="infonce")
    parser.add_argument("--batch", type=int, help="videos a step; default: the recipe's")
    parser.add_argument("--reader", default="auto")
    parser.add_argument("--threads", type=int, default=min(8, len(os.sched_getaffinity(0))))
    parser.add_argument("--steps", type=int, default=10, help="of a block")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    recipe = recipes.load(recipes.find(arguments.recipe, arguments.method))
    if arguments.batch:
        alike = [stage.changed(batch=0) for stage in recipe.stages]
        recipe = recipe.changed(batch=arguments.batch, stages=alike)
    with tempfile.TemporaryDirectory() as scratch:
        store = open_store(arguments.store or make_store(Path(scratch), arguments.videos))
        figures = {stage.name: measure(recipe, stage, store, arguments) for stage in recipe.stages}
    report(figures, recipe, arguments)


def make_store(folder: Path, count: int) -> Path:
    """Videos of 48 frames of 84 x 112, as in `make demo`."""
    each = -(-count // len(synthetic.CLASSES))
    synthetic.generate(folder / "videos", train_per_class=each, test_per_class=0)
    settings = ExtractionSettings({"rgb": RgbSettings(), "flow": FlowSettings(estimator="dis")}).resolved()
    extract(importers.read("folder", folder / "videos"), folder / "videos", folder / "store", settings, workers=2)
    return folder / "store"


def measure(
    recipe: Recipe, stage: StageSettings, store: VideoStore, arguments: argparse.Namespace, compiled: bool = False
) -> dict[str, float]:
    """Medians over the rounds; times in seconds. compiled: whether the networks are."""
    listed = training_set_of(recipe, stage, store)
    rows = np.resize(np.arange(len(listed)), max(EPOCH, len(listed)))
    videos = TrainingSet(listed.videos.take(rows), str(store.root))
    module = checkpoints.create(stage.method, stage.settings, recipe.channels, recipe.seed)
    if compiled:
        compile_backbones(module, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    hardware = Hardware(reader=arguments.reader, threads=arguments.threads)
    loader = stage_data.make_loader(recipe, stage, store, videos, hardware)
    blocks = Alternating(loader, arguments.rounds, arguments.steps)
    trainer = Trainer(
        devices=1,
        precision=recipe.precision,  # type: ignore[arg-type]
        max_epochs=-1,
        max_steps=len(blocks),
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")  # as `train.stages` does
        trainer.fit(module, blocks)
    began = now()
    for number in range(arguments.steps):
        loader.load(number)
    alone = (now() - began) / arguments.steps
    loader.close()
    clips = loader.order.batch * loader.planner.reading.count
    pairs = list(zip(blocks.reading, blocks.replaying, strict=True))
    return {
        "ratio": statistics.median(reading / replaying for reading, replaying in pairs),
        "waiting": statistics.median(w / s for w, s in zip(blocks.waiting, blocks.reading, strict=True)),
        "step_time": statistics.median(blocks.reading),
        "step_time_from_memory": statistics.median(blocks.replaying),
        "clips_per_second": clips / statistics.median(blocks.reading),
        "clips_per_second_of_loader_alone": clips / alone,
    }


def report(figures: dict[str, dict[str, float]], recipe: Recipe, arguments: argparse.Namespace) -> None:
    threads = f"{arguments.threads} threads"
    print(f"{recipe.title!r} ({threads})")
    print(f"  {'stage':<12} {'to memory':>12} {'waiting':>12} {'step':>12} {'clips / s':>12} {'loader alone':>14}")
    for name, row in figures.items():
        times = f"{1000 * row['step_time']:>9.0f} ms {row['clips_per_second']:>12.0f}"
        alone = f"{row['clips_per_second_of_loader_alone']:>10.0f} c/s"
        print(f"  {name:<12} {row['ratio']:>12.2f} {100 * row['waiting']:>10.1f} % {times} {alone}")
    write_figures(arguments, stages=figures)


if __name__ == "__main__":
    main()
