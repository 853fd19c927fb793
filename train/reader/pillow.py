"""Windows resized as Pillow does it, bit for bit: what the papers' loaders called `resize` (docs/methods.md 7.2).

Each output pixel is a weighted mean of those within the filter's reach, which grows with the factor of shrinking, first
along rows and then along columns, each rounded to bytes; weights are fixed-point numbers.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np

from pipeline.flow.kernels import kernel
from train.augment.plans import Filter
from train.augment.windows import PixelWindow

ONE = 1 << 22  # a weight of one, in Pillow's fixed point
HALF = ONE >> 1
Size = tuple[int, int]  # height and width
Table = tuple[np.ndarray, np.ndarray, np.ndarray]  # of each output pixel: its first pixel, how many, their weights


def _bicubic(x: float) -> float:
    x = abs(x)
    if x < 1:
        return (1.5 * x - 2.5) * x * x + 1
    return ((-0.5 * x + 2.5) * x - 4) * x + 2 if x < 2 else 0.0


def _bilinear(x: float) -> float:
    return max(0.0, 1 - abs(x))


FILTERS = {"bicubic": (_bicubic, 2.0), "bilinear": (_bilinear, 1.0)}


@functools.lru_cache(maxsize=4096)
def weights(kind: Filter, pixels: int, size: int) -> Table:
    """What `size` output pixels are made of, of `pixels` input pixels: int64 (size,) twice, int32 (size, K)."""
    scale = pixels / size
    if kind == "nearest":
        places = np.cumsum([0.5 * scale, *[scale] * (size - 1)])  # with the rounding of a running sum, as there
        firsts = np.minimum(places.astype(np.int64), pixels - 1)
        return firsts, np.ones(size, np.int64), np.full((size, 1), ONE, np.int32)
    shape, reach = FILTERS[kind]
    wide = max(scale, 1.0)
    reach *= wide
    table = np.zeros((size, 2 * math.ceil(reach) + 1), np.int32)
    firsts, counts = np.empty(size, np.int64), np.empty(size, np.int64)
    for place in range(size):
        centre = (place + 0.5) * scale
        first, end = max(0, int(centre - reach + 0.5)), min(pixels, int(centre + reach + 0.5))
        given = [shape((x - centre + 0.5) * (1 / wide)) for x in range(first, end)]
        total = sum(given)
        for number, weight in enumerate(given):
            exact = weight / total * ONE
            table[place, number] = int(exact - 0.5) if exact < 0 else int(exact + 0.5)
        firsts[place], counts[place] = first, end - first
    return firsts, counts, table


class PillowResize:
    """See `train.reader.resize.WindowResize`; bytes into bytes, of 1 or 3 interleaved channels."""

    def __init__(self, kind: Filter, channels: int, window: PixelWindow, flip: bool, size: Size) -> None:
        top, left, height, width = window
        self.channels, self._window = channels, (slice(top, top + height), slice(left, left + width))
        self._rows = weights(kind, height, size[0])
        columns = weights(kind, width, size[1])
        self._columns = tuple(part[::-1].copy() for part in columns) if flip else columns
        self._between = np.empty((height, size[1] * channels), np.uint8)
        self._sums = np.empty(size[1] * channels, np.int32)

    def __call__(self, frames: Sequence[np.ndarray], clip: np.ndarray, places: np.ndarray) -> None:
        for frame, place in zip(frames, places, strict=True):
            planes = frame[None] if self.channels > 1 else frame[..., None]
            for plane, target in zip(planes, clip[:, place], strict=True):
                cut = plane[self._window]
                _resize(cut, *self._columns, *self._rows, self._between, self._sums, target)


@kernel
def _resize(image, lefts, across, by_column, tops, down, by_row, between, sums, out):  # pragma: no cover - compiled
    """image (H, W, C), of any strides, into out (h, w * C)."""
    if image.shape[2] == 3:
        for y in range(len(image)):
            for x in range(len(lefts)):
                red = green = blue = np.int32(HALF)
                for k in range(across[x]):
                    weight, column = by_column[x, k], lefts[x] + k
                    red += np.int32(image[y, column, 0]) * weight
                    green += np.int32(image[y, column, 1]) * weight
                    blue += np.int32(image[y, column, 2]) * weight
                between[y, 3 * x] = min(max(red >> 22, 0), 255)
                between[y, 3 * x + 1] = min(max(green >> 22, 0), 255)
                between[y, 3 * x + 2] = min(max(blue >> 22, 0), 255)
    else:
        for y in range(len(image)):
            for x in range(len(lefts)):
                total = np.int32(HALF)
                for k in range(across[x]):
                    total += np.int32(image[y, lefts[x] + k, 0]) * by_column[x, k]
                between[y, x] = min(max(total >> 22, 0), 255)
    for y in range(len(tops)):
        sums[:] = HALF
        for k in range(down[y]):
            weight, row = by_row[y, k], between[tops[y] + k]
            for x in range(len(sums)):
                sums[x] += np.int32(row[x]) * weight
        target = out[y]
        for x in range(len(sums)):
            target[x] = min(max(sums[x] >> 22, 0), 255)
