"""Rows to cluster: features of videos as clustering takes them."""

from __future__ import annotations

import numpy as np
import torch


def finite_rows(features: np.ndarray | torch.Tensor) -> torch.Tensor:
    """Features (N, D) in float32 or float64, where they are. Raises ValueError for what is empty, no matrix, or not
    finite."""
    rows = torch.as_tensor(np.array(features) if isinstance(features, np.ndarray) else features).detach()
    if rows.dtype not in (torch.float32, torch.float64):
        rows = rows.to(torch.float32 if rows.dtype in (torch.float16, torch.bfloat16) else torch.float64)
    if rows.ndim != 2 or not rows.numel():
        raise ValueError(f"features to cluster are {tuple(rows.shape)}, and not (N, D), neither of them 0")
    bad = torch.cat([~some.isfinite().all(dim=1) for some in rows.split(2**16)]).nonzero()[:, 0]
    if len(bad):
        raise ValueError(
            f"features to cluster are not finite: row {int(bad[0])} is the first of {len(bad)} such rows of"
            f" {len(rows)}; the network diverged, or the features are damaged"
        )
    return rows


def unit(rows: torch.Tensor) -> torch.Tensor:
    """Rows (N, D) of length 1 in float64; a row of zeros stays one."""
    rows = rows.double()
    largest = rows.abs().amax(dim=1, keepdim=True)  # a length of 1e200 has no square
    rows = rows / torch.where(largest > 0, largest, 1)
    lengths = rows.norm(dim=1, keepdim=True)
    return rows / torch.where(lengths > 0, lengths, 1)
