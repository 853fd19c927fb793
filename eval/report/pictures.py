"""What a report draws from feature banks: the confusion matrix, and the map of a stream's features."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from eval.bank import FeatureBank
from eval.feature_map import Sprite, feature_map, sprite
from eval.results import NETWORKS, Record
from pipeline.store import VideoStore

MOST_CLASSES = 120  # of a matrix; above it cells are smaller than a pixel
NAMED_CLASSES = 40  # of a matrix or a legend; above it names cannot be read
GOLDEN = 137.508  # degrees from one hue to the next


@dataclass(frozen=True)
class Cell:
    """A cell of a confusion matrix that is not empty: `share` of the row, or by how much it changed, for the better if
    `right`."""

    row: int
    column: int
    share: float
    right: bool
    words: str


@dataclass(frozen=True)
class Matrix:
    """Cells of a confusion matrix; `names` of its classes, `named` if they are to be written beside it, and `margin`
    the room that they take, in cells."""

    cells: list[Cell]
    names: list[str]
    named: bool
    margin: float


@dataclass(frozen=True)
class Point:
    x: float
    y: float
    hue: float
    words: str


@dataclass(frozen=True)
class Map:
    """Points (each with its place in `sprite`), and the hue of each class where these can be told apart."""

    points: list[Point]
    sprite: Sprite
    legend: list[tuple[str, float]]


def matrix(counts: np.ndarray, names: Sequence[str], before: np.ndarray | None = None) -> Matrix | None:
    """Of a confusion matrix (C, C), with the classes that occur, or of what changed since `before`; None above
    MOST_CLASSES."""
    earlier = np.zeros_like(counts) if before is None else before
    used = np.flatnonzero((counts + earlier).sum(0) + (counts + earlier).sum(1)).tolist()
    if len(used) > MOST_CLASSES:
        return None
    shares = [one / np.maximum(one.sum(1, keepdims=True), 1) for one in (counts, earlier)]
    change = (shares[0] - shares[1])[np.ix_(used, used)]
    cells = []
    for row, column in np.argwhere(change).tolist():
        true, found = used[row], used[column]
        words = f"{names[true]} found {names[found]}: {counts[true, found]} of {counts[true].sum()}"
        if before is not None:
            words += f", {earlier[true, found]} of {earlier[true].sum()} before"
        share = float(change[row, column])
        cells.append(Cell(row, column, abs(share), (row == column) == (share > 0), words))
    own = [names[label] for label in used]
    named = len(own) <= NAMED_CLASSES
    return Matrix(cells, own, named, 0.42 * max(map(len, own)) + 0.6 if named else 0.0)


def drawn_map(bank: FeatureBank, store: VideoStore, split: str, centre: bool) -> Map | None:
    """The videos of a split as points; None where they are too few."""
    found = feature_map(bank.features, bank.rows(split), centre, seed=int(bank.attributes["seed"]))
    if found is None:
        return None
    videos = [bank.video_ids[row] for row in found.rows]
    classes = sorted({int(label) for label in bank.labels[found.rows]})
    hues = {label: place * GOLDEN % 360 for place, label in enumerate(classes)}
    points = [
        Point(
            round(float(x), 2),
            round(float(y), 2),
            round(hues[int(bank.labels[row])], 1),
            f"{store.info(video).label}: {video}",
        )
        for (x, y), row, video in zip(found.places, found.rows, videos, strict=True)
    ]
    legend = [(store.classes[label], round(hue, 1)) for label, hue in hues.items()]
    return Map(points, sprite(store, videos), legend if len(legend) <= NAMED_CLASSES else [])


def best_stream(shown: Iterable[Record], banks: Collection[str]) -> str:
    """Of the streams that have banks, that of the highest R@1 after training."""
    values = {r.stream: r.value for r in shown if r.metric == "R@1" and r.network == NETWORKS[0] and r.stream in banks}
    return max(values, key=values.__getitem__) if values else next(iter(banks))
