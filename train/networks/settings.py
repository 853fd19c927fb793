"""What a recipe says of a network."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from train.backbones import BACKBONES
from train.networks.heads import HEADS
from train.networks.network import Network
from train.networks.pools import POOLS
from train.settings import Settings, told_as_setting


class NetworkSettings(Settings):
    """A network's parts by name; see `Network`. Checking them builds none.

    Args:
        backbone, backbone_settings: Name in `train.backbones`, and what it is made with.
        temporal_centring: See `Network`.
        pool: Name in `train.networks.pools`.
        head, head_settings: Name in `train.networks.heads`, and what it is made with beside `dim`.
        dim: Length D of the rows that losses compare, which the head gives.
    """

    backbone: str = "s3d"
    backbone_settings: dict[str, Any] = {}
    temporal_centring: bool = False
    pool: str = "global"
    head: str = "coclr"
    head_settings: dict[str, Any] = {}
    dim: int = Field(default=128, ge=1)

    @model_validator(mode="after")
    def _known_parts(self) -> NetworkSettings:
        with told_as_setting():
            BACKBONES.check(self.backbone, self.backbone_settings, given=("in_channels",))
            POOLS.check(self.pool)
            HEADS.check(self.head, self._of_head, given=("in_features",))
        return self

    @property
    def _of_head(self) -> dict[str, Any]:
        return self.head_settings if self.head == "none" else {"dim": self.dim, **self.head_settings}

    @property
    def parts(self) -> dict[str, dict[str, Any]]:
        """Name of each part with weights -> all that their shapes follow from, beside the channels of the clips."""
        backbone = {
            "backbone": self.backbone,
            **BACKBONES.check(self.backbone, self.backbone_settings, ("in_channels",)),
        }
        head = {"head": self.head, **self._of_head, "pool": self.pool}
        return {"backbone": backbone} | ({"head": backbone | head} if self.head != "none" else {})

    def unlike(self, other: NetworkSettings, part: str) -> str:
        """Why the weights of a part do not fit that part of another network, in words; empty if they do."""
        here, there = self.parts[part], other.parts[part]
        keys = [key for key in here | there if here.get(key) != there.get(key)]
        return f"{keys[0]} is {here.get(keys[0])} there, {there.get(keys[0])} here" if keys else ""

    def build(self, in_channels: int) -> Network:
        """A fresh network for clips of so many channels."""
        return Network(
            self.backbone,
            in_channels,
            self.backbone_settings,
            self.temporal_centring,
            self.pool,
            self.head,
            self._of_head,
        )


class Differing(Settings):
    """What differs in another network of the same method; None: it is the same."""

    backbone: str | None = None
    backbone_settings: dict[str, Any] | None = None
    temporal_centring: bool | None = None
    pool: str | None = None
    head: str | None = None
    head_settings: dict[str, Any] | None = None

    def of(self, network: NetworkSettings) -> NetworkSettings:
        """That network. Raises as `NetworkSettings`, where what differs does not go with the rest."""
        said = {
            name: value for name in NetworkSettings.model_fields if (value := getattr(self, name, None)) is not None
        }
        shared = {name: getattr(network, name) for name in NetworkSettings.model_fields}
        return NetworkSettings(**(shared | said))
