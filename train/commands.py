"""The commands of stage two; `python -m train COMMAND --help` tells each one's options."""

from __future__ import annotations

import dataclasses
import math
import re
import time
from collections.abc import Callable
from pathlib import Path
from string import Template
from typing import Any, TypeVar

from pipeline import called
from pipeline.arguments import (
    Changes,
    CountOrAll,
    Input,
    Name,
    Names,
    Number,
    OutputFile,
    OutputFolder,
    Positive,
    Seed,
    StorePlace,
    Text,
)
from pipeline.commands.following import after_store
from pipeline.errors import UsageError, counted
from pipeline.store import VideoStore, open_store
from train import beginning, loggers, overrides, prolonging, run_folder, stages
from train import finetune as finetuning
from train import recipe as recipes
from train.callbacks.divergence import Diverged
from train.console import LEADER, console, tell
from train.hardware import Hardware
from train.loggers import LoggerName
from train.recipe import Recipe
from train.show import preview as previews
from train.stage_data import fitted, refuse_without_split, training_set_of
from train.training_set import TrainingSet

C = TypeVar("C", bound=Callable[..., Any])


def _listing_choices(command: C) -> C:
    """Puts the methods and recipes that there are into a command's help."""
    choices = {folder: recipes.methods_of(folder) for folder in recipes.FOLDERS_ON_LABELS}
    folders = [folder for folder in recipes.folders() if folder not in choices]
    of_folders = {name for folder in folders for name in recipes.methods_of(folder)}
    listed = choices | {"methods": sorted(of_folders), "recipes": folders}
    evaluate = called.command("evaluate", run="OUT", store="")
    command.__doc__ = Template(command.__doc__ or "").substitute(
        {name: ", ".join(found) for name, found in listed.items()} | {"evaluate": evaluate}
    )
    return command


@_listing_choices
def pretrain(
    method: Name,
    store: StorePlace,
    run: OutputFolder,
    recipe: Name = "small",
    seed: Seed | None = None,
    hardware: Hardware = Hardware(),  # noqa: B008  (frozen; jsonargparse shows its fields as options)
    time_limit: Text | None = None,
    profile: Number = 0,
    annotations: Text = "",
    use_all: bool = False,
    set: Changes | None = None,
    steps: Number = 0,
    epochs: Number = 0,
    batch: Number = 0,
    more_steps: Number = 0,
    devices: CountOrAll = 0,
    logger: LoggerName = "tensorboard",
) -> int:
    """Pre-train on a store, stage by stage as a recipe says. Safe to repeat: a stopped run continues at the exact step.

    SIGINT (Ctrl-C), SIGTERM and the time limit finish the step, write a checkpoint and stop, with the exit codes 130,
    143 and 124; the same command goes on. A loss or gradient that is not finite ends the run with exit code 1; the last
    checkpoint from before stays.

    Args:
        method: What is trained: $methods.
        store: Folder of the store, or its URL.
        run: Folder of the run: recipe, checkpoints, metrics.
        recipe: A YAML file, or the name of a folder in train/recipes, which has files for methods: $recipes.
        seed: Replaces the recipe's seed.
        hardware: What the run is executed on.
        time_limit: Stop in time, so long after the start: HH:MM:SS, or hours such as 23.5. Leave some minutes for the
            last step and the checkpoint when a job is killed at a certain time.
        profile: Profile so many steps of each stage that is trained now: RUN/<stage>/profile/trace.json, for
            ui.perfetto.dev, and the dearest operators as a table.
        annotations: The annotation set of the store whose labels, recordings and splits count; by default that of
            extraction, or the only one.
        use_all: Train on all videos of a store that has labels and no split, though none is then left to test with.
        set: Change a key of the recipe, as `--set stages.0.steps=200 --set batch=16`: of a stage by its number or name,
            or * for all. It is checked as the file is, and the run's recipe is the result: repeat it to continue.
        steps: So many steps of every stage: short for `--set stages.*.steps=`.
        epochs: So many epochs of every stage.
        batch: Videos in a batch of every stage: short for `--set batch=`.
        more_steps: Prolong a finished run under its name: so many steps more of each stage that no other starts from. A
            schedule with an end (one_cycle, cosine) is gone through again over these steps, others go on.
        devices: Short for --hardware.devices.
        logger: wandb or mlflow, beside metrics.jsonl and TensorBoard's files, which there are in any case:
            see `train.loggers`. Another time it may be another one.
    """
    work = _Work(hardware, devices, time_limit, profile, use_all, more_steps, logger)
    changes = overrides.listed(set, steps, epochs, batch)
    opened = open_store(store, annotations)
    loaded = finetuning.begun_with(_loaded(recipe, method, seed, changes), None, [])
    return _run(loaded, opened, run, work)


