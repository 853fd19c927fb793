"""Random numbers of a sample, pure functions of (seed, epoch, sample index): the same on any worker, rank and resume."""

from __future__ import annotations

import numpy as np

DOMAIN = 0x70697865  # keeps these random numbers apart from those of other users of the same seed


class Draws:
    """shared: what a sample draws for all its clips, or a clip for all its views.

    `clip` gives the draws of one of a sample's clips, `of` the numbers of one of the views.
    """

    def __init__(self, shared: np.random.Generator) -> None:
        self.shared = shared

    def clip(self, number: int) -> Draws:
        return self

    def of(self, view: str) -> np.random.Generator:
        return self.shared


def of_sample(seed: int, epoch: int, sample: int) -> Draws:
    """Of one sample of one epoch; equal triples give equal numbers."""
    return Draws(generator(seed, epoch, sample))


def generator(seed: int, epoch: int, sample: int) -> np.random.Generator:
    """The random numbers of one sample of one epoch; equal triples give equal numbers, on any worker."""
    return np.random.default_rng(np.random.SeedSequence((DOMAIN, seed, epoch, sample)))
