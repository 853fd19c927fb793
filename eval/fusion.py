"""Late fusion of streams: class probabilities are averaged, similarities are summed (CoCLR, two-stream results), or
features averaged (GOCA).

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
    return _weighted("fuse_probabilities", probabilities, weights, share=True)


def fuse_features(*features: Rows, weights: Sequence[float] | None = None) -> Rows:
    """The weighted mean of features (N, D), one per stream, of the same videos in the same order.

    Raises Refusal as `fuse_probabilities` does, also for streams whose networks have features of other lengths.
    """
    return _weighted("fuse_features", features, weights, share=True)


def fuse_similarities(*similarities: Rows, weights: Sequence[float] | None = None) -> Rows:
    """The sum of similarity matrices (Q, G), one per stream, of the same videos in the same order, each times its
    weight.

    Raises Refusal as `fuse_probabilities` does.
    """
    return _weighted("fuse_similarities", similarities, weights, share=False)


def _weighted(name: str, parts: Sequence[Rows], weights: Sequence[float] | None, share: bool) -> Rows:
    """The sum of the parts, each times its weight or its share of all weights."""
    _refuse_unlike(parts)
    given = np.ones(len(parts)) if weights is None else np.asarray(weights, dtype=float)
    if given.shape != (len(parts),) or not np.isfinite(given).all() or (given < 0).any() or not given.sum():
        raise Refusal(
            f"{len(parts)} streams cannot be weighted by {weights}",
            where=f"eval.fusion.{name}",
            remedy="give one number >= 0 per stream, not all of them 0",
        )
    scaled = [float(w) * part for w, part in zip(given / given.sum() if share else given, parts, strict=True)]
    return sum(scaled[1:], start=scaled[0])


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
