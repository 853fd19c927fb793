"""A method that trains one network, all of it, on one stream; what a step does is each method's own."""

from __future__ import annotations

from collections.abc import Mapping

from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import nn

from train.methods.method import Method, MethodSettings, Start
from train.networks.network import Network
from train.networks.settings import NetworkSettings


class OneNetworkSettings(MethodSettings, NetworkSettings):
    """Settings of such methods.

    Args:
        stream: The one that is trained.
    """

    stream: str = "rgb"

    @property
    def networks(self) -> dict[str, NetworkSettings]:
        return {self.stream: self}

    @property
    def starts(self) -> dict[str, Start]:
        return {"query": Start(self.stream, self)}


class OneNetwork(Method):
    """`network` is trained, and begins as that of an earlier stage or file in the role "query"."""

    settings: OneNetworkSettings

    def __init__(self, settings: OneNetworkSettings, channels: Mapping[str, int]) -> None:
        super().__init__(settings, channels)
        self.network = settings.build(channels[settings.stream])

    @property
    def networks(self) -> dict[str, Network]:
        return {self.settings.stream: self.network}

    @property
    def starting(self) -> dict[str, list[Mapping[str, nn.Module]]]:
        return {"query": [self.network.parts]}

    def configure_optimizers(self) -> OptimizerLRScheduler:
        return self.optimised(self.network.parameters())
