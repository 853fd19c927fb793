"""Heads by name: what a network has behind its pool. A new one is one module and one line of HEADS."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field
from torch import nn

from train.settings.registry import Registry

HEADS = Registry(
    "head",
    {
        "none": "train.networks.heads.none:NoHead",
        "coclr": "train.networks.heads.coclr:CoCLRHead",
        "goca": "train.networks.heads.goca:GOCAHead",
        "slic": "train.networks.heads.slic:SLICHead",
        "classifier": "train.networks.heads.classifier:Classifier",
    },
)

Dim = Annotated[int, Field(ge=1)]  # length of a row, as recipes may say it


class Head(nn.Sequential):
    """Rows (B, in_features) -> rows (B, size), which the network makes unit rows if `unit`; size 0: none, they stay.

    classifies: whether these are logits of classes.
    """

    unit: ClassVar[bool]
    classifies: ClassVar[bool] = False
    size: int
