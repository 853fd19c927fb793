"""Stored size of frames."""

from __future__ import annotations

import cv2
import numpy as np

from pipeline.errors import UsageError

SMALLEST = 16  # TV-L1's pyramid stops there


def check_size_and_quality(view: str, short_side: int, quality: int) -> None:
    """Raise UsageError for values that cannot be meant."""
    if not 1 <= quality <= 100:
        raise UsageError(f"{view} quality {quality} is not between 1 and 100")
    if short_side and short_side < SMALLEST:
        raise UsageError(
            f"{view} short side {short_side} is below {SMALLEST} pixels", remedy="0 keeps the video's size"
        )


def shrink(frames: np.ndarray, short_side: int) -> np.ndarray:
    """Frames (n, H, W, 3) shrunk so that the shorter side is `short_side` pixels; never enlarged; 0 keeps the size."""
    height, width = frames.shape[1:3]
    if not short_side or min(height, width) <= short_side:
        return frames
    scale = short_side / min(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in frames])
