"""TV-L1's pyramid on a GPU: bilinear resizing by OpenCV's rule, and the gradients of a level.

One program computes BLOCK pixels of one plane, or of one pair; offsets from the first pixel of a plane fit 32 bits, the
planes before it need 64.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["height", "width", "new_height", "new_width"])
def resize(
    planes, resized, rows, row_distances, columns, column_distances, height, width, new_height, new_width,
    FACTOR: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """resized (P, new_height, new_width) = FACTOR * planes (P, height, width); grid (P, blocks of new pixels).

    rows, row_distances, columns, column_distances: what `tvl1.linear_taps` says of both axes.
    """
    plane = tl.program_id(0).to(tl.int64)
    planes += plane * height * width
    offset = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = offset < new_height * new_width
    y = offset // new_width
    x = offset - y * new_width
    row, column = tl.load(rows + y, inside, 0), tl.load(columns + x, inside, 0)
    down, across = tl.load(row_distances + y, inside, 0.0), tl.load(column_distances + x, inside, 0.0)
    above, below = row * width, tl.minimum(row + 1, height - 1) * width
    right = tl.minimum(column + 1, width - 1)
    value, other = tl.load(planes + above + column, inside, 0.0), tl.load(planes + above + right, inside, 0.0)
    upper = tl.fma(other - value, across, value)
    value, other = tl.load(planes + below + column, inside, 0.0), tl.load(planes + below + right, inside, 0.0)
    lower = tl.fma(other - value, across, value)
    value = tl.fma(lower - upper, down, upper)
    if FACTOR != 1:
        value = (value.to(tl.float64) * FACTOR).to(tl.float32)
    tl.store(resized + plane * new_height * new_width + offset, value, inside)


@triton.jit(do_not_specialize=["height", "width"])
def differentiate(images, gradients, height, width, BLOCK: tl.constexpr):
    """Central differences with repeated borders: gradients (B, 2, H, W) of images (B, H, W); grid (B, blocks of
    pixels)."""
    pair = tl.program_id(0).to(tl.int64)
    size = height * width
    images += pair * size
    gradients += pair * 2 * size
    offset = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = offset < size
    x = offset % width
    left = tl.load(images + offset - tl.where(x > 0, 1, 0), inside, 0.0)
    right = tl.load(images + offset + tl.where(x < width - 1, 1, 0), inside, 0.0)
    above = tl.load(images + tl.where(offset >= width, offset - width, offset), inside, 0.0)
    below = tl.load(images + tl.where(offset < size - width, offset + width, offset), inside, 0.0)
    tl.store(gradients + offset, 0.5 * (right - left), inside)
    tl.store(gradients + size + offset, 0.5 * (below - above), inside)
