"""What methods that contrast keys with a queue, or with the batch, are told alike, and say alike."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from pydantic import Field
from torch import Tensor, nn

from pipeline.errors import UsageError
from train.losses.nce import own_key_accuracy
from train.methods.method import Method, MethodSettings
from train.methods.one_network import OneNetworkSettings
from train.networks.momentum import MomentumPair
from train.networks.network import Network
from train.networks.queue import check_length
from train.networks.settings import NetworkSettings

COIN = 0x636F696E  # keeps this random number apart from those of other users of the same seed


class ContrastiveSettings(MethodSettings, NetworkSettings):
    """Settings of InfoNCE and its relatives.

    Args:
        queue: Number of keys K, a multiple of the batch over all ranks. Published: 2048 on UCF101, 16384 on
            Kinetics-400. 0, where a method allows it: in-batch negatives, on which `momentum` has no effect.
        temperature: Divides the cosines.
        momentum: Share that a key network keeps of itself at each optimiser step.
    """

    queue: int = Field(default=2048, ge=1)
    temperature: float = Field(default=0.07, gt=0)
    momentum: float = Field(default=0.999, ge=0, le=1)

    def check_batch(self, global_batch: int) -> None:
        """Refuses, by UsageError, a batch of which the queue is no multiple; and a single video without a queue."""
        if self.queue:
            check_length(self.queue, global_batch)
        elif global_batch < 2:
            raise UsageError(
                "in-batch negatives need at least two videos in a batch",
                where=f"a batch of {global_batch} (over all ranks)",
                remedy="a larger batch, or a queue",
            )


class OneStreamSettings(ContrastiveSettings, OneNetworkSettings):
    """Of methods that train one stream, which must be named, on two clips of it."""

    stream: str

    @property
    def reads(self) -> dict[str, tuple[int, ...]]:
        return {self.stream: (0, 1)}


class OneStream(Method):
    """A momentum pair on one stream, of which the query network is trained; what a step does is each method's own."""

    settings: OneStreamSettings

    def __init__(self, settings: OneStreamSettings, channels: Mapping[str, int]) -> None:
        super().__init__(settings, channels)
        self.pair = MomentumPair(settings.build(channels[settings.stream]), settings.queue, settings.momentum)

    @property
    def networks(self) -> dict[str, Network]:
        return {self.settings.stream: self.pair.query}

    @property
    def starting(self) -> dict[str, list[Mapping[str, nn.Module]]]:
        return {"query": self.pair.starting}

    def configure_optimizers(self) -> OptimizerLRScheduler:
        return self.optimised(self.pair.query.parameters())


def own_key_values(logits: Tensor) -> dict[str, Tensor]:
    """`contrast_top1` and `contrast_top5`: fraction of queries whose own key ranks first or among the first five."""
    return {"contrast_top1": own_key_accuracy(logits, 1), "contrast_top5": own_key_accuracy(logits, 5)}


def coin(chance: float, step: int) -> bool:
    """True with that probability: the same on all ranks and after a stop, because it follows from the seed and the
    step."""
    drawn = np.random.default_rng((COIN, torch.initial_seed() % 2**63, step)).random()
    return bool(drawn < chance)
