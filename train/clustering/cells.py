"""Cells: rows that lie around one of several centres, by cosine."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from train.clustering.rows import unit

ROWS = 2**16  # that are looked at together where each is for itself
AT_ONCE = 2**20  # products of rows and centres: 4 MiB, which stay in the cache


def directions_of(features: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Those rows (N, D) of the features as unit rows, float32."""
    directions = features.new_empty(len(rows), features.shape[1], dtype=torch.float32)
    for places, some in zip(directions.split(ROWS), some_directions(features, rows), strict=True):
        places.copy_(some)
    return directions


def some_directions(features: torch.Tensor, rows: torch.Tensor) -> Iterator[torch.Tensor]:
    """The same, ROWS at once."""
    return (unit(features[some]).float() for some in rows.split(ROWS))


def placed(some: torch.Tensor, count: int, rounds: int) -> torch.Tensor:
    """`count` centres (C, D) of unit rows, the first of which they begin as: so many rounds of spherical k-means."""
    centres = some[:count].clone()
    for _ in range(rounds):
        sums = torch.zeros_like(centres).index_add_(0, assigned(some, centres), some)
        lengths = sums.norm(dim=1, keepdim=True)
        centres = torch.where(lengths > 1e-6, sums / lengths.clamp_min(1e-6), centres)
    return centres


def assigned(directions: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    """(N,) the centre of the largest product with each row."""
    return torch.cat([(some @ centres.T).argmax(1) for some in directions.split(max(1, AT_ONCE // len(centres)))])
