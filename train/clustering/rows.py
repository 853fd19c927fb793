"""Rows to cluster: features of videos as clustering takes them."""

from __future__ import annotations

import numpy as np
import torch


def finite_rows(features: np.ndarray | torch.Tensor) -> np.ndarray:
    """Features (N, D) as float64 on the CPU. Raises ValueError for what is empty, no matrix, or not finite."""
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


def directions_of(rows: np.ndarray) -> np.ndarray:
    """Rows of length 1; a row of zeros stays one."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1)
