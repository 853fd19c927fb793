"""Which videos each batch holds: one order over all ranks, a pure function of (seed, epoch), whatever was read before.

A sample is a video and which of its turns in the epoch this is: `turn * len(videos) + video`. What is drawn for a
sample (its frames, its pixels) therefore differs from turn to turn, and where every video has one turn a sample is its
video's number.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from train.settings import Settings, cannot_be

ORDER = 0x6F726465  # keeps the order's random numbers apart from the pixels'
LIMIT = 0x6C696D69  # and the choice of a limited set's videos apart from both
WINDOW = 8  # blocks whose videos are shuffled together
LARGEST_BLOCK, MOST_REPEATS = 10**6, 1000  # an epoch's order is drawn at once


class OrderSettings(Settings):
    """Which videos an epoch holds, and in which order.

    By default every video once, shuffled anew in every epoch; what does not fill a batch is left out, other videos in
    other epochs.

    Args:
        block: 0 shuffles freely. Otherwise how many videos that follow each other in the store form a block, for disks
            that seek and for object stores: blocks are shuffled, and then the videos of every 8 blocks among each
            other, so that a batch touches at most 16 blocks (8, unless it reaches over from one eight to the next).
            Lost is that any two videos can meet in a batch: they do only where their blocks come to lie in the same
            eight. Stores list videos by name, so that neighbours are often of one class: a block should hold far fewer
            videos than a class does, and eight blocks several batches.
        balanced: Every class equally often: an epoch is as many rounds as the largest class has videos, and a round is
            one video of every class, in random order. The videos of a class take turns, each coming once before any
            comes again, so that every video is used in every epoch; a batch may hold a video twice.
        repeat: How often an epoch goes through all of that. Each time is shuffled anew and shows other frames and
            pixels; only what happens once an epoch happens less often. The batch in which one time ends and the next
            begins may hold a video twice.
        limit: 0, or how many of the videos are used, for quick runs and small training sets. They are drawn by the seed
            alone; a smaller set is a part of every larger one.
        last: "drop" or "keep" the last, smaller batch of an epoch. Kept, its size must suit the method, and the number
            of devices must divide it.
    """

    block: int = Field(default=0, ge=0, le=LARGEST_BLOCK)
    balanced: bool = False
    repeat: int = Field(default=1, ge=1, le=MOST_REPEATS)
    limit: int = Field(default=0, ge=0)
    last: Literal["drop", "keep"] = "drop"

    @model_validator(mode="after")
    def _check(self) -> OrderSettings:
        if self.balanced and self.block:
            raise cannot_be(
                "balanced takes each batch from all classes, block takes it from a few places of the store",
                "give one of the two",
                "balanced, block",
            )
        return self


class Order:
    """The batches of a training run, all of one size but perhaps the last of each epoch.

    videos: how many there are. labels: class of each, int (N,), for `balanced`. batch: samples of a batch over all
    ranks. accumulate: batches of an optimiser step, of which an epoch has whole ones; above 1 no smaller batch can be
    kept. `size`: samples of an epoch. `last`: samples of its last batch, 0 where it has none.
    """

    def __init__(
        self,
        settings: OrderSettings,
        videos: int,
        batch: int,
        seed: int,
        accumulate: int = 1,
        labels: np.ndarray | None = None,
    ) -> None:
        self.settings, self.batch, self.seed, self.videos = settings, batch, seed, videos
        self.accumulate = accumulate
        self.chosen = _limited(videos, settings.limit, seed) if settings.limit else None
        self.classes: list[np.ndarray] = []  # the videos of each, for `balanced`
        once = settings.limit or videos
        if settings.balanced and labels is not None:
            chosen = np.arange(videos) if self.chosen is None else self.chosen
            found = labels[chosen]
            self.classes = [chosen[found == label] for label in np.unique(found)]
            once = len(self.classes) * max(map(len, self.classes), default=0)
        self.size = settings.repeat * once
        whole, rest = divmod(self.size, batch)
        whole -= whole % accumulate
        kept = rest if settings.last == "keep" else 0
        self.last = kept or (batch if whole else 0)
        self._batches = whole + (kept > 0)
        self._drawn = -1, np.empty(0, np.int64)

    def __len__(self) -> int:
        """Batches of an epoch."""
        return self._batches

    def samples(self, epoch: int) -> np.ndarray:
        """All samples of an epoch in order, int64 (size,), for reading only."""
        drawn = self._drawn  # for all batches of the epoch: with 240,000 videos a draw takes 5 ms
        if drawn[0] != epoch:
            drawn = self._drawn = epoch, self._draw(epoch)
        return drawn[1]

    def share(self, number: int, rank: int = 0, world_size: int = 1) -> tuple[int, np.ndarray]:
        """Epoch of the batch with that number since the start of training, and a rank's samples of it, int64 (B,).

        The ranks' shares are equal parts of the batch, in rank order.
        """
        epoch, place = divmod(number, len(self))
        whole = self.samples(epoch)[place * self.batch : (place + 1) * self.batch]
        share = len(whole) // world_size
        return epoch, whole[rank * share : (rank + 1) * share]

    def _draw(self, epoch: int) -> np.ndarray:
        rng = np.random.default_rng(np.random.SeedSequence((ORDER, self.seed, epoch)))
        if self.settings.balanced:
            parts = [_rounds(self.classes, self.videos, rng) for _ in range(self.settings.repeat)]
            turns = max(len(videos) for videos in self.classes)
        else:
            count = self.videos if self.chosen is None else len(self.chosen)
            parts = [_shuffled(count, self.settings.block, rng) for _ in range(self.settings.repeat)]
            parts, turns = parts if self.chosen is None else [self.chosen[places] for places in parts], 1
        for place, part in enumerate(parts):
            part += place * turns * self.videos
        return np.concatenate(parts) if len(parts) > 1 else parts[0]


def _limited(videos: int, limit: int, seed: int) -> np.ndarray:
    """The videos that are used, in the order of the store."""
    drawn = np.random.default_rng(np.random.SeedSequence((LIMIT, seed))).permutation(videos)
    return np.sort(drawn[:limit])


def _shuffled(count: int, block: int, rng: np.random.Generator) -> np.ndarray:
    """0 to count - 1, freely or by blocks."""
    if not block:
        return rng.permutation(count)
    blocks = rng.permutation(-(-count // block))
    parts = []
    for first in range(0, len(blocks), WINDOW):
        places = (blocks[first : first + WINDOW, None] * block + np.arange(block)).ravel()
        parts.append(rng.permutation(places[places < count]))  # the last block may be a smaller one
    return np.concatenate(parts)


def _rounds(classes: list[np.ndarray], videos: int, rng: np.random.Generator) -> np.ndarray:
    """Samples of as many rounds as the largest class has videos."""
    rounds = max(len(members) for members in classes)
    columns = []
    for members in classes:
        turns = -(-rounds // len(members))
        columns.append(np.concatenate([turn * videos + rng.permutation(members) for turn in range(turns)])[:rounds])
    return rng.permuted(np.stack(columns, axis=1), axis=1).ravel()
