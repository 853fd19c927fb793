"""GOCA's pool, which keeps where in the picture something happens."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor
from torch.nn import functional

from train.networks.pools import Pool


class Quarters(Pool):
    """Feature maps (B, F, t, h, w) -> (B, 4 F): the means over time and a quarter of the picture, four in a row a
    feature.

    Quarters of an odd side share its middle row, or column.

    Source: Coskun et al., GOCA (arXiv 2207.10158), released code (docs/methods.md 3.2).
    """

    cells: ClassVar[int] = 4

    def forward(self, maps: Tensor) -> Tensor:
        return functional.adaptive_avg_pool3d(maps, (1, 2, 2)).flatten(1)
