"""The commands of stage two; `python -m train COMMAND --help` tells each one's options."""

from __future__ import annotations

import signal
import time
from pathlib import Path

from rich.console import Console

from pipeline.store import open_store
from train import checkpoints, stages
from train import recipe as recipes

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)


def pretrain(
    method: str,
    store: Path,
    run: Path,
    recipe: str = "small",
    seed: int | None = None,
    hardware: stages.Hardware = stages.Hardware(),  # noqa: B008  (frozen; jsonargparse shows its fields as options)
) -> int:
    """Pre-train on a store, stage by stage as a recipe says. Safe to repeat: a stopped run continues at the exact step.

    SIGINT (Ctrl-C) and SIGTERM finish the step, write a checkpoint and stop.

    Args:
        method: What is trained, e.g. infonce.
        store: Folder of the store.
        run: Folder of the run: recipe, checkpoints, metrics.
        recipe: A YAML file, or the name of a folder in train/recipes that holds one file per method.
        seed: Replaces the recipe's seed.
        hardware: What the run is executed on.
    """
    opened = open_store(store)
    loaded = recipes.load(recipes.find(recipe, method), seed)
    videos = stages.training_videos(loaded, opened)
    stages.prepare(run, loaded)
    names = ", ".join(stage.name for stage in loaded.stages)
    errors.print(f"pre-training {loaded.title!r} (stages: {names}) on {len(videos)} videos of {store}, into {run}")
    began = time.perf_counter()
    for stage in loaded.stages:
        try:
            trained = stages.run_stage(loaded, stage, opened, run, hardware)
        except stages.Stopped as stop:
            errors.print(
                f"stopped by {signal.Signals(stop.number).name} in stage {stage.name} at step {stop.step}; the same"
                f" command continues there: {stages.checkpoint_path(run, stage.name)}"
            )
            return 128 + stop.number
        if not trained:
            errors.print(f"stage {stage.name} was finished already")
    spent = time.perf_counter() - began
    console.print(f"pre-trained {len(loaded.stages)} stages in {spent:.0f} s: {run}")
    return 0


def export(checkpoint: Path, stream: str, out: Path) -> None:
    """Write the bare backbone of a checkpoint: a torch state dict, and a JSON beside it that says what it is.

    Args:
        checkpoint: RUN/<stage>/checkpoints/last.ckpt
        stream: rgb or flow.
        out: File to write, e.g. backbone.pt.
    """
    checkpoints.export(checkpoint, stream, out)
    console.print(f"wrote the {stream} backbone to {out} and its description to {out.with_suffix('.json')}")
