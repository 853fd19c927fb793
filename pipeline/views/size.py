"""Stored size of frames."""

from __future__ import annotations

from typing import Annotated

import cv2
import numpy as np

from pipeline.arguments import within
from pipeline.errors import UsageError

SHORT_SIDE = 256  # pixels, where nothing is asked for
SMALLEST = 16  # TV-L1's pyramid stops there
LARGEST = 16384

Side = Annotated[int, within(SMALLEST, LARGEST)]
ShortSide = Annotated[int, within(SMALLEST, LARGEST, "0 keeps the video's size", or_zero=True)]
Size = tuple[Side, Side]  # height and width
Quality = Annotated[int, within(1, 100)]  # of JPEGs


def checked_short_side(view: str, short_side: int, size: Size | None) -> int:
    """The short side that is meant: none beside an exact size. Raises UsageError where both are chosen."""
    if size is None:
        return short_side
    if short_side not in (0, SHORT_SIDE):  # the default gives way; a number that somebody chose does not
        raise UsageError(
            f"{view} size {size[0]} x {size[1]} and {view} short side {short_side} contradict each other",
            remedy="give one of them: size does not keep the shape of frames, short_side does",
        )
    return 0


def resize(frames: np.ndarray, short_side: int, size: Size | None) -> np.ndarray:
    """Frames (n, H, W, 3) at exactly `size` where one is given; otherwise with a shorter side of at most `short_side`.

    Only `size` enlarges or changes the shape of frames; a short side of 0 keeps their size.
    """
    height, width = frames.shape[1:3]
    size = stored_size(height, width, short_side, size)
    if size == (height, width):
        return frames
    # Averaging over areas is right for shrinking only; enlarging by it repeats pixels.
    kind = cv2.INTER_AREA if size[0] <= height and size[1] <= width else cv2.INTER_LINEAR
    return np.stack([cv2.resize(frame, size[::-1], interpolation=kind) for frame in frames])


class Block:
    """Frames of a video that follow each other, uint8 RGB (n, H, W, 3). Views that store the same size share what is
    resized to it, which for colour frames costs as much as decoding them."""

    def __init__(self, frames: np.ndarray) -> None:
        self.frames = frames
        self._resized: dict[Size, np.ndarray] = {}

    def resized(self, short_side: int, size: Size | None) -> np.ndarray:
        """See `resize`. Not to be written to."""
        height, width = self.frames.shape[1:3]
        wanted = stored_size(height, width, short_side, size)
        if wanted not in self._resized:
            self._resized[wanted] = resize(self.frames, short_side, size)
        return self._resized[wanted]


def stored_size(height: int, width: int, short_side: int, size: Size | None) -> Size:
    """Height and width at which frames of that size are stored, as `resize` gives them."""
    if size is not None:
        return size
    scale = short_side / min(height, width) if short_side else 1.0
    return (height, width) if scale >= 1 else (max(1, round(height * scale)), max(1, round(width * scale)))
