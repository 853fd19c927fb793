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
from train import preview as previews
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


def preview(
    method: str,
    store: str,
    recipe: str = "small",
    stage: str = "",
    epoch: int = 0,
    batch: int = 0,
    videos: int = 8,
    seed: int | None = None,
    out: Path = Path("preview.html"),
) -> None:
    """Show what the network will see: film strips of one batch of a recipe, augmented and normalised, as an HTML page.

    The batch is the one that `pretrain` with the same recipe, store and seed trains on at that place: the same videos,
    frames, windows, mirrors, blurs and colours. Each clip stands beside what was drawn for it. Look at it before a long
    run, after every change of the augmentation, and when a stage does not learn.

    Examples: `preview --method infonce --store stores/mine`; `preview --method coclr --recipe ucf101 --store stores/ucf101
    --stage flow --epoch 3 --out flow.html`.

    Args:
        method: What would be trained, e.g. infonce.
        store: Folder of the store, or its URL.
        recipe: A YAML file, or the name of a folder in train/recipes that holds one file per method.
        stage: Name of a stage of the recipe; by default the first one.
        epoch: Counted from 0; other epochs draw other frames and pixels of the same videos.
        batch: Within the epoch, from 0.
        videos: How many videos of the batch are shown.
        seed: Replaces the recipe's seed.
        out: The page to write; it needs no other file.
    """
    loaded = recipes.load(recipes.find(recipe, method), seed)
    name, shown = previews.write_preview(loaded, stage, open_store(store), epoch, batch, videos, out)
    console.print(f"showed {shown} videos of batch {batch} of epoch {epoch}, stage {name}: {out}")


def export(checkpoint: Path, stream: str, out: Path) -> None:
    """Write the bare backbone of a checkpoint: a torch state dict, and a JSON beside it that says what it is.

    Args:
        checkpoint: RUN/<stage>/checkpoints/last.ckpt
        stream: rgb or flow.
        out: File to write, e.g. backbone.pt.
    """
    checkpoints.export(checkpoint, stream, out)
    console.print(f"wrote the {stream} backbone to {out} and its description to {out.with_suffix('.json')}")
