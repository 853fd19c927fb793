"""UberNCE: InfoNCE to which labels tell the positives, an oracle for what mining could reach at best."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from train.losses.nce import Reduction, label_positives, multi_positive_nce, positive_accuracy
from train.methods.infonce import InfoNCE
from train.methods.method import Meter
from train.settings import check_choice

if TYPE_CHECKING:
    from train.loader import Batch


class UberNCE(InfoNCE):
    """Han et al. 2020, section 3.1: every key in the queue of the query's class is a positive, and the own key.

    Uses labels, so what it learns is not self-supervised. A video without a label has its own key alone.

    Args:
        reduction: of several positives, "mean_of_logs" (released code) or "log_of_sum" (as CoCLR's loss).
        settings: as of InfoNCE; `queue` is at least 1.

    Values of a step: those of InfoNCE, and `positive_top1` (fraction of queries that rank any positive first).

    Raises:
        UsageError: as InfoNCE, and an unknown reduction.
    """

    in_batch: ClassVar[bool] = False

    def __init__(self, stream: str, reduction: Reduction = "mean_of_logs", **settings: Any) -> None:
        check_choice("method.reduction", reduction, Reduction)
        super().__init__(stream, **settings)
        self.save_hyperparameters({"reduction": reduction})

    def meters(self, global_batch: int) -> dict[str, Meter]:
        return super().meters(global_batch) | {"positive_top1": any_positive("clips of their class")}

    def compared(self, logits: Tensor, batch: Batch) -> dict[str, Tensor]:
        assert self.queue is not None
        positives = label_positives(batch.labels, self.queue.labels)
        return {
            "loss": multi_positive_nce(logits, positives, self.hparams["reduction"]),
            "positive_top1": positive_accuracy(logits, positives, 1),
        }

    def remember(self, key: Tensor, batch: Batch) -> None:
        assert self.queue is not None
        self.queue.enqueue(key, labels=batch.labels)


def any_positive(what: str) -> Meter:
    """The meter of `positive_top1`."""
    meaning = (
        f"the share of clips that rank a positive first: the other clip of their own video, or {what} in the queue"
    )
    return Meter("a positive first", meaning)
