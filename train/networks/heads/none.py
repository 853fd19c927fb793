"""A network without a head: losses compare what the pool gives."""

from __future__ import annotations

from typing import ClassVar

from train.networks.heads import Head


class NoHead(Head):
    """Nothing."""

    unit: ClassVar[bool] = False

    def __init__(self, in_features: int) -> None:
        super().__init__()
        self.size = 0
