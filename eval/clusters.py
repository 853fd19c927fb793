"""Clusters of a feature bank's videos, found without labels, and how well they agree with classes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from train.clustering.agreement import NO_LABEL, SizeGroup, agreement, by_size, cluster_scores
from train.clustering.finch import finch
from train.clustering.kmeans import kmeans

__all__ = ["Clustering", "cluster", "cluster_scores", "measure"]

BETWEEN = "views_kmeans"  # of the clusters of several views
ALGORITHMS = {
    "kmeans": "k-means",
    "spherical_kmeans": "spherical k-means",
    "finch": "FINCH, first partition",
    "finch_merged": "FINCH, merged to the number of classes",
}


@dataclass(frozen=True)
class Clustering:
    """`assignments` (N,) to `count` clusters by one of ALGORITHMS; `scores` as `train.clustering.agreement.agreement`
    gives them, and `sizes` as `by_size`; both empty without labels."""

    algorithm: str
    count: int
    assignments: np.ndarray
    scores: dict[str, float]
    sizes: list[SizeGroup]


def cluster(features: np.ndarray, labels: np.ndarray, count: int = 0, seed: int = 0) -> list[Clustering]:
    """Clusters of rows by every algorithm; labels only score them, and say how many there are where `count` does not.

    Args:
        features: (N, D), the mean of each video's unit features.
        labels: (N,) classes, -1 for none.
        count: of the clusters of k-means; 0: that of the classes, or without labels that of FINCH's first partition.

    Raises:
        ValueError: features that are not (N, D) or not finite. Refusal: labels of another number.
    """
    partitions = finch(features, partitions=1)
    classes = len(np.unique(labels[labels != NO_LABEL]))
    wanted = min(count or classes or partitions.counts[0], len(features))
    first = partitions.labels[:, 0]
    merged = finch(features, clusters=wanted).labels[:, -1] if wanted < partitions.counts[0] else first
    found = {
        "kmeans": kmeans(features, wanted, seed=seed),
        "spherical_kmeans": kmeans(features, wanted, spherical=True, seed=seed),
        "finch": first,
        "finch_merged": merged,
    }
    return [
        Clustering(name, len(np.unique(own)), own, agreement(own, labels), by_size(own, labels))
        for name, own in found.items()
    ]


def measure(features: np.ndarray, labels: np.ndarray, seed: int) -> dict[str, float]:
    """What results record of the clusters of labelled videos: "ALGORITHM_SCORE", as kmeans_nmi, and of FINCH's first
    partition the purity of clusters by their size, as "finch_purity@2-3"."""
    found = cluster(features, labels, seed=seed)
    values = {f"{one.algorithm}_{score}": value for one in found for score, value in one.scores.items()}
    finest = next(one for one in found if one.algorithm == "finch")
    return values | {f"finch_purity@{group.least}-{group.most}": group.purity for group in finest.sizes}


def between(views: Sequence[np.ndarray], labels: np.ndarray, seed: int) -> dict[str, float]:
    """How alike the k-means clusters of several views of the same videos are, as many as there are classes: mean over
    pairs of views, "views_kmeans_nmi" and "views_kmeans_ami" (see `cluster_scores`). CoCon's released code watches both
    while it trains.

    Args:
        views: (N, D) of each, the mean of each video's unit features.
        labels: (N,) classes, -1 for none; they are counted, and say nothing else.
    """
    count = len(np.unique(labels[labels != NO_LABEL]))
    found = [kmeans(features, count, seed=seed) for features in views]
    scores = [cluster_scores(one, other) for one, other in itertools.combinations(found, 2)]
    return {f"{BETWEEN}_{name}": float(np.mean([score[name] for score in scores])) for name in ("nmi", "ami")}
