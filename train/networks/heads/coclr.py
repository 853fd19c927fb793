"""The projection head of CoCLR and ViCC."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from train.networks.heads import Dim, Head


class CoCLRHead(Head):
    """Linear F->F -> ReLU -> linear F->`dim`, without batch norm; unit rows.

    The released heads are 1x1x1 convolutions on the pooled feature: the same numbers in another shape.

    Source: Han et al., CoCLR (arXiv 2010.09709) and Toering et al., ViCC (arXiv 2106.10137), as released.
    """

    unit: ClassVar[bool] = True

    def __init__(self, in_features: int, dim: Dim = 128) -> None:
        super().__init__(nn.Linear(in_features, in_features), nn.ReLU(), nn.Linear(in_features, dim))
        self.size = dim
