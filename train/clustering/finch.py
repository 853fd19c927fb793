"""FINCH: clusters that follow from every row's nearest row alone, without a number of clusters or a threshold to
choose."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from train.settings.arguments import check_choice

Metric = Literal["cosine"]
# Distances closer than this are equal. A matrix product rounds the same distance differently (by 1e-16) from one place
# of a block to the next; without it, identical rows would have different neighbours on other machines.
TIE = 1e-12
PAIRS_AT_ONCE = 2**23  # bounds the memory of a block of distances: 64 MiB


@dataclass(frozen=True)
class Partitions:
    """Ever coarser partitions of N rows: column p + 1 merges clusters of column p."""

    labels: np.ndarray  # int64 (N, P), P >= 1; in each column clusters are numbered by their lowest row
    counts: tuple[int, ...]  # clusters of each column, falling


def finch(features: np.ndarray | torch.Tensor, metric: Metric = "cosine") -> Partitions:
    """Sarfraz et al. 2019, "Efficient Parameter-free Clustering Using First Neighbor Relations", equation 1, as
    released.

    Two rows are linked where one is the other's nearest, or both have the same nearest. What is linked, also through
    others, is one cluster. The clusters' means are then clustered in the same way, over and over, without links longer
    than the longest one between rows (a link counts double where both are each other's nearest). It ends where nothing
    merges, where everything would become one cluster, or after a partition that merged a single pair. SLIC trains on
    the first one.

    Everything is computed in float64 on the CPU, with exact neighbours: the same rows give the same partitions. Among
    equal distances (to 1e-12) the lowest row is the nearest. A row of zeros has no direction: its distance to every row
    is 1.

    Args:
        features: (N, D), N and D at least 1; their lengths do not change the first partition, but the means of the
            others.
        metric: "cosine", 1 - cos; the only one.

    Returns:
        At least one partition; all its clusters have two rows or more, unless N is 1.

    Raises:
        ValueError: features that are not (N, D), empty, or not finite (names the first such row); an unknown metric.
    """
    check_choice("metric", metric, Metric)
    rows = _rows(features)
    directions = _directions(rows)
    nearest = _nearest(directions)
    labels = _linked(directions, nearest, np.inf)
    longest = _longest_link(directions, nearest)
    columns, counts = [labels], [int(labels.max()) + 1]
    merged = 0
    while merged != 1:
        directions = _directions(_means(rows, columns[-1]))
        labels = _linked(directions, _nearest(directions), longest)
        count = int(labels.max()) + 1
        merged = counts[-1] - count
        if merged == 0 or count == 1:
            break
        columns.append(labels[columns[-1]])
        counts.append(count)
    return Partitions(np.stack(columns, axis=1), tuple(counts))


def _rows(features: np.ndarray | torch.Tensor) -> np.ndarray:
    """Features (N, D) as float64."""
    if isinstance(features, torch.Tensor):
        features = features.detach().to("cpu", torch.float64).numpy()
    rows = np.asarray(features, dtype=np.float64)
    if rows.ndim != 2 or not rows.size:
        raise ValueError(f"features to cluster are {rows.shape}, and not (N, D), neither of them 0")
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(bad):
        raise ValueError(
            f"features to cluster are not finite: row {bad[0]} is the first of {len(bad)} such rows of {len(rows)}; the"
            " network diverged, or the features are damaged"
        )
    return rows


def _directions(rows: np.ndarray) -> np.ndarray:
    """Unit rows; a row of zeros stays one."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1)


def _nearest(directions: np.ndarray) -> np.ndarray:
    """(N,) every row's nearest other row, the lowest one among equals; a row that is alone is its own."""
    found = []
    for block in _blocks(len(directions)):
        similar = directions[block] @ directions.T
        np.fill_diagonal(similar[:, block], -np.inf)
        found.append((similar >= similar.max(axis=1, keepdims=True) - TIE).argmax(axis=1))
    return np.concatenate(found)


def _linked(directions: np.ndarray, nearest: np.ndarray, longest: float) -> np.ndarray:
    """(N,) clusters of what is linked by no more than `longest`, numbered by their lowest row.

    Of the links between rows that have the same nearest row, up to N squared, few are looked at. Both rows are at least
    as near to that nearest row as to each other, so that it links them, too, wherever their own link is kept; unless it
    is each other's nearest with one of them, and their link, which counts double, too long. So links to that one are.
    """
    rows = np.arange(len(nearest))
    beyond = nearest[nearest]
    mutual = beyond == rows
    beside = np.flatnonzero(mutual[nearest] & ~mutual)
    first, second = np.concatenate([rows, rows[beside]]), np.concatenate([nearest, beyond[beside]])
    weights = np.concatenate([1 + mutual, np.ones(len(beside))])
    kept = weights * _distances(directions, first, second) <= longest + TIE
    links = csr_array((np.ones(kept.sum()), (first[kept], second[kept])), shape=(len(rows), len(rows)))
    return connected_components(links, directed=False)[1].astype(np.int64)


def _longest_link(directions: np.ndarray, nearest: np.ndarray) -> float:
    """The longest of all links, those of each other's nearest rows doubled."""
    rows = np.arange(len(nearest))
    weights = 1 + (nearest[nearest] == rows)
    longest = (weights * _distances(directions, rows, nearest)).max()
    order = np.argsort(nearest, kind="stable")
    for together in np.split(order, np.flatnonzero(np.diff(nearest[order])) + 1):  # rows of the same nearest row
        members = directions[together]
        for block in _blocks(len(members)):
            longest = max(longest, 1 - (members[block] @ members.T).min())
    return float(longest)


def _distances(directions: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return 1 - np.einsum("nd,nd->n", directions[first], directions[second])


def _means(rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Means of the rows of each cluster."""
    members = csr_array((np.ones(len(rows)), (labels, np.arange(len(rows)))))
    return (members @ rows) / np.bincount(labels)[:, None]


def _blocks(count: int) -> Iterator[slice]:
    """Slices of `count` rows, each making about PAIRS_AT_ONCE pairs with all of them."""
    step = max(1, PAIRS_AT_ONCE // count)
    for start in range(0, count, step):
        yield slice(start, start + step)
