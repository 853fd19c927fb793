"""Crop windows: (top, left, height, width) as fractions of the frame."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

Window = tuple[float, float, float, float]
PixelWindow = tuple[int, int, int, int]  # the same in whole pixels

WHOLE: Window = (0.0, 0.0, 1.0, 1.0)
ATTEMPTS = 10  # of a random resized crop, as in torchvision


def random_resized(
    rng: np.random.Generator,
    frame_size: tuple[int, int],
    area: tuple[float, float],
    aspect: tuple[float, float] = (3 / 4, 4 / 3),
    retry: bool = True,
    rounded: bool = False,
) -> Window:
    """A window of a random area (a fraction of the frame's) and aspect ratio (width / height, in pixels) at a random
    place.

    Both are uniform in their range, and then, one time in two, the sides are swapped (CoCLR; torchvision draws a
    log-uniform ratio, which favours neither side either). A box that does not fit is drawn again, up to ten times, and
    then gives way to the largest square, centred. Without `retry` the whole frame is taken in its place, squashed
    (CoCLR's released code, docs/methods.md 2.2: 28.5 to 29.3 % of the views at 4:3). Sides are cut to whole
    pixels, or `rounded` as in that code, where it is 29.2 to 29.5 %.
    """
    height, width = frame_size
    drawn = rng.random((ATTEMPTS, 5))
    for extent, ratio, swap, down, across in drawn[: ATTEMPTS if retry else 1].tolist():
        pixels = (area[0] + extent * (area[1] - area[0])) * height * width
        shape = aspect[0] + ratio * (aspect[1] - aspect[0])
        shape = 1 / shape if swap < 0.5 else shape
        # Whole pixels decide what fits, or the share of whole frames would be one percent higher than the published
        # one.
        whole = round if rounded else int
        tall, wide = max(1, whole(math.sqrt(pixels / shape))), max(1, whole(math.sqrt(pixels * shape)))
        if tall <= height and wide <= width:
            return down * (1 - tall / height), across * (1 - wide / width), tall / height, wide / width
    return square(frame_size, 1.0) if retry else WHOLE


def square(frame_size: tuple[int, int], side: float, place: tuple[float, float] = (0.5, 0.5)) -> Window:
    """A square with this fraction of the frame's short side; place: (down, across) in 0..1, centred by default."""
    pixels = side * min(frame_size)
    height, width = pixels / frame_size[0], pixels / frame_size[1]
    return place[0] * (1 - height), place[1] * (1 - width), height, width


def crops(frame_size: tuple[int, int], side: float, count: int) -> list[tuple[Window, bool]]:
    """The squares of a test by several crops, each with whether it is mirrored; side: as in `square`.

    1: the centre. 3: along the longer side, from its beginning to its end. 10: the centre and the four corners, and
    then all five mirrored (docs/methods.md 7.1). Raises ValueError for another count.
    """
    if count == 1:
        return [(square(frame_size, side), False)]
    if count == 3:
        upright = frame_size[0] > frame_size[1]
        along = [(share, 0.5) if upright else (0.5, share) for share in (0.0, 0.5, 1.0)]
        return [(square(frame_size, side, place), False) for place in along]
    if count == 10:
        places = [(0.5, 0.5), (0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0)]
        return [(square(frame_size, side, place), mirrored) for mirrored in (False, True) for place in places]
    raise ValueError(f"a test has 1, 3 or 10 crops, not {count}")


def pixel_window(window: Window, height: int, width: int) -> PixelWindow:
    """(top, left, height, width) in whole pixels of a frame of `height` x `width`.

    Every executor cuts this window. The two edges of each axis are rounded to the nearest pixel, at least one apart.
    """
    top, down = _edges(window[0], window[2], height)
    left, across = _edges(window[1], window[3], width)
    return top, left, down, across


def fullest(windows: Sequence[PixelWindow], sums: Sequence[float]) -> PixelWindow:
    """The window with the largest mean, of equal ones the first; sums: over the pixels of each."""
    means = [total / (height * width) for total, (_, _, height, width) in zip(sums, windows, strict=True)]
    return windows[means.index(max(means))]


def _edges(start: float, extent: float, size: int) -> tuple[int, int]:
    first = min(round(start * size), size - 1)
    last = min(max(round((start + extent) * size), first + 1), size)
    return first, last - first
