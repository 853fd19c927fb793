"""The projection head of SLIC."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from train.networks.heads import Dim, Head


class SLICHead(Head):
    """Linear F->`hidden` -> batch norm -> ReLU -> linear `hidden`->`dim`; rows keep their length.

    Source: Khorasgani et al., SLIC (arXiv 2206.12534), released code (docs/methods.md 3.5).
    """

    unit: ClassVar[bool] = False

    def __init__(self, in_features: int, dim: Dim = 128, hidden: Dim = 2048) -> None:
        super().__init__(nn.Linear(in_features, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, dim))
        self.size = dim
