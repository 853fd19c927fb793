"""Class by class what is found and confused, and what changed from one run to another, also in their recipes."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eval import classes
from eval.bank import FeatureBank, again
from eval.protocols import PROTOCOLS
from eval.report import refuse_other_videos
from eval.report.pictures import Matrix, matrix
from eval.report.sheets import Sheet, plain
from eval.runs import bank_path
from eval.table import Cell
from pipeline.errors import Refusal
from pipeline.store import VideoStore
from pipeline.terminal import visible


@dataclass(frozen=True)
class Classwise:
    """R@1 of each class in percent, and confusion matrices by what they are of."""

    sheet: Sheet
    matrices: dict[str, Matrix]


def by_class(
    columns: Mapping[str, Sequence[tuple[Path, str]]], stream: str, protocol: str, store: VideoStore
) -> Classwise:
    """For every column the mean over its runs, and where there are two what changed, the largest rise first.

    columns: name -> (run, stage) whose trained network on `stream` is meant.

    Raises:
        Refusal: a run whose features are not there, or are of other videos than the store's.
    """
    counts: dict[str, np.ndarray] = {}
    recalls: dict[str, dict[int, float]] = {}
    queries: dict[int, int] = {}
    for name, runs in columns.items():
        found = [_confusion(run, stage, stream, protocol, store) for run, stage in runs]
        scores = [classes.by_class(one) for one in found]
        counts[name] = np.sum(found, axis=0)
        queries = {score.label: score.queries for score in scores[0]}
        shares = [{score.label: score.recall for score in one} for one in scores]
        recalls[name] = {label: statistics.fmean(share[label] for share in shares) for label in queries}
    rows: list[list[Cell]] = []
    for label, count in queries.items():
        values = [100 * recall[label] for recall in recalls.values()]
        rows.append([store.classes[label], count, *values, *([values[1] - values[0]] if len(values) == 2 else [])])
    if len(columns) == 2:
        rows.sort(key=lambda row: -float(row[-1] or 0))
        rows = [[*row[:-1], f"{row[-1]:+.1f}"] for row in rows]
    head = ["class", "test videos", *columns, *(["change"] if len(columns) == 2 else [])]
    drawn = {name: matrix(one, store.classes) for name, one in counts.items()}
    if len(columns) == 2:
        before, after = counts
        drawn[f"from {before} to {after}"] = matrix(counts[after], store.classes, counts[before])
    sheet = plain(f"classes-{stream}", f"R@1 class by class, {stream}", head, rows)
    # A template joins them with texts of its own, and so takes them for text that is safe already.
    return Classwise(sheet, {visible(name): one for name, one in drawn.items() if one})


def _confusion(run: Path, stage: str, stream: str, protocol: str, store: VideoStore) -> np.ndarray:
    """(C, C), see `classes.confusion`."""
    path = bank_path(run, store, stage, "trained", protocol, stream)
    if not path.is_file():
        raise Refusal("the features of the run are not there", where=str(path), remedy=again())
    bank = FeatureBank.load(path)
    refuse_other_videos(bank, store, str(path))
    tested, gallery = bank.rows("test"), bank.rows("train")
    centre = PROTOCOLS[protocol].centre
    found = classes.found_classes(bank.features[tested], bank.features[gallery], bank.labels[gallery], centre)
    return classes.confusion(bank.labels[tested], found, len(store.classes))


def of_recipes(recipes: Mapping[str, dict[str, Any]]) -> Sheet:
    """Keys of which recipes say different things, a column for each recipe; of a stage that not all of them have, its
    method alone."""
    stages = [{stage["name"]: str(stage.get("method", "yes")) for stage in of["stages"]} for of in recipes.values()]
    own = [name for name in dict.fromkeys(name for of in stages for name in of) if any(name not in of for of in stages)]
    rows: list[list[Cell]] = [[f"stages.{name}", *(of.get(name) for of in stages)] for name in own]
    flat = [dict(_flat(recipe)) for recipe in recipes.values()]
    for key in dict.fromkeys(key for values in flat for key in values):
        said = [values.get(key) for values in flat]
        if key != "title" and len(set(said)) > 1 and not key.startswith(tuple(f"stages.{name}." for name in own)):
            rows.append([key, *said])
    return plain("differences", "What differs between the recipes", ("key", *recipes), rows)


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Each key of a recipe that holds no others, with what it says; stages by their names."""
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _flat(inner, f"{key}.{name}".lstrip("."))
    elif isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        for number, item in enumerate(value):
            yield from _flat(item, f"{key}.{item.get('name', number)}")
    else:
        yield key, str(value)
