"""Contrast across streams, in the manner of CMC: a clip in one stream finds the same clip in the other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

from lightning.pytorch.utilities.types import OptimizerLRScheduler
from pydantic import Field, model_validator
from torch import Tensor, nn

from train.hardware.collectives import gather_rows, world_size
from train.losses.nce import contrast_logits, cross_logits, own_key_accuracy, own_key_nce
from train.methods.contrastive import ContrastiveSettings
from train.methods.meters import Meter
from train.methods.method import Method, Start
from train.methods.several_networks import SeveralNetworksSettings
from train.networks.momentum import MomentumPair
from train.networks.network import Network
from train.settings import cannot_be

if TYPE_CHECKING:
    from train.batches.batch import Batch


class CMCSettings(ContrastiveSettings, SeveralNetworksSettings):
    """Of CMC.

    Args:
        streams: Names of the two.
    """

    streams: Annotated[tuple[str, str], Field(strict=False)]
    queue: int = Field(default=2048, ge=0)

    @model_validator(mode="after")
    def _two_streams(self) -> CMCSettings:
        if self.streams[0] == self.streams[1]:
            raise cannot_be(f"{self.streams[0]!r} is one stream", "two streams of other names", "streams")
        return self

    @property
    def reads(self) -> dict[str, tuple[int, ...]]:
        return {stream: (0,) for stream in self.streams}

    @property
    def starts(self) -> dict[str, Start]:
        return {stream: Start(stream, network) for stream, network in self.networks.items()}


class CMC(Method):
    """Our baseline beside CoCLR, after Tian et al. 2020 (arXiv 1906.05849); not a replica of their system.

    Both streams have a query and a key network and a queue. A query's positive is the OTHER stream's key of the same
    clip, its negatives are the other stream's queue; the loss is the sum of both directions. All else is as in InfoNCE.
    With `queue: 0` there are neither queues nor key networks: the negatives are the other stream's clips of the batch,
    over all ranks, which learns more on small sets.

    Values of a step: `loss`; for each stream `<stream>_top1` (fraction of its queries that rank their own key first).
    """

    Settings = CMCSettings
    settings: CMCSettings

    def __init__(self, settings: CMCSettings, channels: Mapping[str, int]) -> None:
        super().__init__(settings, channels)
        built = {stream: network.build(channels[stream]) for stream, network in settings.networks.items()}
        self.first, self.second = (
            MomentumPair(built[stream], settings.queue, settings.momentum) for stream in settings.streams
        )

    @property
    def networks(self) -> dict[str, Network]:
        return dict(zip(self.settings.streams, (self.first.query, self.second.query), strict=True))

    @property
    def starting(self) -> dict[str, list[Mapping[str, nn.Module]]]:
        return dict(zip(self.settings.streams, (self.first.starting, self.second.starting), strict=True))

    def meters(self, global_batch: int) -> dict[str, Meter]:
        candidates = 1 + self.settings.queue if self.settings.queue else global_batch
        meaning = (
            "the share of {} clips that rank the {} of the same clip first among {} candidates; guessing gives {:.3g} %"
        )
        one, two = self.settings.streams
        return {
            f"{stream}_top1": Meter(
                f"{stream} finds {other}", meaning.format(stream, other, candidates, 100 / candidates)
            )
            for stream, other in ((one, two), (two, one))
        }

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        one, two = self.settings.streams
        clips, other_clips = batch.view(one, 0), batch.view(two, 0)
        self.settings.check_batch(len(clips) * world_size())
        temperature = self.settings.temperature
        if self.settings.queue:
            follows = self.begins_step(batch_idx)
            query, key = self.first(clips, batch.to_send(one, 0), follows, seed=self.global_step)
            other_query, other_key = self.second(other_clips, batch.to_send(two, 0), follows, seed=self.global_step)
            logits = contrast_logits(query, other_key, self.second.queued(), temperature)
            other_logits = contrast_logits(other_query, key, self.first.queued(), temperature)
            self.first.remember(key)
            self.second.remember(other_key)
        else:
            rows, other_rows = gather_rows(self.first.query(clips)), gather_rows(self.second.query(other_clips))
            logits = cross_logits(rows, other_rows, temperature)
            other_logits = cross_logits(other_rows, rows, temperature)
        return {
            "loss": own_key_nce(logits) + own_key_nce(other_logits),
            f"{one}_top1": own_key_accuracy(logits, 1),
            f"{two}_top1": own_key_accuracy(other_logits, 1),
        }

    def configure_optimizers(self) -> OptimizerLRScheduler:
        trained = [*self.first.query.parameters(), *self.second.query.parameters()]
        return self.optimised(trained)
