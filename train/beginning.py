"""The first lines of a training: what is trained, on which videos, into where."""

from __future__ import annotations

from pathlib import Path

from pipeline.store import VideoStore
from train.console import tell
from train.recipe import Recipe
from train.training_set import TrainingSet


def tell_of(recipe: Recipe, store: VideoStore, training_set: TrainingSet, run: Path) -> None:
    names = ", ".join(stage.name for stage in recipe.stages)
    told_of = f"{len(training_set)} videos of {store.root}, into {run}"
    tell(f"{doing(recipe)[0]} {recipe.title!r} (stages: {names}) on {told_of}")
    for told in filter(None, [store.table.told_of_missing(), store.annotated.told()]):
        tell(told)
    if training_set.empty:
        tell(training_set.told_of_empty())
    if training_set.unlabelled:
        tell(training_set.told_of_unlabelled())
    if training_set.short:
        tell(training_set.told_of_short(recipe.sampling_of(recipe.stages[0])))


def doing(recipe: Recipe) -> tuple[str, str]:
    """What is done, and what has been, in words."""
    on_labels = all(stage.settings.needs_labels for stage in recipe.stages)
    return ("training on labels", "trained") if on_labels else ("pre-training", "pre-trained")
