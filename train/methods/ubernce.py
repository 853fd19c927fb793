"""UberNCE: InfoNCE to which labels tell the positives, an oracle for what mining could reach at best."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from train.losses.nce import Reduction, label_positives, multi_positive_nce, positive_accuracy
from train.methods.positives import SeveralPositives
from train.settings import check_choice

if TYPE_CHECKING:
    from train.loader import Batch


class UberNCE(SeveralPositives):
    """Han et al. 2020, section 3.1: every key in the queue of the query's class is a positive, and the own key.

    Uses labels, so what it learns is not self-supervised. A video without a label has its own key alone.

    Args:
        reduction: of several positives, "mean_of_logs" (released code) or "log_of_sum" (as CoCLR's loss).
        self_drop: Probability, a coin for the whole batch, that the own key is a negative where there are others. 0 is the
            released code; with .9 and "log_of_sum" nothing but where the positives come from differs from CoCLR.
        settings: as of InfoNCE; `queue` is at least 1.

    Values of a step: those of InfoNCE, and `positive_top1` (fraction of queries that rank any positive first).

    Raises:
        UsageError: as InfoNCE, an unknown reduction, and a probability out of range.
    """

    kind: ClassVar[str] = "clips of their class"

    def __init__(
        self, stream: str, reduction: Reduction = "mean_of_logs", self_drop: float = 0.0, **settings: Any
    ) -> None:
        check_choice("method.reduction", reduction, Reduction)
        super().__init__(stream, self_drop, **settings)
        self.save_hyperparameters({"reduction": reduction})

    def compared(self, logits: Tensor, batch: Batch) -> dict[str, Tensor]:
        assert self.queue is not None
        positives = label_positives(batch.labels, self.queue.labels)
        return {
            "loss": multi_positive_nce(logits, positives, self.hparams["reduction"], self.drops_self()),
            "positive_top1": positive_accuracy(logits, positives, 1),
        }

    def remember(self, key: Tensor, batch: Batch) -> None:
        assert self.queue is not None
        self.queue.enqueue(key, labels=batch.labels)
