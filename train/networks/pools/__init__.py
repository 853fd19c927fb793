"""Pools by name: how a backbone's feature map becomes a row. A new one is one module and one line of POOLS."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from train.settings.registry import Registry

POOLS = Registry(
    "pool",
    {
        "global": "train.networks.pools.everywhere:Everywhere",
        "1x2x2": "train.networks.pools.quarters:Quarters",
    },
)


class Pool(nn.Module):
    """Feature maps (B, F, t, h, w) -> rows (B, `cells` x F). Has no weights."""

    cells: ClassVar[int]

    def __init__(self) -> None:  # takes no settings
        super().__init__()
