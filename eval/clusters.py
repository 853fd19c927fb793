"""How well clusters agree with classes: nothing is trained on these numbers."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score, normalized_mutual_info_score
from sklearn.metrics.cluster import contingency_matrix

from eval.retrieval import NO_LABEL
from pipeline.errors import Refusal


def cluster_scores(assignments: np.ndarray | torch.Tensor, labels: np.ndarray | torch.Tensor) -> dict[str, float]:
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
    clusters, classes = _names(assignments, "assignments"), _names(labels, "labels")
    if len(clusters) != len(classes):
        raise Refusal(
            f"{len(clusters)} assignments cannot be compared with {len(classes)} labels",
            where="eval.clusters.cluster_scores",
            remedy="give both for the same videos in the same order",
        )
    if (classes == NO_LABEL).any():
        raise Refusal(
            f"{(classes == NO_LABEL).sum()} of {len(classes)} videos have no label",
            where="eval.clusters.cluster_scores",
            remedy="score the labelled videos alone",
        )
    return {
        "nmi": float(normalized_mutual_info_score(classes, clusters, average_method="arithmetic")),
        "ami": float(adjusted_mutual_info_score(classes, clusters, average_method="arithmetic")),
        "ari": float(adjusted_rand_score(classes, clusters)),
        "accuracy": _accuracy(classes, clusters),
    }


def _names(values: np.ndarray | torch.Tensor, what: str) -> np.ndarray:
    """(N,) integers, N at least 1."""
    names = values.cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
    if names.ndim != 1 or not len(names) or not np.issubdtype(names.dtype, np.integer):
        raise Refusal(
            f"{what} are {names.dtype} {names.shape}",
            where="eval.clusters.cluster_scores",
            remedy="integers (N,), N at least 1",
        )
    return names


def _accuracy(classes: np.ndarray, clusters: np.ndarray) -> float:
    common = contingency_matrix(classes, clusters)  # videos of each class (row) in each cluster (column)
    return float(common[linear_sum_assignment(common, maximize=True)].sum() / len(classes))
