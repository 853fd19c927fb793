"""DPC: the features of later blocks of a clip are predicted, at each place, from the earlier ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from pydantic import Field, model_validator
from torch import Tensor

from pipeline.errors import UsageError
from train.hardware.collectives import mean_over_pools, world_size
from train.hardware.precision import at_least_float32
from train.losses.predictive import prediction
from train.methods.meters import Meter
from train.methods.method import MethodSettings, Start
from train.methods.one_network import OneNetwork, OneNetworkSettings
from train.networks.aggregations.gru import Recurrent
from train.networks.network import Network
from train.networks.settings import NetworkSettings
from train.settings import cannot_be

if TYPE_CHECKING:
    from train.batches.batch import Batch

TAKEN = ("backbone", "aggregation")  # parts that a later stage starts from


class PredictiveSettings(MethodSettings, NetworkSettings):
    """What DPC and CoCon are told alike. The recipe's sampling is `blocks`.

    Args:
        predicted: Blocks of a clip, the last ones, that are predicted from those before.
        competing: Videos whose places alone are each other's negatives; 0: all of the batch, over all ranks. DPC
            published those of one GPU.
        temperature: Divides both factors of the product, predictions and features; None (DPC): the product as it is.
    """

    backbone: str = "resnet2d3d-18"
    head: str = "none"
    aggregation: str | None = "gru"
    predicted: int = Field(default=3, ge=1)
    competing: int = Field(default=0, ge=0)
    temperature: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _predicts(self) -> PredictiveSettings:
        if self.aggregation is None or not self._aggregation().get("predicts"):
            raise cannot_be("a network that predicts no block", "aggregation: gru, with predicts: true", "aggregation")
        if self.head != "none":
            raise cannot_be(f"head {self.head}, which nothing trains", "head: none", "head")
        return self

    def check_batch(self, global_batch: int) -> None:
        """Refuses, by UsageError, a batch that does not fall into groups."""
        if self.competing and global_batch % self.competing:
            raise UsageError(
                f"a batch of {global_batch} videos (over all ranks) does not fall into groups of {self.competing}",
                where="competing",
                remedy="a batch that is a multiple of it, or competing: 0",
            )

    def check_length(self, frames: int) -> None:
        """Refuses, by UsageError, clips of which no block is seen before the predicted ones."""
        blocks = frames // self._aggregation()["block_length"]
        if blocks <= self.predicted:
            raise UsageError(
                f"a clip of {blocks} blocks, of which {self.predicted} are predicted, shows none before them",
                where="predicted",
                remedy="longer clips, shorter blocks, or fewer that are predicted",
            )


class DPCSettings(PredictiveSettings, OneNetworkSettings):
    """Of DPC."""

    backbone_settings: dict[str, Any] = {"running_statistics": False}

    @property
    def reads(self) -> dict[str, tuple[int, ...]]:
        return {self.stream: (0,)}

    @property
    def starts(self) -> dict[str, Start]:
        return {"query": Start(self.stream, self, TAKEN, TAKEN[1:])}


class DPC(OneNetwork):
    """Han, Xie and Zisserman 2019 (arXiv 1909.04656): dense predictive coding (docs/methods.md 4.9).

    The predicted feature of each place of a block is to fit that block's own feature there better than those of other
    blocks, places and videos.

    Values of a step: `loss`, and `predicted_top1`: the share of places whose own feature fits best.
    """

    Settings = DPCSettings
    settings: DPCSettings

    def meters(self, global_batch: int) -> dict[str, Meter]:
        return {"predicted_top1": predicted_first(self.settings)}

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        given = self.settings
        given.check_batch(len(batch.index) * world_size())
        loss, right, _ = predict(self.network, batch.view(given.stream, 0), given)
        return {"loss": loss, "predicted_top1": right}


def predict(network: Network, clips: Tensor, settings: PredictiveSettings) -> tuple[Tensor, Tensor, Tensor]:
    """Loss, share of places whose own feature fits best, and the maps of all blocks (B, N, D, S, S) as targets are."""
    aggregation = network.aggregation
    assert isinstance(aggregation, Recurrent)
    predicted, blocks = aggregation.predict(network.block_maps(clips), settings.predicted)

    def term(predicted: Tensor, target: Tensor) -> Tensor:
        return torch.stack(prediction(predicted, target, settings.temperature))

    targets = blocks[:, -settings.predicted :]
    loss, right = mean_over_pools(term, settings.competing, at_least_float32(predicted), at_least_float32(targets))
    return loss, right.detach(), blocks


def predicted_first(settings: PredictiveSettings) -> Meter:
    """Of `predicted_top1`."""
    where = f"{settings.competing} videos" if settings.competing else "the batch"
    return Meter(
        "predicted right",
        f"the share of places in {settings.predicted} predicted blocks whose own feature fits the prediction better"
        f" than those of all other places in {where}",
    )
