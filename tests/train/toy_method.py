"""A method that the product does not have, which draws the features of all clips that it looks at together.

To be registered by a test: `monkeypatch.setitem(METHODS.entries, "toy", TOY)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import train  # noqa: F401  (before torch and lightning)

# isort: split
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from train.batches.batch import Batch
from train.methods.meters import Meter
from train.methods.method import Method, MethodSettings
from train.networks.network import Network
from train.networks.settings import NetworkSettings
from train.optim import configured

TOY = "tests.train.toy_method:Toy"


class ToySettings(MethodSettings):
    """looks_at: stream -> numbers of the clips of a sample."""

    looks_at: dict[str, list[int]]

    @property
    def reads(self) -> dict[str, tuple[int, ...]]:
        return {stream: tuple(numbers) for stream, numbers in self.looks_at.items()}

    @property
    def networks(self) -> dict[str, NetworkSettings]:
        small = NetworkSettings(backbone="small", backbone_settings={"width": 0.25}, dim=4)
        return dict.fromkeys(self.looks_at, small)

    def check_batch(self, global_batch: int) -> None:
        """Any."""


class Toy(Method):
    Settings = ToySettings
    settings: ToySettings

    def __init__(self, settings: ToySettings, channels: Mapping[str, int]) -> None:
        super().__init__(settings, channels)
        made = {stream: network.build(channels[stream]) for stream, network in settings.networks.items()}
        self.made = nn.ModuleDict(made)

    @property
    def networks(self) -> dict[str, Network]:
        return dict(self.made.items())  # type: ignore[arg-type]

    def meters(self, global_batch: int) -> dict[str, Meter]:
        return {}

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        reads = self.settings.reads
        rows = [self.made[stream](batch.view(stream, number)) for stream in reads for number in reads[stream]]
        middle = sum(rows) / len(rows)
        return {"loss": sum(((row - middle) ** 2).sum(dim=1).mean() for row in rows)}  # type: ignore[dict-item]

    def configure_optimizers(self) -> OptimizerLRScheduler:
        return configured(self.settings.optimiser, self.parameters(), self.trainer)


def stage(looks_at: dict[str, list[int]], **changes: Any) -> dict[str, Any]:
    """Of a recipe."""
    settings = {"looks_at": looks_at, "optimiser": {"name": "sgd", "lr": 0.01}}
    return {"name": "toy", "method": "toy", "epochs": 2, "settings": settings} | changes
