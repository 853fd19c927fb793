"""The head of linear probes and of networks that were fine-tuned on labels."""

from __future__ import annotations

from collections import OrderedDict
from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from train.networks.dropout import Dropout
from train.networks.heads import Dim, Head


class Classifier(Head):
    """[unit rows ->] [batch norm ->] [dropout ->] linear F->`dim`: logits of `dim` classes.

    Weights are drawn from N(0, .01), biases begin at zero.

    Args:
        unit_input, batch_norm: as the probes of CoCLR and ViCC have both, and the classifiers of DPC and CoCon the
            latter.
        dropout: share of the features that is zeroed in training.
    """

    unit: ClassVar[bool] = False
    classifies: ClassVar[bool] = True

    def __init__(
        self,
        in_features: int,
        dim: Dim,
        unit_input: bool = False,
        batch_norm: bool = False,
        dropout: Annotated[float, Field(ge=0, le=1)] = 0.0,
    ) -> None:
        linear = nn.Linear(in_features, dim)
        nn.init.normal_(linear.weight, std=0.01)
        nn.init.zeros_(linear.bias)
        layers: dict[str, nn.Module] = {"unit_rows": UnitRows()} if unit_input else {}
        layers |= {"batch_norm": nn.BatchNorm1d(in_features)} if batch_norm else {}
        layers |= {"dropout": Dropout(dropout)} if dropout else {}
        super().__init__(OrderedDict(layers | {"linear": linear}))
        self.size = dim


class UnitRows(nn.Module):
    """Rows (B, F) of length 1."""

    def forward(self, rows: Tensor) -> Tensor:
        return functional.normalize(rows, dim=1)
