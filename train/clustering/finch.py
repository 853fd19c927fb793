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

from train.clustering.nearest import PAIRS_AT_ONCE, TIE, Neighbours, nearest_rows
from train.clustering.rows import finite_rows, unit
from train.settings.arguments import check_choice, check_number

Metric = Literal["cosine"]


@dataclass(frozen=True)
class Partitions:
    """Ever coarser partitions of N rows: column p + 1 merges clusters of column p."""

    labels: np.ndarray  # int64 (N, P), P >= 1; in each column clusters are numbered by their lowest row
    counts: tuple[int, ...]  # clusters of each column, falling


def finch(
    features: np.ndarray | torch.Tensor,
    metric: Metric = "cosine",
    *,
    partitions: int | None = None,
    clusters: int | None = None,
    neighbours: Neighbours = "exact",
    seed: int = 0,
) -> Partitions:
    """Sarfraz et al. 2019, "Efficient Parameter-free Clustering Using First Neighbor Relations", equation 1, as
    released.

    Two rows are linked where one is the other's nearest, or both have the same nearest. What is linked, also through
    others, is one cluster. The clusters' means are then clustered in the same way, over and over, without links longer
    than the longest one between rows (a link counts double where both are each other's nearest). It ends where nothing
    merges, where everything would become one cluster, or after a partition that merged a single pair. SLIC trains on
    the first one.

    Distances are exact: the same rows give the same partitions on every machine. Among equal distances (to 1e-12) the
    lowest row is the nearest. A row of zeros has no direction: its distance to every row is 1. The search for nearest
    rows runs where the features are, on a CPU or a GPU (`train.clustering.nearest`).

    Args:
        features: (N, D), N and D at least 1; their lengths do not change the first partition, but the means of the
            others.
        metric: "cosine", 1 - cos; the only one.
        partitions: stops after so many; None makes all.
        clusters: the last partition has exactly so many clusters: those of the last one that has as many or more, of
            which the two nearest are merged until it does. Not together with `partitions`.
        neighbours: "exact", or "approximate": for millions of rows, the nearest row of most and a near one of the rest
            (`train.clustering.divisions`); the same seed gives the same partitions on the same machine only.
        seed: of the approximate search; an exact one gives the same for all.

    Returns:
        At least one partition; all its clusters have two rows or more, unless N is 1 or `clusters` asks for other ones.

    Raises:
        ValueError: features that are not (N, D), empty, or not finite (names the first such row); an unknown metric or
            kind of neighbours; more clusters than the first partition has.
    """
    check_choice("metric", metric, Metric)
    check_choice("neighbours", neighbours, Neighbours)
    for name, value in (("partitions", partitions), ("clusters", clusters)):
        if value is not None:
            check_number(name, value, whole=True, least=1)
    if partitions is not None and clusters is not None:
        raise ValueError("partitions and clusters both say where to stop; give one of them")
    rows = finite_rows(features)
    found = Partitions(*_levels(rows, partitions or len(rows), neighbours, seed))
    return found if clusters is None else _merged_to(rows, found, clusters)


def _levels(
    rows: torch.Tensor, partitions: int, neighbours: Neighbours, seed: int
) -> tuple[np.ndarray, tuple[int, ...]]:
    """Labels (N, P) and counts of up to so many partitions."""
    nearest = nearest_rows(rows, neighbours, seed).numpy()
    labels = _linked(rows, nearest, np.inf)
    columns, counts = [labels], [int(labels.max()) + 1]
    longest = _longest_link(rows, nearest) if partitions > 1 and counts[0] > 1 else np.inf
    merged = 0
    while merged != 1 and len(columns) < partitions and counts[-1] > 1:
        means = _means(rows, columns[-1])
        labels = _linked(means, nearest_rows(means, neighbours, seed).numpy(), longest)
        count = int(labels.max()) + 1
        merged = counts[-1] - count
        if merged == 0 or count == 1:
            break
        columns.append(labels[columns[-1]])
        counts.append(count)
    return np.stack(columns, axis=1), tuple(counts)


def _merged_to(rows: torch.Tensor, found: Partitions, clusters: int) -> Partitions:
    """The partitions with more clusters, and one of exactly so many made from the last of those."""
    if clusters > found.counts[0]:
        raise ValueError(f"clusters is {clusters}, but the first partition of these features has {found.counts[0]}")
    finer = [column for column, count in enumerate(found.counts) if count >= clusters]
    labels = found.labels[:, finer[-1]]
    into = np.arange(int(labels.max()) + 1)
    for kept, lost in _nearest_pairs(_means(rows, labels), np.bincount(labels), len(into) - clusters):
        into[into == lost] = kept
    merged = np.unique(into, return_inverse=True)[1].astype(np.int64)[labels]
    columns = [found.labels[:, column] for column in finer if found.counts[column] > clusters]
    counts = [count for count in found.counts if count > clusters]
    return Partitions(np.stack([*columns, merged], axis=1), (*counts, clusters))


