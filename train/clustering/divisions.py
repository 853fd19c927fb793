"""A row near to each row by cosine, mostly the nearest, for millions of rows.

Rows are divided among centres, and those of each centre once more, until a few hundred are left together, of which all
pairs are looked at. What one division parts, another one by other centres has together, so that many of them, each of
which is cheap, miss little: the "multiple random divide-and-conquer" of Wang et al., *Scalable k-NN Graph Construction
for Visual Descriptors*, CVPR 2012, with k-means in place of their trees.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch

from train.clustering.cells import assigned, placed

DIVISIONS = 16
TOGETHER = 256  # rows, about
LARGEST = 4 * TOGETHER
PER_CENTRE = 16  # rows that are drawn for each centre to place it
LLOYD = 2  # rounds that place the centres


def near_rows(directions: torch.Tensor, seed: int) -> torch.Tensor:
    """(N,) int64: for each of two or more unit rows (N, D) float32 another one. The same seed finds the same ones on
    the same machine."""
    rng = torch.Generator().manual_seed(seed)
    found = torch.zeros(len(directions), dtype=torch.int64, device=directions.device)
    best = torch.full((len(directions),), -torch.inf, device=directions.device)
    for _ in range(DIVISIONS):
        order, cells = _divided(directions, math.isqrt(len(directions) // TOGETHER), rng)
        for members in order.split(_at_least_two(cells)):
            own = directions[members]
            inner, groups = _divided(own, len(members) // TOGETHER, rng)
            members, own = members[inner], own[inner]
            near, similar = found[members], best[members]
            sizes = _at_least_two(part for size in groups for part in _cut(size))
            for part in zip(*(values.split(sizes) for values in (own, members, near, similar)), strict=True):
                _improve(*part)
            found[members], best[members] = near, similar
    return found


def _improve(directions: torch.Tensor, rows: torch.Tensor, near: torch.Tensor, similar: torch.Tensor) -> None:
    """Compares these rows with each other, and writes what is nearer than `similar` into it and `near`."""
    products = (directions @ directions.T).fill_diagonal_(-torch.inf)
    top = products.amax(1)
    better = (top > similar).nonzero()[:, 0]
    similar[better] = top[better]
    near[better] = rows[products[better].argmax(1)]


def _divided(directions: torch.Tensor, count: int, rng: torch.Generator) -> tuple[torch.Tensor, list[int]]:
    """The rows (N,) in the order of their cells, around up to `count` centres, and how many are in each cell."""
    count = max(1, count)
    drawn = torch.randint(len(directions), (PER_CENTRE * count,), generator=rng).to(directions.device)
    cells = assigned(directions, placed(directions[drawn], count, LLOYD))
    return cells.argsort(stable=True), cells.bincount().tolist()


def _at_least_two(sizes: Iterable[int]) -> list[int]:
    """Sizes of consecutive parts, of which those below two are joined with the next one, or at the end with the one
    before."""
    joined: list[int] = []
    for size in sizes:
        if joined and joined[-1] < 2:
            joined[-1] += size
        else:
            joined.append(size)
    if len(joined) > 1 and joined[-1] < 2:
        joined[-2:] = [sum(joined[-2:])]
    return joined


def _cut(size: int) -> list[int]:
    """What a part of `size` rows is cut into, so that none is larger than LARGEST."""
    return [min(LARGEST, size - start) for start in range(0, size, LARGEST)]
