"""Methods of training, one LightningModule each, chosen by name. A new one is one module and one line of METHODS.

What every method has is in `train.methods.method.Method`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from train.methods.method import Method, MethodSettings
from train.settings import read
from train.settings.registry import Registry

METHODS = Registry(
    "method",
    {
        "classify": "train.methods.classify:Classify",
        "cmc": "train.methods.cmc:CMC",
        "coclr": "train.methods.coclr:CoCLR",
        "cocon": "train.methods.cocon:CoCon",
        "dpc": "train.methods.dpc:DPC",
        "goca": "train.methods.goca:GOCA",
        "infonce": "train.methods.infonce:InfoNCE",
        "slic": "train.methods.slic:SLIC",
        "ubernce": "train.methods.ubernce:UberNCE",
        "vicc": "train.methods.vicc:ViCC",
    },
)


def settings_of(name: str) -> type[MethodSettings]:
    """The settings of the method called `name`. Raises UsageError."""
    return METHODS.find(name).Settings  # type: ignore[attr-defined]


def create(name: str, settings: Mapping[str, Any] | MethodSettings, channels: Mapping[str, int]) -> Method:
    """A freshly initialised method.

    channels: stream -> channels of its clips.

    Raises:
        UsageError: unknown name or setting, with the nearest spelling and the known ones.
    """
    if not isinstance(settings, MethodSettings):
        settings = read(settings_of(name), settings, f'method "{name}"')
    return METHODS.find(name)(settings, channels)
