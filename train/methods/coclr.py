"""CoCLR: InfoNCE whose positives are also found by the other stream, which is frozen meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.optim import Optimizer

from train.hardware.collectives import world_size
from train.losses.nce import NOTHING, contrast_logits, cotraining_positives, multi_positive_nce, positive_accuracy
from train.methods import meters
from train.methods.contrastive import OneStream, OneStreamSettings, coin, own_key_values
from train.methods.method import Start
from train.networks.queue import Queue
from train.networks.settings import OtherRows
from train.settings import cannot_be

if TYPE_CHECKING:
    from train.batches.batch import Batch


class CoCLRSettings(OneStreamSettings):
    """Of CoCLR.

    Args:
        sampler: The network that tells which keys are alike: another stream's, and what differs in it.
        top_k: Keys that the sampler finds. Published: 5.
        self_drop: Probability, a coin for the whole batch, that the own key is not counted as a positive where there
            are others, and is a negative then. .9 is the released training, which gains most of the effect; 0 the
            paper's formula.
        fill_first: Whether the weights stay as they are until the queue is full (released training; before January 2021
            they moved from the first step). Mining begins with a full queue either way.
    """

    sampler: OtherRows
    top_k: int = Field(default=5, ge=0)
    self_drop: float = Field(default=0.9, ge=0, le=1)
    fill_first: bool = True

    @model_validator(mode="after")
    def _two_streams(self) -> CoCLRSettings:
        if self.sampler.stream == self.stream:
            raise cannot_be("the sampler sees the stream that is trained", "the other stream", "sampler.stream")
        self.sampler.of(self)
        return self

    @property
    def reads(self) -> dict[str, tuple[int, ...]]:
        """Of the sampler's stream only the key's clip."""
        return super().reads | {self.sampler.stream: (1,)}

    @property
    def starts(self) -> dict[str, Start]:
        sampler = Start(self.sampler.stream, self.sampler.of(self), optional=(), needed=True)
        return super().starts | {"sampler": sampler}


class CoCLR(OneStream):
    """Han et al. 2020, section 3.2: one stream is trained; the other one, frozen, tells which keys are alike.

    Positives of a query are its own key, all keys of the same recording, and the `top_k` keys of other recordings whose
    clips look most similar to the OTHER stream's network (the sampler), which sees the key's clip. Recordings of a
    batch are queued beside the keys. The loss is -log of the positives' share (MIL-NCE).

    A stage starts from two earlier ones: `start: {query: <stage>, sampler: <stage of the other stream>}` in the recipe.

    Values of a step: those of InfoNCE, `positive_top1` (fraction of queries that rank any positive first), and
    `mined_right` (of the keys that the sampler found, the fraction with the query's label: told where there are labels,
    which nothing is trained on; otherwise 0).
    """

    Settings = CoCLRSettings
    settings: CoCLRSettings

    def __init__(self, settings: CoCLRSettings, channels: Mapping[str, int]) -> None:
        super().__init__(settings, channels)
        self.sampler = settings.sampler.of(settings).build(channels[settings.sampler.stream]).frozen()
        self.sampled = Queue(settings.queue, self.sampler.size(self.sampler.layers[-1]))

    @property
    def starting(self) -> dict[str, list[Mapping[str, nn.Module]]]:
        return super().starting | {"sampler": [self.sampler.parts]}

    def meters(self, global_batch: int) -> dict[str, meters.Meter]:
        return meters.own_key(1 + self.settings.queue) | meters.positive("clips that the other stream finds alike")

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        first, second = batch.view(self.settings.stream, 0), batch.to_send(self.settings.stream, 1)
        self.settings.check_batch(len(first) * world_size())
        query, key = self.pair(first, second, self.begins_step(batch_idx), seed=self.global_step)
        logits = contrast_logits(query, key, self.pair.queued(), self.settings.temperature)
        with torch.no_grad():
            seen = self.sampler(batch.view(self.settings.sampler.stream, 1))
        queue, top_k = self.pair.queue, self.settings.top_k
        positives = cotraining_positives(
            seen, self.sampled.features, batch.sources, queue.sources, top_k, mine=queue.full
        )
        values = {
            "loss": multi_positive_nce(logits, positives, drop_self=coin(self.settings.self_drop, self.global_step)),
            "positive_top1": positive_accuracy(logits, positives, 1),
            "mined_right": _mined_right(positives[:, 1:], batch, queue),
            **own_key_values(logits),
        }
        self.pair.remember(key, labels=batch.labels, sources=batch.sources)
        if self.pair.learning:
            self.sampled.enqueue(seen)
        return values

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: Optimizer | LightningOptimizer,
        optimizer_closure: Callable[[], Any] | None = None,
    ) -> None:
        """Steps that only fill the queue are counted and move nothing but batch-norm statistics."""
        if self.settings.fill_first and not self.pair.queue.full and optimizer_closure is not None:
            optimizer_closure()
            optimizer.zero_grad()
            return
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)


def _mined_right(positives: Tensor, batch: Batch, queue: Queue) -> Tensor:
    """Mean over rows, each the share among its labelled positives of other recordings; 0 where it has none."""
    known = (batch.labels[:, None] != NOTHING) & (queue.labels != NOTHING)
    mined = positives & known & (batch.sources[:, None] != queue.sources)
    right = mined & (batch.labels[:, None] == queue.labels)
    return (right.sum(dim=1) / mined.sum(dim=1).clamp(min=1)).mean()
