"""The mean over time and space, as most papers pool."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from train.networks.pools import Pool


class Everywhere(Pool):
    """Feature maps (B, F, t, h, w) -> (B, F)."""

    cells: ClassVar[int] = 1

    def forward(self, maps: Tensor) -> Tensor:
        return maps.mean(dim=(2, 3, 4))
