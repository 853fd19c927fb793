"""Aggregations by name: how blocks of a clip, each of which the backbone saw alone, become its context. A new one is
one module and one line of AGGREGATIONS."""

from __future__ import annotations

from torch import nn

from train.settings.registry import Registry

AGGREGATIONS = Registry("aggregation", {"gru": "train.networks.aggregations.gru:Recurrent"})


class Aggregation(nn.Module):
    """Maps of consecutive blocks (B, N, F, S, S), means over each block's time -> contexts (B, `size`).

    block_length: frames of a block.
    """

    block_length: int
    size: int