def _nearest_pairs(means: torch.Tensor, members: np.ndarray, merges: int) -> Iterator[tuple[int, int]]:
    """The two nearest clusters (the lower first), which then become one with their mean, as often as asked."""
    sizes = torch.from_numpy(members).to(means)
    directions, nearest = unit(means), nearest_rows(means).to(means.device)
    best = (directions * directions[nearest]).sum(1)
    for _ in range(merges):
        one = int((best >= best.max() - TIE).to(torch.uint8).argmax())
        kept, lost = sorted((one, int(nearest[one])))
        yield kept, lost
        means[kept] = (sizes[kept] * means[kept] + sizes[lost] * means[lost]) / (sizes[kept] + sizes[lost])
        sizes[kept] += sizes[lost]
        directions[kept] = unit(means[kept : kept + 1])[0]
        best[lost] = -torch.inf
        gone = best == -torch.inf
        stale = ((nearest == kept) | (nearest == lost)) & ~gone
        stale[kept] = True
        to_kept = (directions @ directions[kept]).masked_fill(gone, -torch.inf)
        nearer = to_kept > best
        nearest[nearer], best[nearer] = kept, to_kept[nearer]
        for row in stale.nonzero()[:, 0].tolist():
            similar = (directions @ directions[row]).masked_fill(gone, -torch.inf)
            similar[row] = -torch.inf
            best[row] = similar.max()
            nearest[row] = int((similar >= best[row] - TIE).to(torch.uint8).argmax())


def _linked(rows: torch.Tensor, nearest: np.ndarray, longest: float) -> np.ndarray:
    """(N,) clusters of what is linked by no more than `longest`, numbered by their lowest row.

    Of the links between rows that have the same nearest row, up to N squared, few are looked at. Both rows are at least
    as near to that nearest row as to each other, so that it links them, too, wherever their own link is kept; unless it
    is each other's nearest with one of them, and their link, which counts double, too long. So links to that one are.
    """
    count = len(nearest)
    own = np.arange(count)
    first, second = own, nearest
    if np.isfinite(longest):
        beyond = nearest[nearest]
        mutual = beyond == own
        beside = np.flatnonzero(mutual[nearest] & ~mutual)
        first, second = np.concatenate([own, own[beside]]), np.concatenate([nearest, beyond[beside]])
        weights = np.concatenate([1 + mutual, np.ones(len(beside))])
        kept = weights * _distances(rows, first, second) <= longest + TIE
        first, second = first[kept], second[kept]
    links = csr_array((np.ones(len(first)), (first, second)), shape=(count, count))
    return connected_components(links, directed=False)[1].astype(np.int64)


def _longest_link(rows: torch.Tensor, nearest: np.ndarray) -> float:
    """The longest of all links, those of each other's nearest rows doubled."""
    own = np.arange(len(nearest))
    weights = 1 + (nearest[nearest] == own)
    longest = float((weights * _distances(rows, own, nearest)).max())
    order = np.argsort(nearest, kind="stable")
    for together in np.split(order, np.flatnonzero(np.diff(nearest[order])) + 1):  # rows of the same nearest row
        members = unit(rows[together])
        for block in _blocks(len(members)):
            longest = max(longest, float(1 - (members[block] @ members.T).min()))
    return longest


def _distances(rows: torch.Tensor, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    found = [
        1 - (unit(rows[first[some]]) * unit(rows[second[some]])).sum(1)
        for some in (slice(start, start + 2**16) for start in range(0, len(first), 2**16))
    ]
    return torch.cat(found).cpu().numpy()


def _means(rows: torch.Tensor, labels: np.ndarray) -> torch.Tensor:
    """Means of the rows of each cluster, float64."""
    where = torch.from_numpy(labels).to(rows.device)
    sums = torch.zeros(int(labels.max()) + 1, rows.shape[1], dtype=torch.float64, device=rows.device)
    for some, into in zip(rows.split(2**16), where.split(2**16), strict=True):
        sums.index_add_(0, into, some.double())
    return sums / where.bincount()[:, None]


def _blocks(count: int) -> Iterator[slice]:
    """Slices of `count` rows, each making about PAIRS_AT_ONCE pairs with all of them."""
    step = max(1, PAIRS_AT_ONCE // count)
    for start in range(0, count, step):
        yield slice(start, start + step)
