"""The commands of stage two; `python -m train COMMAND --help` tells each one's options."""

from __future__ import annotations

import signal
import time
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console

from pipeline.errors import UsageError
from pipeline.store import open_store
from train import checkpoints, stages
from train import recipe as recipes

# Lightning starts the same command once for each further device.
LEADER = rank_zero_only.rank == 0  # type: ignore[attr-defined]
# Paths come as they are: no colours, no markup in brackets, no line breaks.
console = Console(highlight=False, markup=False, soft_wrap=True, quiet=not LEADER)
errors = Console(stderr=True, highlight=False, markup=False, soft_wrap=True, quiet=not LEADER)


def pretrain(
    method: str,
    store: str,
    run: Path,
    recipe: str = "small",
    seed: int | None = None,
    hardware: stages.Hardware = stages.Hardware(),  # noqa: B008  (frozen; jsonargparse shows its fields as options)
) -> int:
    """Pre-train on a store, stage by stage as a recipe says. Safe to repeat: a stopped run continues at the exact step.

    SIGINT (Ctrl-C) and SIGTERM finish the step, write a checkpoint and stop.

    Args:
        method: What is trained, e.g. infonce.
        store: Folder of the store, or its URL.
        run: Folder of the run: recipe, checkpoints, metrics.
        recipe: A YAML file, or the name of a folder in train/recipes that holds one file per method.
        seed: Replaces the recipe's seed.
        hardware: What the run is executed on.
    """
    opened = open_store(store)
    path = recipes.find(recipe, method)
    loaded = recipes.load(path, seed)
    if method not in [stage.method for stage in loaded.stages]:
        remedy = f"METHOD={loaded.stages[-1].method}, or another recipe"
        raise UsageError(f"no stage of the recipe trains {method!r}", where=str(path), remedy=remedy)
    videos = stages.training_videos(loaded, opened)
    stages.check(loaded, opened, hardware)
    stages.prepare(run, loaded)
    names = ", ".join(stage.name for stage in loaded.stages)
    errors.print(f"pre-training {loaded.title!r} (stages: {names}) on {len(videos)} videos of {store}, into {run}")
    if told := stages.told_of_short_videos(loaded, opened):
        errors.print(f"{told} (clips.short: {loaded.clips.short})")
    began = time.perf_counter()
    for stage in loaded.stages:
        try:
            newly = stages.run_stage(loaded, stage, opened, run, hardware)
        except stages.Stopped as stop:
            errors.print(
                f"stopped by {signal.Signals(stop.number).name} in stage {stage.name} at step {stop.step}; the same"
                f" command continues there: {stages.checkpoint_path(run, stage.name)}"
            )
            # Lightning kills the leader when a follower fails.
            return 128 + stop.number if LEADER else 0
        if not newly:
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
