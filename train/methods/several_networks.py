"""What methods are told alike that train a network for each of several streams."""

from __future__ import annotations

from pydantic import model_validator

from pipeline.errors import refuse_unknown
from train.methods.method import MethodSettings
from train.networks.settings import Differing, NetworkSettings
from train.settings import told_as_setting


class SeveralNetworksSettings(MethodSettings, NetworkSettings):
    """Settings of such methods, which say how many streams there may be.

    Args:
        streams: Their names.
        differing: Stream -> what differs in its network.
    """

    streams: tuple[str, ...]
    differing: dict[str, Differing] = {}

    @model_validator(mode="after")
    def _known_streams(self) -> SeveralNetworksSettings:
        for stream, differing in self.differing.items():
            if stream not in self.streams:
                with told_as_setting("differing"):
                    refuse_unknown("stream", stream, self.streams)
            differing.of(self)
        return self

    @property
    def networks(self) -> dict[str, NetworkSettings]:
        return {stream: self.differing.get(stream, Differing()).of(self) for stream in self.streams}
