"""What a fixed seed may draw: shares and spreads of random numbers, four standard deviations to either side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def assert_share(hits: Sequence | np.ndarray, chance: float) -> None:
    """`hits` (N,) are true as often as by the chance."""
    hits = np.asarray(hits)
    deviation = np.sqrt(chance * (1 - chance) / len(hits))
    assert abs(hits.mean() - chance) <= 4 * deviation, f"{hits.mean():.4f} of {len(hits)}, not {chance:.4f}"


def assert_uniform(values: Sequence | np.ndarray, low: float, high: float) -> None:
    """`values` (N,) fill low..high evenly, tenth by tenth, and lie nowhere else."""
    values = np.asarray(values)
    slack = 1e-5 * (high - low)
    assert values.min() >= low - slack and values.max() <= high + slack, (values.min(), values.max())
    tenths = np.clip(((values - low) / (high - low) * 10).astype(int), 0, 9)
    for tenth in range(10):
        assert_share(tenths == tenth, 0.1)
