"""UberNCE: InfoNCE to which labels tell the positives, an oracle for what mining could reach at best."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field
from torch import Tensor

from train.hardware.collectives import world_size
from train.losses.nce import Reduction, contrast_logits, label_positives, multi_positive_nce, positive_accuracy
from train.methods import meters
from train.methods.contrastive import OneStream, OneStreamSettings, coin, own_key_values

if TYPE_CHECKING:
    from train.batches.batch import Batch


class UberNCESettings(OneStreamSettings):
    """Of UberNCE.

    Args:
        reduction: Of several positives, "mean_of_logs" (released code) or "log_of_sum" (as CoCLR's loss).
        self_drop: Probability, a coin for the whole batch, that the own key is a negative where there are others. 0 is
            the released code; with .9 and "log_of_sum" nothing but where the positives come from differs from CoCLR.
    """

    reduction: Reduction = "mean_of_logs"
    self_drop: float = Field(default=0.0, ge=0, le=1)


class UberNCE(OneStream):
    """Han et al. 2020, section 3.1: every key in the queue of the query's class is a positive, and the own key.

    Uses labels, so what it learns is not self-supervised. A video without a label has its own key alone.

    Values of a step: those of InfoNCE, and `positive_top1` (fraction of queries that rank any positive first).
    """

    Settings = UberNCESettings
    settings: UberNCESettings

    def meters(self, global_batch: int) -> dict[str, meters.Meter]:
        return meters.own_key(1 + self.settings.queue) | meters.positive("clips of their class")

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        first, second = batch.view(self.settings.stream, 0), batch.to_send(self.settings.stream, 1)
        self.settings.check_batch(len(first) * world_size())
        query, key = self.pair(first, second, self.begins_step(batch_idx), seed=self.global_step)
        logits = contrast_logits(query, key, self.pair.queued(), self.settings.temperature)
        positives = label_positives(batch.labels, self.pair.queue.labels)
        drop_self = coin(self.settings.self_drop, self.global_step)
        loss = multi_positive_nce(logits, positives, self.settings.reduction, drop_self)
        self.pair.remember(key, labels=batch.labels)
        return {"loss": loss, "positive_top1": positive_accuracy(logits, positives, 1), **own_key_values(logits)}
