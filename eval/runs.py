"""A run's folder as training leaves it: stages, their checkpoints, their logs, the recipe."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import called, storage
from pipeline.errors import Refusal, UsageError
from pipeline.store import VideoStore, annotated
from train import checkpoints
from train.callbacks.checkpointing import BEST
from train.callbacks.held_out import TOP1
from train.callbacks.metrics import read_lines
from train.provenance import data_of
from train.run_folder import RECIPE, checkpoint_path, read_recipe
from train.training_set import of_splits


@dataclass(frozen=True)
class Stage:
    """One stage that has a checkpoint; `metadata` as `train.checkpoints.metadata` gives it."""

    name: str
    checkpoint: Path
    metadata: dict[str, Any]

    @property
    def folder(self) -> Path:
        return self.checkpoint.parent.parent

    def metrics(self) -> list[dict[str, Any]]:
        """The logged steps, one dictionary each. Lines that a kill or a power cut has damaged are left out."""
        path = self.folder / "metrics.jsonl"
        return read_lines(path)[0] if path.is_file() else []


def bank_path(run: Path, store: VideoStore, stage: str, network: str, protocol: str, stream: str) -> Path:
    """Where the features of one network on one stream are kept, of the videos of a store as its annotation set splits
    them."""
    folder = run / "features" / data_of(store) / store.annotated.name / stage
    return folder / f"{network}-{protocol}-{stream}.h5"


def probed_path(bank: Path) -> Path:
    """Where the probabilities by the linear probe of a bank are kept."""
    return bank.with_name(f"{bank.stem}-linear.h5")


def classes_path(run: Path, store: VideoStore) -> Path:
    """Where R@k of each class is kept, as CSV."""
    return run / "features" / data_of(store) / store.annotated.name / "classes.csv"


def recipe_text(run: Path) -> str:
    """The resolved recipe of a run as it was written. Raises Refusal: no run here, or its recipe is damaged."""
    read_recipe(run)
    return storage.read_text(run / RECIPE, storage.LARGEST_RECORD)


def stages(run: Path) -> list[Stage]:
    """The stages that have a checkpoint, which is the one to evaluate, in the recipe's order. A run that is not
    finished gives those it has.

    Raises:
        Refusal: no run here, or not one checkpoint yet.
    """
    written = read_recipe(run)
    names = [stage["name"] for stage in written["stages"]]
    paths = {name: _chosen(checkpoint_path(run, name), written) for name in names}
    found = [Stage(name, path, checkpoints.metadata(path)) for name, path in paths.items() if path.is_file()]
    if not found:
        raise Refusal(
            "this run has no checkpoint yet",
            where=f"{run}/{{{','.join(names)}}}/checkpoints/last.ckpt",
            remedy=f"{called.command('pretrain')} with the same {called.option('run')} goes on to it",
        )
    return found


def _chosen(last: Path, written: dict[str, Any]) -> Path:
    """A stage's last checkpoint; or, where the recipe chooses by the classes of held-out training videos, its best."""
    best = last.with_name(BEST)
    by_held_out = written.get("keep_best") == {"metric": TOP1, "mode": "max"}
    return best if by_held_out and best.is_file() else last


def trained_videos(stage: Stage, run: Path, store: VideoStore) -> frozenset[str]:
    """The videos of a store that a stage was trained on, by the annotation set that it was trained with; none where the
    store does not have these as they were then."""
    named = stage.metadata.get("annotations") or {}
    try:
        as_trained = store.said_by(annotated.choose(store.root, store.table, named.get("name", "")))
        chosen = of_splits(as_trained, read_recipe(run)["splits"])
    except (Refusal, UsageError):  # no such set, or none of these splits
        return frozenset()
    return frozenset(chosen.ids) if stage.metadata["store_videos_hash"] == chosen.digest() else frozenset()


def trained_on(stage: Stage, run: Path, store: VideoStore) -> bool:
    """Whether a stage was trained on exactly the training videos that `store` holds now, as its checkpoint recorded
    them."""
    try:
        chosen = of_splits(store, read_recipe(run)["splits"])
    except Refusal:  # none is of these splits
        return False
    return stage.metadata["store_videos_hash"] == chosen.digest()