def _on_labels(said: Callable[[], None]) -> Callable[..., int]:
    """The command that trains a recipe on labels, from a run or from nothing; `said` has its help, and its name, which
    is that of the recipes' folder, too."""
    folder = said.__name__

    def command(
        store: StorePlace,
        run: Input | None = None,
        recipe: Name = "small",
        out: OutputFolder | None = None,
        streams: Names | None = None,
        seed: Seed | None = None,
        hardware: Hardware = Hardware(),  # noqa: B008  (frozen; jsonargparse shows its fields as options)
        time_limit: Text | None = None,
        profile: Number = 0,
        annotations: Text = "",
        use_all: bool = False,
        set: Changes | None = None,
        steps: Number = 0,
        epochs: Number = 0,
        batch: Number = 0,
        more_steps: Number = 0,
        devices: CountOrAll = 0,
        logger: LoggerName = "tensorboard",
    ) -> int:
        work = _Work(hardware, devices, time_limit, profile, use_all, more_steps, logger)
        opened = open_store(store, annotations)
        loaded = recipes.load(finetuning.find(folder, recipe), seed, overrides.listed(set, steps, epochs, batch))
        begun = finetuning.begun_with(loaded, run, streams or [])
        into = out or (run.with_name(f"{run.name}-{folder}") if run else None)
        if into is None:
            raise UsageError(
                "there is no folder for the new run", where="out", remedy=f"{called.option('out', 'runs/scratch')}"
            )
        return _run(begun, opened, into, work)

    command.__name__, command.__doc__ = folder, said.__doc__
    return _listing_choices(command)


@_on_labels
def finetune() -> None:
    """Train networks of a run further, on labels. Safe to repeat: as `pretrain`, which it is in all else.

    Each stage of the recipe begins with the last network of its stream in the run, and a fresh classifier; what the
    recipe leaves open about the network is the run's. Recipes: small (any store, minutes on two cores), and the
    published ones (coclr, vicc, goca, slic, cocon, dpc); small-scratch and scratch (CoCLR's supervised network) begin
    with random weights and take no run. Evaluation tests the classifiers: `$evaluate`.

    Args:
        store: Folder of the store, or its URL; it needs labels and the split train.
        run: Folder of the run that is fine-tuned, pre-trained or imported.
        recipe: A YAML file, or the name of one in train/recipes/finetune: $finetune.
        out: Folder of the new run; by default that of `run`, with -finetune behind its name.
        streams: That are trained; by default all of the recipe that the run has.
        seed, hardware, time_limit, profile, annotations, use_all: As `pretrain` has them.
        set, steps, epochs, batch, more_steps, devices, logger: As `pretrain` has them.
    """


@_on_labels
def probe() -> None:
    """Train a linear probe end to end, as published: the run's networks stay as they are, in evaluation mode, and a
    classifier learns from augmented clips. All else is as in `finetune`.

    The probe of `evaluate`, a logistic regression on stored features, is quicker and another number.

    Args:
        store, run: As `finetune` has them.
        recipe: A YAML file, or the name of one in train/recipes/probe: $probe.
        out: Folder of the new run; by default that of `run`, with -probe behind its name.
        streams: That are probed; by default all of the recipe that the run has.
        seed, hardware, time_limit, profile, annotations, use_all: As `pretrain` has them.
        set, steps, epochs, batch, more_steps, devices, logger: As `pretrain` has them.
    """


class _Work:
    """How a recipe is executed. deadline: of `time.monotonic`, from now on."""

    def __init__(
        self,
        hardware: Hardware,
        devices: int,
        time_limit: str | None,
        profile: int,
        use_all: bool,
        more_steps: int,
        logger: LoggerName,
    ) -> None:
        loggers.refuse_missing(logger)
        if devices and hardware.devices not in (1, devices):
            raise UsageError(
                f"--devices {devices} and --hardware.devices {hardware.devices}",
                where="devices",
                remedy="give one of the two",
            )
        self.hardware = dataclasses.replace(hardware, devices=devices or hardware.devices)
        self.deadline = time.monotonic() + seconds(time_limit) if time_limit is not None else math.inf
        self.profile, self.use_all, self.more_steps, self.logger = profile, use_all, more_steps, logger


