"""Late fusion of streams: class probabilities are averaged, similarities are summed (CoCLR, two-stream results).

Streams are arrays or tensors, not both; the result is of their kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch

from pipeline.errors import Refusal

Rows = TypeVar("Rows", np.ndarray, torch.Tensor)


def fuse_probabilities(*probabilities: Rows, weights: Sequence[float] | None = None) -> Rows:
    """The weighted mean of class probabilities.

    Args:
        probabilities: one (N, C) per stream, the same videos and classes in the same order.
        weights: one number >= 0 per stream; they are normalised to sum 1. None: equal weights. CoCon's ensemble: 2, 2,
            1, 1 for RGB, flow, segmentation and key points.

    Returns:
        (N, C). Rows that sum to 1 keep doing so.

    Raises:
        Refusal: no stream, streams of several shapes or kinds, or weights that are not meant for them.
    """
    _refuse_unlike(probabilities)
    shares = np.ones(len(probabilities)) if weights is None else np.asarray(weights, dtype=float)
    if shares.shape != (len(probabilities),) or not np.isfinite(shares).all() or (shares < 0).any() or not shares.sum():
        raise Refusal(
            f"{len(probabilities)} streams cannot be weighted by {weights}",
            where="eval.fusion.fuse_probabilities",
            remedy="give one number >= 0 per stream, not all of them 0",
        )
    parts = [float(share) * part for share, part in zip(shares / shares.sum(), probabilities, strict=True)]
    return sum(parts[1:], start=parts[0])


def fuse_similarities(*similarities: Rows) -> Rows:
    """The sum of similarity matrices (Q, G), one per stream, of the same videos in the same order.

    Raises:
        Refusal: no stream, or streams of several shapes or kinds.
    """
    _refuse_unlike(similarities)
    return sum(similarities[1:], start=similarities[0])


def _refuse_unlike(parts: Sequence[Rows]) -> None:
    if len({tuple(p.shape) for p in parts}) != 1:
        raise Refusal(
            f"streams to be fused must cover the same rows and columns: {[tuple(p.shape) for p in parts]}",
            where="eval.fusion",
            remedy="use the videos that every stream has, in one order",
        )
    if len({isinstance(p, torch.Tensor) for p in parts}) != 1:
        raise Refusal(
            "streams to be fused are arrays in part and tensors in part",
            where="eval.fusion",
            remedy="turn all of them into one kind",
        )
