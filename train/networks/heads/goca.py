"""The projection head of GOCA."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from train.networks.heads import Dim, Head


class GOCAHead(Head):
    """Linear F->`hidden` -> batch norm -> ReLU -> linear -> batch norm -> ReLU -> linear `hidden`->`dim`; unit rows.

    Linear weights are drawn from N(0, .01), biases begin at zero.

    Source: Coskun et al., GOCA (arXiv 2207.10158), released code (docs/methods.md 3.5).
    """

    unit: ClassVar[bool] = True

    def __init__(self, in_features: int, dim: Dim = 128, hidden: Dim = 2048) -> None:
        super().__init__(
            nn.Linear(in_features, hidden),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Linear(hidden, dim),
        )
        self.size = dim
        for layer in self:
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=0.01)
                nn.init.zeros_(layer.bias)
