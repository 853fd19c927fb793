"""Run a recipe: its stages one after the other, each from where it stopped."""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.loggers import Logger

from pipeline import storage
from pipeline.errors import UsageError, counted
from pipeline.store import VideoStore
from train import checkpoints, loggers, provenance, run_folder, sizes
from train.between_epochs import HELD_OUT_LOSS
from train.callbacks.assignments import Assignments
from train.callbacks.bar import Bar
from train.callbacks.checkpointing import Checkpoints, WholeFiles
from train.callbacks.collapse import Collapse
from train.callbacks.divergence import Divergence
from train.callbacks.held_out import HeldOutClasses
from train.callbacks.metrics import Metrics
from train.callbacks.neighbours import Neighbours
from train.callbacks.profile import Profile, Ranges
from train.callbacks.stopping import SIGNALS, Stopping
from train.callbacks.waiting import Waiting
from train.callbacks.watching import WatchedClips, Watching
from train.checkpoints import METADATA
from train.console import tell
from train.hardware import Hardware, convolutions, device, in_words, started_by
from train.hardware.precision import tf32
from train.loggers import LoggerName
from train.methods.method import Method
from train.networks.compiling import compile_backbones
from train.recipe import Precision, Recipe, StageSettings
from train.stage_data import StageData, make_loader, of_held_out, training_set_of
from train.training_set import TrainingSet

for library in ("lightning.pytorch", "lightning.fabric"):
    logging.getLogger(library).setLevel(logging.WARNING)  # its hints name no file and repeat every stage


class Stopped(Exception):
    """Training was asked to stop and wrote its checkpoint. `exit_code`: see `train.callbacks.stopping.Stopping`."""

    def __init__(self, exit_code: int, step: int) -> None:
        super().__init__(exit_code, step)
        self.exit_code, self.step = exit_code, step

    @property
    def reason(self) -> str:
        """What it was asked by: the name of a signal, or the time limit."""
        return {128 + number: number.name for number in SIGNALS}.get(self.exit_code, "the time limit")


def check(recipe: Recipe, store: VideoStore, hardware: Hardware) -> None:
    """Raise Refusal for what would stop any stage later: see `ClipLoader`. Nothing is written.

    UsageError for devices that are not there, or that cannot do what the recipe asks for.
    """
    for stage in recipe.stages:
        sizes.check(recipe, stage)
        convolutions.right_as_they_are(recipe.precision_of(stage), _device(recipe, stage, hardware))
        training_set = training_set_of(recipe, stage, store)
        loader = make_loader(recipe, stage, store, training_set, hardware, world_size=hardware.ranks)
        loader.close()
        _check_last_batch(stage, loader.order.last)
        if stage.settings.optimiser.schedule == "plateau":
            once, held_out = of_held_out(recipe, training_set)
            make_loader(once, stage, store, held_out, hardware, world_size=hardware.ranks).close()


def _device(recipe: Recipe, stage: StageSettings, hardware: Hardware) -> torch.device:
    return device(hardware, recipe.precision_of(stage), recipe.sync_batchnorm)


def _check_last_batch(stage: StageSettings, size: int) -> None:
    try:
        stage.settings.check_batch(size)
    except UsageError as error:
        raise UsageError(
            f"the last batch of an epoch, of {counted(size, 'video')},"
            f" does not suit the method of stage {stage.name!r}: {error.what}",
            where="order.last",
            remedy="order.last: drop in the recipe, or another batch",
        ) from error


