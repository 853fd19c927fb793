"""InfoNCE on one stream: two clips of a video find each other among clips of other videos."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from pydantic import Field
from torch import Tensor

from train.hardware.collectives import gather_rows, world_size
from train.losses.nce import contrast_logits, in_batch_logits, own_key_nce
from train.methods import meters
from train.methods.contrastive import OneStream, OneStreamSettings, own_key_values

if TYPE_CHECKING:
    from train.batches.batch import Batch


class InfoNCESettings(OneStreamSettings):
    """Of InfoNCE."""

    queue: int = Field(default=2048, ge=0)


class InfoNCE(OneStream):
    """Stage one of CoCLR (Han et al. 2020): MoCo's InfoNCE with a momentum encoder and a queue of keys.

    The first clip is the query, the second one the key. With `queue: 0` there is neither queue nor momentum encoder:
    both clips are compared with all other clips of the batch over all ranks (SimCLR's NT-Xent), which learns faster
    on small sets.

    Values of a step: `loss`, `contrast_top1` and `contrast_top5` (fraction of queries whose own key ranks first or
    among the first five).
    """

    Settings = InfoNCESettings
    settings: InfoNCESettings

    def meters(self, global_batch: int) -> dict[str, meters.Meter]:
        return meters.own_key(1 + self.settings.queue if self.settings.queue else 2 * global_batch - 1)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        first = batch.view(self.settings.stream, 0)
        self.settings.check_batch(len(first) * world_size())
        if not self.settings.queue:
            # One pass, so that both clips share batch-norm statistics.
            both = torch.cat([first, batch.view(self.settings.stream, 1)])
            rows, other_rows = self.pair.query(both).chunk(2)
            logits = in_batch_logits(gather_rows(rows), gather_rows(other_rows), self.settings.temperature)
            return {"loss": own_key_nce(logits), **own_key_values(logits)}
        second = batch.to_send(self.settings.stream, 1)
        query, key = self.pair(first, second, self.begins_step(batch_idx), seed=self.global_step)
        logits = contrast_logits(query, key, self.pair.queued(), self.settings.temperature)
        self.pair.remember(key)
        return {"loss": own_key_nce(logits), **own_key_values(logits)}
