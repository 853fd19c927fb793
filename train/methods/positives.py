"""InfoNCE with several positives: what UberNCE, to which labels tell them, and CoCLR, which finds them, have in common."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch

from train.methods.infonce import InfoNCE
from train.methods.method import Meter
from train.settings import check_number

COIN = 0x636F696E  # keeps this random number apart from those of other users of the same seed


class SeveralPositives(InfoNCE):
    """InfoNCE against a queue some of whose keys are positives too, beside the own key.

    Args:
        self_drop: Probability, a coin for the whole batch, that the own key is not counted as a positive where there are
            others, and is a negative then.
        settings: as of InfoNCE; `queue` is at least 1.

    Raises:
        UsageError: as InfoNCE, and a probability out of range.
    """

    in_batch: ClassVar[bool] = False
    kind: ClassVar[str]  # which keys are positives, for people

    def __init__(self, stream: str, self_drop: float, **settings: Any) -> None:
        check_number("method.self_drop", self_drop, least=0, most=1)
        super().__init__(stream, **settings)
        self.save_hyperparameters({"self_drop": self_drop})

    def meters(self, global_batch: int) -> dict[str, Meter]:
        meaning = (
            "the share of clips that rank a positive first: the other clip of their own video, or "
            f"{self.kind} in the queue"
        )
        return super().meters(global_batch) | {"positive_top1": Meter("a positive first", meaning)}

    def drops_self(self) -> bool:
        """The coin of a step: the same on all ranks and after a stop, because it follows from the seed and the step."""
        drawn = np.random.default_rng((COIN, torch.initial_seed() % 2**63, self.global_step)).random()
        return bool(drawn < self.hparams["self_drop"])
