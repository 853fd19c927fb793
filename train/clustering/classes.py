"""How well assignments to prototypes agree with classes, within a batch; nothing is trained on it."""

from __future__ import annotations

import torch
from torch import Tensor

from train.hardware.precision import in_full_precision
from train.losses.nce import NOTHING


@torch.no_grad()
@in_full_precision
def class_agreement(log_q: Tensor, labels: Tensor) -> Tensor:
    """Of the labelled rows, the share whose most alike other labelled row has their label, a scalar; 0 without any.

    Alike is what shares its prototypes: the largest sum over prototypes of sqrt(q q') (Bhattacharyya 1943). It needs no
    prototype for a class, and tells something of a few rows, unlike a matching of prototypes and classes. Guessing is
    right about as often as two videos have one class.

    Args:
        log_q: (B, K), as `assign` gives it.
        labels: int64 (B,), -1 where there is none.

    Raises:
        ValueError: not a label for each row.
    """
    if log_q.ndim != 2 or labels.shape != log_q.shape[:1]:
        raise ValueError(f"assignments {tuple(log_q.shape)} and labels {tuple(labels.shape)}, not (B, K) and (B,)")
    known = labels != NOTHING
    shares = (log_q / 2).exp()
    alike = (shares @ shares.T).masked_fill(~known, -1.0).fill_diagonal_(-1.0)
    nearest = alike.argmax(dim=1)
    right = (
        known
        & known[nearest]
        & (labels[nearest] == labels)
        & (nearest != torch.arange(len(labels), device=labels.device))
    )
    return right.sum() / known.sum().clamp(min=1)
