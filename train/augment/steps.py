"""Colour as the papers' code changes it: steps on bytes, in random order (docs/methods.md 7.2).

A value of NaN leaves its frame alone. The numbers are those of which `train.clips.colour` makes affine maps, so that
the same sample has the same brightness, contrast, saturation, hue and gray by either way.
"""

from __future__ import annotations

import itertools

import numpy as np

from train.clips.colour import Gray

Step = tuple[str, np.ndarray]
KINDS = ("brightness", "contrast", "saturation", "hue")
# Those with brightness before contrast come first, as a number below one half means it there.
ORDERS = np.array(sorted(itertools.permutations(range(4)), key=lambda order: order.index(0) > order.index(1)))


def jitter(numbers: np.ndarray, applied: np.ndarray, ranges: tuple[float, float, float, float]) -> list[Step]:
    """The steps of the colour jitter from `numbers` (K, 5) drawn uniformly in 0..1; K is 1, or T.

    applied: (K,) bool, of frames that are changed at all. ranges: half ranges of the factors of brightness, contrast
    and saturation, and of hue's shift in turns; 0: no such step.
    """
    moved = (2 * numbers[:, :4] - 1) * ranges
    values = moved + (1, 1, 1, 0)
    orders = ORDERS[(numbers[:, 4] * len(ORDERS)).astype(int)]
    made = []
    for place in range(len(KINDS)):
        for number, kind in enumerate(KINDS):
            now = applied & (orders[:, place] == number)
            if ranges[number] and now.any():
                made.append((kind, np.where(now, values[:, number], np.nan)))
    return made


def gray(kind: Gray, applied: np.ndarray, channels: np.ndarray) -> list[Step]:
    """All three channels alike in frames that are `applied` (K,): luminance, or a copy of one of `channels` (T,)."""
    if not applied.any():
        return []
    if kind == "luminance":
        return [("luminance", np.where(applied, 0.0, np.nan))]
    return [("channel", np.where(applied, channels, np.nan))]
