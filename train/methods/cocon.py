"""CoCon: a network for each view of a video predicts its later blocks; similarities in one view hold in the others."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn

from pipeline.errors import UsageError
from train.hardware.collectives import mean_over_pools, world_size
from train.losses.cross_view import cooperation, pool_blocks, synchronisation
from train.methods.dpc import TAKEN, PredictiveSettings, predict, predicted_first
from train.methods.meters import Meter
from train.methods.method import Method, Start
from train.methods.several_networks import SeveralNetworksSettings
from train.networks.network import Network
from train.settings import cannot_be

if TYPE_CHECKING:
    from train.batches.batch import Batch

WEIGHT = 10.0  # published, of both terms


class CoConSettings(PredictiveSettings, SeveralNetworksSettings):
    """Of CoCon.

    Args:
        streams: Names of one or more, all trained together. (The recipe's `clips.streams` sets sizes that differ.)
        temperature: Divides both factors, so that cosines are divided by its square (published, .07: by .0049).
        cooperation: Weight of the difference between the cosines of blocks in one view and in another, for each pair of
            views.
        synchronisation: Weight of the term that brings the two views of a block together, for each pair of views.
        aggregation_settings: `between` is "unit", as published.
    """

    streams: Annotated[tuple[str, ...], Field(strict=False, min_length=1)]
    temperature: float | None = Field(default=0.07, gt=0)
    cooperation: float = Field(default=WEIGHT, ge=0)
    synchronisation: float = Field(default=WEIGHT, ge=0)
    aggregation_settings: dict[str, Any] = Field(default={}, validate_default=True)

    @field_validator("aggregation_settings")
    @classmethod
    def _unit_vectors(cls, given: dict[str, Any]) -> dict[str, Any]:
        return {"between": "unit", **given}

    @model_validator(mode="after")
    def _fit_together(self) -> CoConSettings:
        if len(set(self.streams)) < len(self.streams):
            raise cannot_be(f"{list(self.streams)} has a stream twice", "streams of other names", "streams")
        return self

    @property
    def reads(self) -> dict[str, tuple[int, ...]]:
        return dict.fromkeys(self.streams, (0,))

    @property
    def starts(self) -> dict[str, Start]:
        return {stream: Start(stream, network, TAKEN, TAKEN[1:]) for stream, network in self.networks.items()}

    def check_batch(self, global_batch: int) -> None:
        """As of DPC; and refuses, by UsageError, a single video of which views are to be tied together."""
        super().check_batch(global_batch)
        if global_batch < 2 and len(self.streams) > 1:
            raise UsageError(
                "the views of one video alone are tied to nothing",
                where=f"a batch of {global_batch} (over all ranks)",
                remedy="two videos or more",
            )


class CoCon(Method):
    """Rai et al. 2021 (arXiv 2104.14764): cooperative contrastive learning (docs/methods.md 4.9, 4.10).

    Each view has its own network, which predicts the later blocks of a clip as in DPC. For every pair of views two
    terms are added: the cosines among all blocks of the batch are to be the same in both (cooperation), and the two
    views of a block are to be more alike than those of different blocks (synchronisation). They are over the blocks of
    all ranks, and move both views.

    Values of a step: `loss`; for each stream `<stream>_predicted_top1`, the share of places whose own feature fits the
    prediction best; with several streams `cooperation` and `synchronisation`, means over pairs of views, unweighted.
    """

    Settings = CoConSettings
    settings: CoConSettings

    def __init__(self, settings: CoConSettings, channels: Mapping[str, int]) -> None:
        super().__init__(settings, channels)
        self.encoders = nn.ModuleList(network.build(channels[stream]) for stream, network in settings.networks.items())

    @property
    def networks(self) -> dict[str, Network]:
        return dict(zip(self.settings.streams, self.encoders, strict=True))  # type: ignore[arg-type]

    @property
    def starting(self) -> dict[str, list[Mapping[str, nn.Module]]]:
        return {stream: [network.parts] for stream, network in self.networks.items()}

    def meters(self, global_batch: int) -> dict[str, Meter]:
        meter = predicted_first(self.settings)
        return {f"{stream}_predicted_top1": Meter(f"{stream} right", meter.meaning) for stream in self.settings.streams}

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        given = self.settings
        given.check_batch(len(batch.index) * world_size())
        found = {stream: predict(network, batch.view(stream, 0), given) for stream, network in self.networks.items()}
        loss = torch.stack([of for of, _, _ in found.values()]).sum()
        values = {f"{stream}_predicted_top1": right for stream, (_, right, _) in found.items()}
        pooled = [pool_blocks(blocks) for _, _, blocks in found.values()]
        pairs = list(itertools.combinations(pooled, 2))
        for name, term in (("cooperation", cooperation), ("synchronisation", synchronisation)):
            if pairs:
                terms = torch.stack([mean_over_pools(term, 0, one, other) for one, other in pairs])
                loss = loss + getattr(given, name) * terms.sum()
                values[name] = terms.detach().mean()
        return {"loss": loss, **values}

    def configure_optimizers(self) -> OptimizerLRScheduler:
        return self.optimised(self.parameters())
