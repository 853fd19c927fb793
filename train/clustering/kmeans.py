"""k-means, on rows as they are or on their directions."""

from __future__ import annotations

import numpy as np
import torch

from train.clustering.rows import finite_rows, unit
from train.settings.arguments import check_number

ITERATIONS = 25
STARTS = 3  # of which the best is taken


def kmeans(features: np.ndarray | torch.Tensor, count: int, spherical: bool = False, seed: int = 0) -> np.ndarray:
    """Clusters of rows about `count` means (faiss, on the CPU), the best of three starts that follow from the seed.

    spherical: rows and means are made unit first, so that their cosine decides; else the Euclidean distance does.

    Args:
        features: (N, D).
        count: of clusters, 1 to N.

    Returns:
        int64 (N,), values below `count`, of which some may be absent where rows are equal.

    Raises:
        ValueError: features that are not (N, D), empty or not finite; a count out of range.
    """
    import faiss  # here, so that a broken or doubled installation can be told before it is imported

    rows = finite_rows(features)
    check_number("count", count, whole=True, least=1)
    if count > len(rows):
        raise ValueError(f"{len(rows)} rows cannot make {count} clusters: give a count of at most {len(rows)}")
    points = np.ascontiguousarray((unit(rows) if spherical else rows).numpy(force=True), dtype=np.float32)
    found = faiss.Kmeans(
        points.shape[1],
        count,
        niter=ITERATIONS,
        nredo=STARTS,
        seed=seed,
        spherical=spherical,
        min_points_per_centroid=1,  # faiss would warn of few, and draw a part of many
        max_points_per_centroid=len(points),
    )
    found.train(points)
    _, nearest = found.index.search(points, 1)
    return nearest[:, 0].astype(np.int64)
