"""How well clusters agree with classes. Nothing is trained on these numbers: what a method assigns while it trains and
what evaluation finds are scored alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score, normalized_mutual_info_score
from sklearn.metrics.cluster import contingency_matrix

from pipeline.errors import Refusal

Names = np.ndarray | torch.Tensor
NO_LABEL = -1


@dataclass(frozen=True)
class SizeGroup:
    """Clusters of `least` to `most` videos: how many there are, of how many videos, and the share of these that have
    their cluster's most frequent class."""

    least: int
    most: int
    clusters: int
    videos: int
    purity: float


def cluster_scores(assignments: Names, labels: Names) -> dict[str, float]:
    """Agreement of clusters with classes; the names of neither matter.

    Args:
        assignments: (N,) the cluster of each video, integers.
        labels: (N,) the class of each video, integers.

    Returns:
        nmi: mutual information over the arithmetic mean of both entropies, 0..1. It grows with the number of clusters.
        ami: the same, adjusted for chance: 0 on average for random clusters, 1 for equal partitions.
        ari: the Rand index, adjusted for chance (Hubert and Arabie 1985).
        accuracy: the share of videos in the right cluster, 0..1, where each class has one cluster and each cluster one
            class, chosen to make the share largest (Hungarian method); all videos of a cluster without a class are
            errors.

    Raises:
        Refusal: nothing to score, lengths that differ, values that are no integers, or videos without a label (-1).
    """
    clusters, classes = _both(assignments, labels)
    if (classes == NO_LABEL).any():
        raise Refusal(
            f"{(classes == NO_LABEL).sum()} of {len(classes)} videos have no label",
            where="cluster_scores",
            remedy="score the labelled videos alone",
        )
    return {
        "nmi": float(normalized_mutual_info_score(classes, clusters, average_method="arithmetic")),
        "ami": float(adjusted_mutual_info_score(classes, clusters, average_method="arithmetic")),
        "ari": float(adjusted_rand_score(classes, clusters)),
        "accuracy": _accuracy(classes, clusters),
    }


def agreement(assignments: Names, labels: Names) -> dict[str, float]:
    """`cluster_scores` of the videos that have a label, and their `purity`; empty where none has one.

    purity: the share of videos that have the most frequent class of their cluster, 0..1. It grows with the number of
    clusters, and is 1 where every video is its own.

    Raises Refusal as `cluster_scores` does, but for videos without a label.
    """
    clusters, classes = _both(assignments, labels)
    labelled = classes != NO_LABEL
    if not labelled.any():
        return {}
    clusters, classes = clusters[labelled], classes[labelled]
    common = contingency_matrix(classes, clusters)
    return cluster_scores(clusters, classes) | {"purity": float(common.max(axis=0).sum() / len(classes))}


def by_size(assignments: Names, labels: Names) -> list[SizeGroup]:
    """Purity of clusters of 1, 2 to 3, 4 to 7, ... labelled videos; sizes that no cluster has are left out."""
    clusters, classes = _both(assignments, labels)
    labelled = classes != NO_LABEL
    if not labelled.any():
        return []
    common = contingency_matrix(classes[labelled], clusters[labelled])
    sizes, right = common.sum(axis=0), common.max(axis=0)
    powers = np.floor(np.log2(sizes)).astype(int)
    groups = []
    for power in np.unique(powers):
        own = powers == power
        least, videos = 2 ** int(power), int(sizes[own].sum())
        groups.append(SizeGroup(least, 2 * least - 1, int(own.sum()), videos, float(right[own].sum() / videos)))
    return groups


def _both(assignments: Names, labels: Names) -> tuple[np.ndarray, np.ndarray]:
    clusters, classes = _names(assignments, "assignments"), _names(labels, "labels")
    if len(clusters) != len(classes):
        raise Refusal(
            f"{len(clusters)} assignments cannot be compared with {len(classes)} labels",
            where="cluster_scores",
            remedy="give both for the same videos in the same order",
        )
    return clusters, classes


def _names(values: Names, what: str) -> np.ndarray:
    """(N,) integers, N at least 1."""
    names = values.cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
    if names.ndim != 1 or not len(names) or not np.issubdtype(names.dtype, np.integer):
        raise Refusal(
            f"{what} are {names.dtype} {names.shape}", where="cluster_scores", remedy="integers (N,), N at least 1"
        )
    return names


def _accuracy(classes: np.ndarray, clusters: np.ndarray) -> float:
    common = contingency_matrix(classes, clusters)  # videos of each class (row) in each cluster (column)
    return float(common[linear_sum_assignment(common, maximize=True)].sum() / len(classes))
