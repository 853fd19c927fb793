"""The commands of stage two; `python -m train COMMAND --help` tells each one's options."""

from __future__ import annotations

import math
import re
import time
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.store import open_store
from train import checkpoints, stages
from train import recipe as recipes
from train.console import LEADER, console, tell
from train.settings import check_number


def pretrain(
    method: str,
    store: str,
    run: Path,
    recipe: str = "small",
    seed: int | None = None,
    hardware: stages.Hardware = stages.Hardware(),  # noqa: B008  (frozen; jsonargparse shows its fields as options)
    time_limit: str | None = None,
    profile: int = 0,
) -> int:
    """Pre-train on a store, stage by stage as a recipe says. Safe to repeat: a stopped run continues at the exact step.

    SIGINT (Ctrl-C), SIGTERM and the time limit finish the step, write a checkpoint and stop, with the exit codes 130,
    143 and 124; the same command goes on.

    Args:
        method: What is trained, e.g. infonce.
        store: Folder of the store, or its URL.
        run: Folder of the run: recipe, checkpoints, metrics.
        recipe: A YAML file, or the name of a folder in train/recipes that holds one file per method.
        seed: Replaces the recipe's seed.
        hardware: What the run is executed on.
        time_limit: Stop in time, so long after the start: HH:MM:SS, or hours such as 23.5. Leave some minutes for the
            last step and the checkpoint when a job is killed at a certain time.
        profile: Profile so many steps of each stage that is trained now: RUN/<stage>/profile/trace.json, for
            ui.perfetto.dev, and the dearest operators as a table.
    """
    deadline = time.monotonic() + seconds(time_limit) if time_limit is not None else math.inf
    check_number("profile", profile, whole=True, least=0)
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
    tell(f"pre-training {loaded.title!r} (stages: {names}) on {len(videos)} videos of {store}, into {run}")
    if told := stages.told_of_short_videos(loaded, opened):
        tell(f"{told} (clips.short: {loaded.clips.short})")
    began = time.perf_counter()
    for stage in loaded.stages:
        try:
            newly = stages.run_stage(loaded, stage, opened, run, hardware, deadline, profile)
        except stages.Stopped as stop:
            tell(
                f"stopped by {stop.reason} in stage {stage.name} at step {stop.step}; the same"
                f" command continues there: {stages.checkpoint_path(run, stage.name)}"
            )
            # Lightning kills the leader when a follower fails.
            return stop.exit_code if LEADER else 0
        if not newly:
            tell(f"stage {stage.name} was finished already")
    spent = time.perf_counter() - began
    console.print(f"pre-trained {len(loaded.stages)} stages in {spent:.0f} s: {run}")
    return 0


def seconds(time_limit: str) -> float:
    """A limit as SLURM writes it, HH:MM:SS, or hours. Raises UsageError."""
    if clock := re.fullmatch(r"(\d+):([0-5]\d):([0-5]\d)", time_limit):
        hours, minutes, rest = map(int, clock.groups())
        return 3600 * hours + 60 * minutes + rest
    if re.fullmatch(r"\d+(\.\d+)?", time_limit):
        return 3600 * float(time_limit)
    raise UsageError(
        f"{time_limit!r} is no length of time", where="time_limit", remedy="HH:MM:SS, or hours such as 23.5"
    )


def export(checkpoint: Path, stream: str, out: Path) -> None:
    """Write the bare backbone of a checkpoint: a torch state dict, and a JSON beside it that says what it is.

    Args:
        checkpoint: RUN/<stage>/checkpoints/last.ckpt
        stream: rgb or flow.
        out: File to write, e.g. backbone.pt.
    """
    checkpoints.export(checkpoint, stream, out)
    console.print(f"wrote the {stream} backbone to {out} and its description to {out.with_suffix('.json')}")
