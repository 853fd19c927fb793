"""Dropout that does not know how many processes share a batch."""

from __future__ import annotations

import torch
from torch import Tensor, distributed, nn

from train.hardware.collectives import world_size


class Dropout(nn.Module):
    """Zeroes a share of the numbers of this rank's rows (B, ...) in training, and divides the others by what is left.

    Masks are drawn for the rows of all ranks, which have one random state, and each rank takes its own: a row loses the
    same numbers on any number of ranks.

    Args:
        share: 0 to 1.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, rows: Tensor) -> Tensor:
        if not self.training or not self.share:
            return rows
        rank = distributed.get_rank() if world_size() > 1 else 0
        drawn = torch.rand((world_size(), *rows.shape), device=rows.device)[rank]
        return torch.where(drawn < self.share, 0.0, rows / max(1 - self.share, torch.finfo(rows.dtype).tiny))
