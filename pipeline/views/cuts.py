"""Cuts between shots: frame pairs whose flow means nothing, whatever the estimator.

TV-L1 never settles across a cut and takes ten times as long; its result there is chaos (docs/methods.md 1.2).
"""

from __future__ import annotations

import cv2
import numpy as np

# Measured on 3,483 pairs of neighbouring frames of 50 real clips, and 500 pairs of frames of different clips: the rule
# flags 3 of the former (one is a cut, two are jumps of a camera at few frames a second) and 97 % of the latter.
DIFFERENCE = 12.0  # gray levels, mean over a 16 x 16 thumbnail
HISTOGRAM = 0.15  # share of the pixels that change their bin of 4 x 4 x 4 colours
TIMES = 3.0  # times the median difference of the ten pairs around it
THUMBNAIL = (16, 16)
NEIGHBOURS = 5  # on each side


class CutFinder:
    """Takes the frames of one video, block after block, and tells at the end where it is cut."""

    def __init__(self) -> None:
        self._last: tuple[np.ndarray, np.ndarray] | None = None
        self._differences: list[float] = []
        self._changes: list[float] = []

    def add(self, frames: np.ndarray) -> None:
        """uint8 RGB (n, H, W, 3), in order; a block begins with the last frame of the block before it."""
        for index, frame in enumerate(frames):
            if index == 0 and self._last is not None:
                continue
            seen = _thumbnail(frame), _histogram(frame)
            if self._last is not None:
                self._differences.append(float(np.abs(seen[0] - self._last[0]).mean()))
                self._changes.append(float(np.abs(seen[1] - self._last[1]).sum() / 2))
            self._last = seen

    def found(self) -> list[int]:
        """Each t for which a cut lies between the frames t and t+1, so that flow[t] means nothing."""
        cuts = []
        for pair, (difference, change) in enumerate(zip(self._differences, self._changes, strict=True)):
            around = (
                self._differences[max(0, pair - NEIGHBOURS) : pair]
                + self._differences[pair + 1 : pair + 1 + NEIGHBOURS]
            )
            usual = float(np.median(around)) if around else 0.0
            if difference > DIFFERENCE and change > HISTOGRAM and difference > TIMES * (usual + 1):
                cuts.append(pair)
        return cuts


def _thumbnail(frame: np.ndarray) -> np.ndarray:
    return cv2.resize(frame, THUMBNAIL, interpolation=cv2.INTER_AREA).astype(np.float32)


def _histogram(frame: np.ndarray) -> np.ndarray:
    counts = cv2.calcHist([frame], [0, 1, 2], None, [4, 4, 4], [0, 256] * 3).ravel()
    return counts / counts.sum()