def run_stage(
    recipe: Recipe,
    stage: StageSettings,
    store: VideoStore,
    run: Path,
    hardware: Hardware,
    deadline: float = math.inf,
    profile: int = 0,
    logger: LoggerName = "tensorboard",
) -> bool:
    """Train one stage to its end, from its checkpoint if there is one. False if it was finished already.

    Args:
        deadline: of `time.monotonic`; training stops after the step in which it passes.
        profile: how many steps to profile, into RUN/<stage>/profile.
        logger: see `train.loggers.of_stage`.

    Raises Stopped after a signal or the deadline, Diverged where the loss or a gradient is not finite, Refusal for a
    checkpoint that is damaged or not of this run, a full disk or a device whose convolutions are wrong, UsageError
    where networks cannot be compiled. Other versions continue a checkpoint, told, if of torch and Lightning the major
    ones agree.
    """
    training_set = training_set_of(recipe, stage, store)
    module = checkpoints.create(stage.method, stage.settings, recipe.channels, recipe.seed)
    module.more_steps, steps = stage.more_steps, _steps(recipe, stage, training_set)
    start = starting_weights(recipe, stage, run)
    digests = {role: checkpoints.digest_of(checkpoints.flat(weights)) for role, weights in start.items()}
    found = _device(recipe, stage, hardware)
    right, on = convolutions.right_as_they_are(recipe.precision_of(stage), found), in_words(found, hardware.ranks)
    facts = provenance.facts(recipe, stage, store, training_set, digests, onednn=right, hardware=on)
    files = _start_files(recipe, stage, run)
    facts["after"] = sorted({method for file in files for method in checkpoints.made_by(file)})
    facts["begun"] = {role: checkpoints.lineage(file) for role, file in zip(stage.start, files, strict=True)}
    path = run_folder.checkpoint_path(run, stage.name)
    resume = path.exists()
    if resume:
        checkpoint = checkpoints.read(path)
        provenance.refuse_other(checkpoint[METADATA], facts, path)
        if checkpoint[METADATA]["finished"] and checkpoint[METADATA]["step"] >= steps:
            return False
        provenance.refuse_other_versions(checkpoint[METADATA], facts, path)
        checkpoints.load_strictly(module, checkpoint["state_dict"], str(path))
        tell(f"stage {stage.name}: continuing at step {checkpoint[METADATA]['step']}")
    else:
        _start(module, start, stage, recipe.seed)
    data = StageData(recipe, stage, store, training_set, hardware)
    stopping, ranges = Stopping(deadline), Ranges() if profile else None
    callbacks = _callbacks(recipe, stage, store, training_set, run / stage.name, facts, hardware, stopping)
    if ranges is not None:
        callbacks.append(Profile(run / stage.name / "profile", profile, ranges))
    if resume:
        checkpoints.check_continues(checkpoint, [one.state_key for one in callbacks if one.state_dict()], path)
    with _as_it_computes(recipe, right), _room_for(run), loggers.of_stage(logger, run, stage.name) as made:
        trainer = _trainer(recipe, recipe.precision_of(stage), steps, made, hardware, callbacks, ranges)
        if hardware.compile:
            compile_backbones(module, trainer.strategy.root_device)
        seed_everything(recipe.seed, verbose=False)  # for what draws while it trains, such as dropout
        try:
            trainer.fit(module, datamodule=data, ckpt_path=str(path) if resume else None, weights_only=True)
        finally:
            data.close()
    if stopping.exit_code:
        raise Stopped(stopping.exit_code, trainer.global_step)
    return True


@contextlib.contextmanager
def _as_it_computes(recipe: Recipe, right: bool) -> Iterator[None]:
    """right: whether convolutions are, with oneDNN."""
    with convolutions.onednn(allowed=right), tf32(recipe.tf32), warnings.catch_warnings():
        # Lightning warns of its own pytree use and of loaders without workers; ours has threads of its own.
        warnings.filterwarnings("ignore", module="lightning")
        # Half precision leaves out the steps in which its scale of the loss is too large; the schedule goes on.
        warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
        yield


@contextlib.contextmanager
def _room_for(run: Path) -> Iterator[None]:
    """A Refusal where a library finds that the disk is full or fails; TensorBoard's thread also would print a
    traceback."""
    usual = threading.excepthook

    def met_again_here(failed: threading.ExceptHookArgs) -> None:
        if not _of_the_disk(failed.exc_value):
            usual(failed)

    threading.excepthook = met_again_here
    try:
        yield
        threading.excepthook = usual
    except BaseException as error:
        if not _of_the_disk(error):
            threading.excepthook = usual
            raise
        with storage.writing("the run", run):
            raise


def _of_the_disk(error: BaseException | None) -> bool:
    return isinstance(error, OSError) and error.errno in storage.DISK_FAILURES


