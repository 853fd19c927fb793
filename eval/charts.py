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


def curve(*runs: tuple[Sequence[int], Sequence[float]]) -> Curve:
    """Loss over steps of one run, or of several with other seeds: `path` then shows each of them, and `smooth` is of
    their mean, as far as all of them go.

    Long runs are averaged to POINTS points, and the mean runs over a twentieth of them. Values that are not finite
    leave a gap. At least one finite value is needed of each.
    """
    drawn = [_thinned(np.asarray(steps, dtype=float), np.asarray(values, dtype=float)) for steps, values in runs]
    left, right = min(x[0] for x, _ in drawn), max(x[-1] for x, _ in drawn)
    low, high = (float(limit([limit(y) for _, y in drawn])) for limit in (np.min, np.max))
    shared = drawn[0][0][drawn[0][0] <= min(x[-1] for x, _ in drawn)]
    shared = shared if len(shared) else drawn[0][0][:1]
    together = np.mean([np.interp(shared, x, y) for x, y in drawn], axis=0)
    window = max(1, len(together) // 20)
    mean = np.array([together[max(0, i - window + 1) : i + 1].mean() for i in range(len(together))])

    def path(x: np.ndarray, heights: np.ndarray) -> str:
        across = 100 * (x - left) / max(right - left, 1e-9)
        down = 100 * (high - heights) / max(high - low, 1e-9)
        return "M" + " L".join(f"{a:.2f} {b:.2f}" for a, b in zip(across, down, strict=True))

    return Curve(
        " ".join(path(x, y) for x, y in drawn),
        path(shared, mean),
        float(mean[min(window, len(mean)) - 1]),
        float(mean[-1]),
        int(min(min(steps) for steps, _ in runs)),
        int(max(max(steps) for steps, _ in runs)),
        low,
        high,
    )


def _thinned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    finite = np.isfinite(y)
    x, y = x[finite], y[finite]
    groups = np.array_split(np.arange(len(x)), min(POINTS, len(x)))
    return np.array([x[g].mean() for g in groups]), np.array([y[g].mean() for g in groups])
