"""What a recipe says of a network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, model_validator

from pipeline.errors import UsageError
from train.backbones import BACKBONES, Backbone
from train.networks.aggregations import AGGREGATIONS
from train.networks.heads import HEADS
from train.networks.network import LAYERS, Network, grid
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
        aggregation, aggregation_settings: Name in `train.networks.aggregations`, and what it is made with; None: clips
            are not cut into blocks.
    """

    backbone: str = "s3d"
    backbone_settings: dict[str, Any] = {}
    temporal_centring: bool = False
    pool: str = "global"
    head: str = "coclr"
    head_settings: dict[str, Any] = {}
    dim: int = Field(default=128, ge=1)
    aggregation: str | None = None
    aggregation_settings: dict[str, Any] = {}

    @model_validator(mode="after")
    def _known_parts(self) -> NetworkSettings:
        with told_as_setting():
            BACKBONES.check(self.backbone, self.backbone_settings, given=("in_channels",))
            POOLS.check(self.pool)
            HEADS.check(self.head, self._of_head, given=("in_features",))
            self._aggregation()
        return self

    def _aggregation(self) -> dict[str, Any]:
        """All settings of the aggregation, defaults included."""
        if self.aggregation is None:
            if self.aggregation_settings:
                raise UsageError(
                    "settings of an aggregation without one", where="aggregation_settings", remedy="name it"
                )
            return {}
        made_with = AGGREGATIONS.check(self.aggregation, self.aggregation_settings, given=("in_features",))
        return {"aggregation": self.aggregation, **made_with}

    @property
    def layers(self) -> tuple[str, ...]:
        """Those of `Network`."""
        parts = {"backbone": True, "context": self.aggregation is not None, "head": self.head != "none"}
        return tuple(name for name, there in parts.items() if there)

    def check_clips(self, length: int, size: tuple[int, int]) -> None:
        """Refuses by UsageError clips of so many frames and pixels that are too small, or no whole number of blocks."""
        seen = self._aggregation().get("block_length", length)
        if length % seen:
            raise UsageError(f"clips of {length} frames are no whole number of blocks of {seen}", remedy=f"k x {seen}")
        backbone: type[Backbone] = BACKBONES.find(self.backbone)
        least = backbone.smallest_clip
        if any(side < smallest for side, smallest in zip((seen, *size), least, strict=True)):
            raise UsageError(
                f"{grid((seen, *size))} (frames x height x width) are too small for the backbone {self.backbone}",
                remedy=f"at least {grid(least)}, or another backbone",
            )

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
        aggregation = backbone | {"aggregation": self._aggregation()}
        head = aggregation | {"head": self.head, **self._of_head, "pool": self.pool}
        known = {"backbone": backbone, "aggregation": aggregation, "head": head}
        return {LAYERS[layer]: known[LAYERS[layer]] for layer in self.layers}

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
            self.aggregation,
            self.aggregation_settings,
        )

    @classmethod
    def of_published(cls, network: Mapping[str, Any]) -> NetworkSettings:
        """Of a network that `Network` makes of those arguments, as published files say them."""
        head = dict(network.get("head_settings", {}))
        dim = {"dim": head.pop("dim")} if "dim" in head else {}
        return NetworkSettings(**{**network, **dim, "head_settings": head})


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


class OtherStream(Differing):
    """Another stream's network, frozen: what differs in it from the one that is trained.

    Args:
        stream: Which it sees: another than the trained one.
    """

    stream: str


class OtherRows(OtherStream):
    """Another stream's network, frozen, whose rows are compared among themselves.

    Args:
        stream: Which it sees: another than the trained one.
        dim: Of its rows.
    """

    dim: int | None = Field(default=None, ge=1)