def _steps(recipe: Recipe, stage: StageSettings, training_set: TrainingSet) -> int:
    order = training_set.order(recipe.order, recipe.batch_of(stage), recipe.seed, recipe.accumulate)
    return stage.length(len(order) // recipe.accumulate)


def starting_weights(recipe: Recipe, stage: StageSettings, run: Path) -> dict[str, dict[str, dict[str, torch.Tensor]]]:
    """Role of a stage -> part -> the state dict that it starts from. Raises Refusal as `checkpoints` does."""
    files = zip(stage.start, _start_files(recipe, stage, run), strict=True)
    return {role: checkpoints.starting_weights(file, stage.settings.starts[role]) for role, file in files}


def _start_files(recipe: Recipe, stage: StageSettings, run: Path) -> list[Path]:
    """Of its roles, as `start` lists them."""
    names = [other.name for other in recipe.stages]
    return [run_folder.checkpoint_path(run, given) if given in names else Path(given) for given in stage.start.values()]


def _start(
    module: Method, weights: dict[str, dict[str, dict[str, torch.Tensor]]], stage: StageSettings, seed: int
) -> None:
    """Let the parts of each role begin as `starting_weights` says."""
    for role, found in weights.items():
        given = stage.start[role]
        for part in stage.settings.starts[role].takes:
            if part not in found:
                name = checkpoints.PARTS.get(part, part)
                lacks = f"{given} has no {name} like this network's"
                tell(f"stage {stage.name}: {lacks}: {role} starts with a fresh one, from the seed {seed}")
        for parts in module.starting[role]:
            checkpoints.start_from(parts, found, given)


def _callbacks(
    recipe: Recipe,
    stage: StageSettings,
    store: VideoStore,
    training_set: TrainingSet,
    folder: Path,
    facts: dict[str, Any],
    hardware: Hardware,
    stopping: Stopping,
) -> list[Callback]:
    """In the order in which they see the end of a step: one that `note`s values of its own goes before Metrics, a
    step's values are found finite before its line is written, that before its checkpoint, and the bar shows up once
    signals are caught."""
    metrics = Metrics(folder / "metrics.jsonl", recipe.log_every)
    watching = _watching(recipe, stage, store, training_set, metrics)
    also = {name: meter for watched in watching for name, meter in watched.meters.items()}
    followed = [HELD_OUT_LOSS] if stage.settings.optimiser.schedule == "plateau" else []
    metrics.also = (*(name for watched in watching for name in watched.names), *followed)
    return [
        *watching,
        Divergence(folder, metrics),
        metrics,
        stopping,
        Checkpoints(folder / "checkpoints", recipe, facts, metrics, stopping),
        Bar(folder.name, metrics, also),
        Collapse(folder.name, metrics),
        Assignments(metrics),
        Waiting(hardware.threads),
    ]


def _watching(
    recipe: Recipe, stage: StageSettings, store: VideoStore, training_set: TrainingSet, metrics: Metrics
) -> list[Watching]:
    """What looks at held-out videos meanwhile."""
    clips = WatchedClips(recipe.clips, recipe.sampling_of(stage), list(stage.settings.networks), store.settings)
    made: list[Watching] = []
    if recipe.neighbours.every:
        made.append(Neighbours(recipe.neighbours, training_set, clips, recipe.seed, recipe.layer, metrics))
    if recipe.held_out.every and stage.settings.needs_labels:
        made.append(HeldOutClasses(recipe.held_out, training_set.held_out, clips, metrics))
    return made


def _trainer(
    recipe: Recipe,
    precision: Precision,
    steps: int,
    made: list[Logger],
    hardware: Hardware,
    callbacks: list[Callback],
    ranges: Ranges | None,
) -> Trainer:
    return Trainer(
        accelerator=hardware.accelerator,
        devices=hardware.devices,
        num_nodes=hardware.nodes,
        precision=precision,
        max_epochs=-1,
        max_steps=steps,
        accumulate_grad_batches=recipe.accumulate,
        gradient_clip_val=recipe.clip_gradients or None,
        sync_batchnorm=recipe.sync_batchnorm,
        logger=made,
        callbacks=callbacks,
        profiler=ranges,
        plugins=[WholeFiles(), *started_by(hardware)],
        log_every_n_steps=recipe.log_every,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        use_distributed_sampler=False,
    )
