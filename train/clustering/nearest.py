"""Every row's nearest other row by cosine: exactly, without a look at most pairs where the rows lie in groups; or
nearly, for millions of rows (`train.clustering.divisions`).

Rows are sorted into cells around centres, and blocks of them are compared in float32: each with itself, then with those
whose centres are nearest, then with the rest. Both sides of a block are used, so that each pair is looked at once. Of
the rest, only what could still hold a nearer row is: the angle between a row and a member of a block is at least the
row's angle to the centre less the widest angle between the centre and a member. Where float32 leaves open which row is
the nearest, float64 decides among those that are left.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

from train.clustering import divisions
from train.clustering.cells import ROWS, assigned, directions_of, placed, some_directions
from train.clustering.rows import unit

Neighbours = Literal["exact", "approximate"]

# Similarities closer than this are equal. A matrix product rounds the same one differently (by 1e-16) from one place of
# a block to the next; without it, identical rows would have different neighbours on other machines.
TIE = 1e-12
BLOCK = 1024  # rows; the similarities of two blocks take 4 MiB and stay in the cache
PAIRS_AT_ONCE = 2**23  # bounds the memory of a block in float64: 64 MiB
BESIDE = 16  # blocks with the nearest centres: the first that a block is compared with
LLOYD = 4  # rounds that place the centres; more make cells little tighter
PER_CENTRE = 32  # rows that are drawn for each centre to place it
ONE_SIDED = 0.7  # a product for one side alone is worth its gathering below this share of the whole block


def nearest_rows(features: torch.Tensor, neighbours: Neighbours = "exact", seed: int = 0) -> torch.Tensor:
    """The row with the largest cosine to each row.

    Among equal cosines (to 1e-12) the lowest row is the nearest. A row of zeros has no direction: its cosine to every
    row is 0. Exact search gives the same rows for every seed, order of computation and device. Approximate search finds
    most of them, and for the other rows one that is near; its recall is measured by `tests.benchmarks.finch`.

    Args:
        features: (N, D) float32 or float64, finite, N at least 1; the search runs on their device.
        neighbours: "exact" or "approximate".
        seed: of the rows that centres are made of.

    Returns:
        (N,) int64 on the CPU; a row that is alone is its own.
    """
    with torch.no_grad(), torch.autocast(features.device.type, enabled=False), _whole_float32():
        return _nearest_rows(features, neighbours, seed).cpu()


def _nearest_rows(features: torch.Tensor, neighbours: Neighbours, seed: int) -> torch.Tensor:
    every = torch.arange(len(features), device=features.device)
    directed = torch.cat([some.any(dim=1) for some in features.split(ROWS)])
    if len(features) <= 2 * BLOCK or directed.sum() < 2:
        return _decided(features, every, every)
    rows, zeros = every[directed], every[~directed]
    nearest = torch.zeros_like(every)  # the lowest row, to which rows of zeros are as near as to any other
    nearest[zeros[zeros == 0]] = 1
    if neighbours == "approximate":
        nearest[rows] = rows[divisions.near_rows(directions_of(features, rows), seed)]
        return nearest
    search = _Search(features, rows, seed)
    search.look_beside()
    search.look_at_the_rest()
    search.settle(nearest, zeros)
    return nearest


@contextmanager
def _whole_float32() -> Iterator[None]:
    """Matrix products in float32 itself, for which the bounds hold, and not in TF32 or bfloat16."""
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(precision)


def _decided(features: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """(R,) the nearest of `columns` (rising) to each of `rows`, in float64; itself, where there is no other."""
    directions = unit(features[columns])
    found = []
    for some in rows.split(max(1, PAIRS_AT_ONCE // len(columns))):
        similar = unit(features[some]) @ directions.T
        similar[some[:, None] == columns] = -torch.inf
        equal = similar >= similar.amax(1, keepdim=True) - TIE
        found.append(columns[equal.to(torch.uint8).argmax(1)])
    return torch.cat(found)


class _Search:
    """Rows in blocks that each lie around a centre, and by place in that order the best two similarities so far."""

    def __init__(self, features: torch.Tensor, rows: torch.Tensor, seed: int) -> None:
        self.features = features
        centres, cells = _cells(features, rows, seed)
        order = cells.argsort(stable=True)
        self.rows = rows[order]
        self.directions = directions_of(features, self.rows)
        sizes = [part for size in cells.bincount().tolist() for part in _parts(size)]
        stops = torch.tensor(sizes).cumsum(0).tolist()
        self.blocks = [slice(stop - size, stop) for size, stop in zip(sizes, stops, strict=True)]
        self.sizes = sizes
        self.centres = centres[cells[order[[block.start for block in self.blocks]]]]
        # A float32 product of unit rows is wrong by no more than this, in whatever order it is summed.
        self.wrong = (features.shape[1] + 4) * 2.0**-24
        to_centre = [(self.directions[b] @ c).min() for b, c in zip(self.blocks, self.centres, strict=True)]
        self.farthest = (torch.stack(to_centre).double() - self.wrong).clamp(-1, 1)
        self.best = torch.full((len(rows),), -torch.inf, device=features.device)
        self.second = self.best.clone()
        self.found = torch.arange(len(rows), device=features.device)
        self.compared: set[tuple[int, int]] = set()

    def look_beside(self) -> None:
        """Compares each block with itself and with those whose centres are the nearest."""
        for places in self.blocks:
            similar = self.directions[places] @ self.directions[places].T
            self._improve(places, similar.fill_diagonal_(-torch.inf), places.start)
        count = min(BESIDE + 1, len(self.blocks))
        for start in range(0, len(self.blocks), BLOCK):
            near = (self.centres[start : start + BLOCK] @ self.centres.T).topk(count).indices.tolist()
            self.compared |= {(min(a, b), max(a, b)) for a, row in enumerate(near, start) for b in row if a != b}
        for first, second in sorted(self.compared):
            self._compare(first, second)

    def look_at_the_rest(self) -> None:
        """Compares each block with the later ones that may hold a nearer row for it, or it for them."""
        for block, own in enumerate(self.blocks[:-1]):
            others, later = range(block + 1, len(self.blocks)), slice(own.stop, None)
            least = self.best - self.wrong - TIE
            mine = self._reach(own, slice(others.start, None)) >= least[own, None]
            theirs = (self._reach(later, slice(block, others.start))[:, 0] >= least[later]).split(
                self.sizes[block + 1 :]
            )
            asked = torch.stack([mine.sum(0), torch.stack([some.sum() for some in theirs])], 1).tolist()
            for at, other in enumerate(others):
                if (block, other) not in self.compared and sum(asked[at]):
                    self._compare_some(block, other, mine[:, at], theirs[at], asked[at])

    def settle(self, nearest: torch.Tensor, zeros: torch.Tensor) -> None:
        """Writes the nearest row of each into `nearest` (N,); float64 decides what float32 left open. `zeros` are the
        rows that were not searched for."""
        nearest[self.rows] = self.rows[self.found]
        open_ = self.second >= self.best - 2 * self.wrong
        if len(zeros):
            open_ |= self.best <= self.wrong
        for places in self.blocks:
            some = places.start + open_[places].nonzero()[:, 0]
            if len(some):
                candidates = torch.cat([self._candidates(some), zeros]).sort().values
                nearest[self.rows[some]] = _decided(self.features, self.rows[some], candidates)

    def _candidates(self, places: torch.Tensor) -> torch.Tensor:
        """Rows among which the nearest of each row at `places` is."""
        least = (self.best[places] - 2 * self.wrong)[:, None]
        asked = (self._reach(places, slice(None)) >= least - TIE).any(0).nonzero()[:, 0].tolist()
        found = []
        for block in asked:
            columns = self.blocks[block]
            similar = self.directions[places] @ self.directions[columns].T
            found.append(self.rows[columns][(similar >= least).any(0)])
        return torch.cat(found)

    def _compare(self, first: int, second: int) -> None:
        rows, columns = self.blocks[first], self.blocks[second]
        similar = self.directions[rows] @ self.directions[columns].T
        self._improve(rows, similar, columns.start)
        self._improve(columns, similar.T, rows.start)

    def _compare_some(
        self, first: int, second: int, mine: torch.Tensor, theirs: torch.Tensor, asked: list[int]
    ) -> None:
        """Compares the rows of two blocks that ask for it (masks, and how many) with the other block."""
        rows, columns = self.blocks[first], self.blocks[second]
        sizes = self.sizes[first], self.sizes[second]
        if asked[0] * sizes[1] + asked[1] * sizes[0] >= ONE_SIDED * sizes[0] * sizes[1]:
            self._compare(first, second)
            return
        for own, some, other in ((rows, mine, columns), (columns, theirs, rows)):
            places = own.start + some.nonzero()[:, 0]
            if len(places):
                self._improve(places, self.directions[places] @ self.directions[other].T, other.start)

    def _improve(self, places: slice | torch.Tensor, similar: torch.Tensor, start: int) -> None:
        """Takes in the similarities of the rows at `places` to those from `start` on."""
        top, best = similar.amax(1), self.best[places]
        self.second[places] = torch.maximum(self.second[places], torch.minimum(top, best))
        better = (top > best).nonzero()[:, 0]
        if not len(better):
            return
        self.best[places] = torch.maximum(top, best)
        where = better + places.start if isinstance(places, slice) else places[better]
        rows = similar[better]
        at = rows.argmax(1, keepdim=True)
        self.found[where] = start + at[:, 0]
        inner = rows.scatter_(1, at, -torch.inf).amax(1)
        self.second[where] = torch.maximum(self.second[where], inner)

    def _reach(self, places: slice | torch.Tensor, blocks: slice) -> torch.Tensor:
        """(places, blocks) float64: the row at the place is no more similar to any row of the block."""
        to_centre = (self.directions[places] @ self.centres[blocks].T).double().add_(self.wrong).clamp_(-1, 1)
        farthest = self.farthest[blocks]
        bound = to_centre * farthest + ((1 - to_centre.square()) * (1 - farthest.square())).sqrt()
        return torch.where(to_centre >= farthest, 1.0, bound)


def _cells(features: torch.Tensor, rows: torch.Tensor, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Centres (C, D), made of some of the rows, and the (N,) one that each row belongs to."""
    count = max(1, len(rows) // BLOCK)
    rng = torch.Generator().manual_seed(seed)
    drawn = rows[torch.randperm(len(rows), generator=rng)[: PER_CENTRE * count].to(rows.device)]
    centres = placed(directions_of(features, drawn), count, LLOYD)
    return centres, torch.cat([assigned(some, centres) for some in some_directions(features, rows)])


def _parts(size: int) -> Iterator[int]:
    """The sizes of blocks that `size` rows of a cell are divided into, none if there are none."""
    for start in range(0, size, 2 * BLOCK):
        yield min(2 * BLOCK, size - start)
