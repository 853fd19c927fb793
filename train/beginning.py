"""The first lines of a training, what is trained, on what and by what; and the line of what to do after it."""

from __future__ import annotations

from pathlib import Path

import torch

from pipeline import called
from pipeline.commands.following import following
from pipeline.errors import counted
from pipeline.store import VideoStore
from train import augment
from train.console import tell
from train.hardware import Hardware, device, in_words
from train.networks.settings import NetworkSettings
from train.recipe import Augmentation, Recipe
from train.stage_data import make_loader, steps_of_epoch, training_set_of
from train.training_set import TrainingSet


def tell_of(recipe: Recipe, store: VideoStore, training_set: TrainingSet, run: Path) -> None:
    names = ", ".join(stage.name for stage in recipe.stages)
    told_of = f"{counted(len(training_set), 'video')} of {store.root}, into {run}"
    tell(f"{doing(recipe)[0]} {recipe.title!r} (stages: {names}) on {told_of}")
    for told in filter(None, [store.table.told_of_missing(), store.annotated.told()]):
        tell(told)
    if training_set.empty:
        tell(training_set.told_of_empty())
    if training_set.unlabelled:
        tell(training_set.told_of_unlabelled())
    if training_set.short:
        tell(training_set.told_of_short(recipe.sampling_of(recipe.stages[0])))


def tell_of_plan(recipe: Recipe, store: VideoStore, hardware: Hardware) -> None:
    """The device, and of each stage its length, its videos and its networks; none of them is built."""
    found = device(hardware, recipe.precision_of(recipe.stages[0]), recipe.sync_batchnorm)
    words = in_words(found, hardware.ranks)
    name = "opencv" if hardware.reader == "auto" and not torch.cuda.is_available() else hardware.reader
    tell(f"on {words}, reader {name} with {counted(hardware.threads, 'thread')}")
    for stage in recipe.stages:
        of_epoch = max(1, steps_of_epoch(recipe, stage, store))
        steps = stage.length(of_epoch)
        videos = recipe.batch_of(stage) * recipe.accumulate
        epochs = "1 epoch" if steps == of_epoch else f"{steps / of_epoch:.3g} epochs"
        length = f"{counted(steps, 'step')} of {counted(videos, 'video')} ({epochs})"
        networks = ", ".join(
            f"{stream} {network.backbone} with {weights(network, recipe.channels[stream]) / 1e6:.2f} M weights"
            for stream, network in stage.settings.networks.items()
        )
        tell(f"  stage {stage.name}: {stage.method}, {length}; {networks}")


def tell_of_offset(recipe: Recipe, store: VideoStore) -> None:
    """Where augmentation adds more to what is no image than there is in it, as in flow of real clips."""
    offset = augment.policy(recipe.augmentation.name, **recipe.augmentation.settings).offset
    known: set[str] = set()
    for stage in recipe.stages if offset else ():
        streams = {name for name in stage.settings.networks if not recipe.clips.stream(name).image} - known
        if streams:
            known |= streams
            loader = make_loader(
                recipe.changed(augmentation=Augmentation(name="evaluate")),
                stage,
                store,
                training_set_of(recipe, stage, store),
                Hardware(reader="opencv"),
            )
            first = loader.load(0)
            loader.close()
        for name in sorted(streams):
            spread = float(torch.cat([clips.flatten() for clips in first.views(name)]).std())
            if spread < offset:
                tell(
                    f"{name} of these videos is small (spread {spread:.2g} at the network's input) beside the offset"
                    f" that augmentation adds (flow_offset {offset:g}): a network sees little of it."
                    f" {called.option('recipe', 'small-real')} adds none, nor does"
                    f" {called.option('set', 'augmentation.settings.flow_offset=0')}"
                )


def weights(network: NetworkSettings, channels: int) -> int:
    """How many numbers of a network are trained."""
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        return sum(weight.numel() for weight in network.build(channels).parameters())


def tell_of_next(store: VideoStore, run: Path) -> None:
    """What to do with a run that is trained."""
    tell(following("evaluate", run=str(run), store=str(store.root)))


def doing(recipe: Recipe) -> tuple[str, str]:
    """What is done, and what has been, in words."""
    on_labels = all(stage.settings.needs_labels for stage in recipe.stages)
    return ("training on labels", "trained") if on_labels else ("pre-training", "pre-trained")
