"""Random numbers of a sample, pure functions of (seed, epoch, sample index): the same on any worker, rank and resume.

Each clip of a sample has numbers of its own, and each view of a clip: another view, or another clip, changes nobody
else's.
"""

from __future__ import annotations

import functools
import zlib

import numpy as np

DOMAIN = 0x70697865  # keeps these random numbers apart from those of other users of the same seed


class Draws:
    """Of a sample, or of one of its clips. key: (seed, epoch, sample), or other whole numbers that say whose they are.

    shared: what a sample draws for all its clips, or a clip for all its views; one generator, which moves on.
    """

    def __init__(self, *key: int) -> None:
        self._key = key

    @functools.cached_property
    def shared(self) -> np.random.Generator:
        return self._generator()

    def clip(self, number: int) -> Draws:
        """The draws of one of a sample's clips."""
        return Draws(*self._key, 1 + number)  # not 0, which would leave a short key as it is

    def of(self, view: str, what: str = "") -> np.random.Generator:
        """The numbers of one of the views, of each `what` others: a generator that begins anew with every call."""
        return self._generator(zlib.crc32(f"{view} {what}".encode()))

    def _generator(self, *which: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence((DOMAIN, *self._key, *which)))
