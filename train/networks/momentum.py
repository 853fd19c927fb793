"""Networks that follow another one slowly (MoCo)."""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def momentum_update(key: nn.Module, query: nn.Module, momentum: float) -> None:
    """key <- momentum * key + (1 - momentum) * query, over parameters only: batch-norm statistics stay apart."""
    for kept, followed in zip(key.parameters(), query.parameters(), strict=True):
        kept.mul_(momentum).add_(followed, alpha=1 - momentum)
