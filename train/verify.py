"""Whether a run is as it was written, byte for byte, and its parts are of one another."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline import called, storage
from pipeline.errors import Refusal
from pipeline.storage import sealed
from train import checkpoints, provenance, run_folder
from train.callbacks.metrics import read_lines
from train.checkpoints import METADATA, REPLACE


def verify(run: Path) -> Iterator[Refusal | None]:
    """Of each file of a run what is wrong with it, or None: recipe, checkpoints, metrics, feature banks and results.

    Raises Refusal where there is no run, and for a recipe that cannot be read.
    """
    recipe = run_folder.read_recipe(run)
    results = run / "results.json"
    yield from _missing(run, [stage["name"] for stage in recipe["stages"]], _evaluated(results))
    for path in sorted(run.glob("*/checkpoints/*.ckpt")):
        yield _checkpoint(path, provenance.recipe_hash(recipe))
    for path in sorted(run.glob("*/metrics.jsonl")):
        yield _metrics(path)
    for path in sorted(run.glob("features/*/*/*/*.h5")):
        yield (
            None
            if _sealed(path)
            else Refusal("the features are not as they were written", where=str(path), remedy=_remove())
        )
    if results.is_file():
        yield _results(results)
    elif (path := run / "report.html").is_file():
        yield Refusal("the results that it was made of are gone", where=str(path), remedy=_remove())


def _missing(run: Path, names: list[str], evaluated: set[str]) -> Iterator[Refusal]:
    """Checkpoints of stages before one that has been trained, and of those that have results."""
    there = [run_folder.checkpoint_path(run, name).is_file() for name in names]
    for place, name in enumerate(names):
        if not there[place] and (any(there[place:]) or name in evaluated):
            why = "later stages began with it" if any(there[place:]) else "there are results of it"
            where = str(run_folder.checkpoint_path(run, name))
            yield Refusal(f"the checkpoint is missing, but {why}", where=where, remedy=REPLACE)


def _evaluated(path: Path) -> set[str]:
    """The stages that there are results of; none where these cannot be read."""
    try:
        found = sealed.records(storage.read_regular(path))
        return {name for record in found for name in str(record.get("stage", "")).split("+")}
    except (OSError, ValueError, RecursionError):
        return set()


def _checkpoint(path: Path, recipe_hash: str) -> Refusal | None:
    try:
        checkpoint = checkpoints.read(path)
        checkpoints.load_method(path)
        facts: dict[str, Any] = checkpoint[METADATA]
        if not facts["finished"]:
            checkpoints.check_continues(checkpoint, (), path)
    except Refusal as refusal:
        return refusal
    if not _sealed(path):
        what = "the checkpoint has no digest: it was changed, or not written by this costream"
    elif facts["stage"] != path.parent.parent.name:
        what = f"the checkpoint is of stage {facts['stage']}"
    elif facts["recipe_hash"] != recipe_hash:
        what = f"the checkpoint was made with another recipe than the run's {run_folder.RECIPE}"
    else:
        return None
    return Refusal(what, where=str(path), remedy=REPLACE)


def _metrics(path: Path) -> Refusal | None:
    try:
        damaged = read_lines(path)[1]
    except Refusal as refusal:
        return refusal
    remedy = "nothing: a report leaves them out, and a stage that continues writes those after its checkpoint again"
    return Refusal(f"{damaged} lines are damaged", where=str(path), remedy=remedy) if damaged else None


def _results(path: Path) -> Refusal | None:
    try:
        sealed.records(storage.read_regular(path))
    except (OSError, ValueError, RecursionError) as error:
        return Refusal(f"the results are damaged: {error}", where=str(path), remedy=_remove())
    return None


def _remove() -> str:
    return f"delete it and evaluate again: {called.command('evaluate', run='', store='')}"


def _sealed(path: Path) -> bool:
    try:
        return sealed.check(path)
    except (OSError, ValueError):
        return False