def _run(recipe: Recipe, store: VideoStore, run: Path, work: _Work) -> int:
    loaded = prolonging.as_recorded(run, fitted(recipe.of_classes(store.classes), store, work.hardware.ranks))
    training_set = _checked(loaded, store, work)
    with run_folder.only_trainer(run, loaded):
        if work.more_steps:
            loaded = prolonging.prolonged(run, loaded, store, work.more_steps)
        beginning.tell_of(loaded, store, training_set, run)
        beginning.tell_of_plan(loaded, store, work.hardware)
        beginning.tell_of_offset(loaded, store)
        return _train(loaded, store, run, work)


def _train(loaded: Recipe, opened: VideoStore, run: Path, work: _Work) -> int:
    """All stages; the exit code."""
    began = time.perf_counter()
    for stage in loaded.stages:
        stage_began = time.perf_counter()
        try:
            newly = stages.run_stage(
                loaded, stage, opened, run, work.hardware, work.deadline, work.profile, work.logger
            )
        except stages.Stopped as stop:
            tell(
                f"stopped by {stop.reason} in stage {stage.name} at step {stop.step}; the same"
                f" command continues there: {run_folder.checkpoint_path(run, stage.name)}"
            )
            # Lightning kills the leader when a follower fails.
            return stop.exit_code if LEADER else 0
        except Diverged:
            if LEADER:
                raise
            return 0
        if newly:
            tell(f"stage {stage.name} took {time.perf_counter() - stage_began:.0f} s")
        else:
            tell(f"stage {stage.name} was finished already")
    spent = time.perf_counter() - began
    console.print(f"{beginning.doing(loaded)[1]} {counted(len(loaded.stages), 'stage')} in {spent:.0f} s: {run}")
    beginning.tell_of_next(opened, run)
    return 0


def _checked(recipe: Recipe, store: VideoStore, work: _Work) -> TrainingSet:
    """The videos of the first stage; refuses what cannot be meant before anything is written."""
    if not work.use_all:
        refuse_without_split(store, recipe)
    training_set = training_set_of(recipe, recipe.stages[0], store)
    stages.check(recipe, store, work.hardware)
    return training_set


def _loaded(recipe: str, method: str, seed: int | None, changes: list[str]) -> Recipe:
    path = recipes.find(recipe, method)
    loaded = recipes.load(path, seed, changes)
    if method not in [stage.method for stage in loaded.stages]:
        remedy = f"{called.option('method', loaded.stages[-1].method)}, or another recipe"
        raise UsageError(f"no stage of the recipe trains {method!r}", where=str(path), remedy=remedy)
    return loaded


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


@_listing_choices
def preview(
    method: Name,
    store: StorePlace,
    recipe: Name = "small",
    stage: Text = "",
    epoch: Number = 0,
    batch: Number = 0,
    videos: Positive = 8,
    seed: Seed | None = None,
    out: OutputFile = Path("preview.html"),
    annotations: Text = "",
    set: Changes | None = None,
) -> None:
    """Show what the network will see: film strips of a batch of every stage, augmented and normalised, as HTML.

    The batch is the one that `pretrain` with the same recipe, store and seed trains on at that place: the same videos,
    frames, windows, mirrors, blurs and colours. Each clip stands beside what was drawn for it. Look at it before a long
    run, after every change of the augmentation, and when a stage does not learn.

    Examples: `preview --method infonce --store stores/mine`; `preview --method coclr --recipe ucf101 --store
    stores/ucf101 --stage flow --epoch 3 --out flow.html`.

    Args:
        method: What would be trained: $methods.
        store: Folder of the store, or its URL.
        recipe: A YAML file, or the name of a folder in train/recipes, which has files for methods: $recipes.
        stage: Name of a stage of the recipe; by default every one.
        epoch: Counted from 0; other epochs draw other frames and pixels of the same videos.
        batch: Within the epoch, from 0.
        videos: How many videos of the batch are shown.
        seed: Replaces the recipe's seed.
        out: The page to write; it needs no other file.
        annotations, set: As `pretrain` has them.
    """
    opened = open_store(store, annotations)
    loaded = fitted(_loaded(recipe, method, seed, set or []), opened)
    name, shown = previews.write_preview(loaded, stage, opened, epoch, batch, videos, out)
    console.print(f"showed {counted(shown, 'video')} of batch {batch} of epoch {epoch}, stage {name}: {out}")
    tell(after_store(opened, method, recipe))
