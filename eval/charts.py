"""Numbers of a page as shapes: bars, and loss curves as SVG paths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

POINTS = 300


@dataclass(frozen=True)
class Bar:
    """A share of the queries, 0..1, as a bar with a line of `error` to both sides, and a dot for `each` value that it
    is the mean of."""

    name: str
    kind: str  # "trained" | "untrained" | "chance"
    value: float
    error: float | None
    each: tuple[float, ...] = ()


@dataclass(frozen=True)
class Curve:
    """A curve in a square of 100 x 100, y downwards: `path` as measured, `smooth` its running mean, with its limits."""

    path: str
    smooth: str
    first: float
    last: float
    x_min: int
    x_max: int
    y_min: float
    y_max: float


def curve(steps: Sequence[int], values: Sequence[float]) -> Curve:
    """Loss over steps; long runs are averaged to POINTS points, and the mean runs over a twentieth of them.

    Values that are not finite leave a gap. At least one finite value is needed.
    """
    x, y = np.asarray(steps, dtype=float), np.asarray(values, dtype=float)
    finite = np.isfinite(y)
    x, y = x[finite], y[finite]
    groups = np.array_split(np.arange(len(x)), min(POINTS, len(x)))
    x, y = (np.array([v[g].mean() for g in groups]) for v in (x, y))
    window = max(1, len(y) // 20)
    mean = np.array([y[max(0, i - window + 1) : i + 1].mean() for i in range(len(y))])
    low, high = float(y.min()), float(y.max())
    across = 100 * (x - x[0]) / max(x[-1] - x[0], 1e-9)

    def path(heights: np.ndarray) -> str:
        down = 100 * (high - heights) / max(high - low, 1e-9)
        return "M" + " L".join(f"{a:.2f} {b:.2f}" for a, b in zip(across, down, strict=True))

    return Curve(
        path(y),
        path(mean),
        float(mean[min(window, len(mean)) - 1]),
        float(mean[-1]),
        int(min(steps)),
        int(max(steps)),
        low,
        high,
    )
