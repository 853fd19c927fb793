"""TV-L1's pyramid on a GPU: bilinear resizing by OpenCV's rule, and the gradients of a level.

One program computes BLOCK pixels of one plane, or of one pair; offsets from the first pixel of a plane fit 32 bits, the
planes before it need 64.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _taps(place, length, scale):
    """`tvl1.linear_taps` of the pixels `place`: index of the left neighbour, and its distance; scale: double."""
    position = (place.to(tl.float64) + 0.5) * scale - 0.5
    whole = tl.floor(position)
    index = whole.to(tl.int32)
    beyond = index >= length - 1
    shrinks = scale > 1
    distance = tl.where(index < 0, 0.0, (position - whole).to(tl.float32))
    distance = tl.where(beyond, tl.where(shrinks, 1.0, 0.0), distance)
    return tl.where(beyond, tl.where(shrinks, length - 2, length - 1), tl.maximum(index, 0)), distance


@triton.jit
def _resized(planes, resized, height, width, new_height, new_width, offset, STEP: tl.constexpr, UP: tl.constexpr):
    """The pixels `offset` of a plane that is made STEP times as small; or, UP, as large as a finer level is, and STEP
    times its value. Where both sizes are the same, it stays as it is."""
    down = height.to(tl.float64) / new_height.to(tl.float64)
    across = width.to(tl.float64) / new_width.to(tl.float64)
    if not UP:
        same = (height == new_height) & (width == new_width)
        step = tl.full((), STEP, tl.float64)
        down, across = tl.where(same, down, step), tl.where(same, across, step)
    inside = offset < new_height * new_width
    y = offset // new_width
    row, below = _taps(y, height, down)
    column, beside = _taps(offset - y * new_width, width, across)
    next_column = tl.minimum(column + 1, width - 1)
    line = planes + row * width
    value, other = tl.load(line + column, inside, 0.0), tl.load(line + next_column, inside, 0.0)
    upper = tl.fma(other - value, beside, value)
    line = planes + tl.minimum(row + 1, height - 1) * width
    value, other = tl.load(line + column, inside, 0.0), tl.load(line + next_column, inside, 0.0)
    lower = tl.fma(other - value, beside, value)
    value = tl.fma(lower - upper, below, upper)
    if UP:
        value = (value.to(tl.float64) * STEP).to(tl.float32)
    tl.store(resized + offset, value, inside)


@triton.jit
def _differences(image, gradients, size, width, offset):
    """Central differences of one image, borders repeated, at the pixels `offset`."""
    inside = offset < size
    x = offset % width
    left = tl.load(image + offset - tl.where(x > 0, 1, 0), inside, 0.0)
    right = tl.load(image + offset + tl.where(x < width - 1, 1, 0), inside, 0.0)
    above = tl.load(image + tl.where(offset >= width, offset - width, offset), inside, 0.0)
    below = tl.load(image + tl.where(offset < size - width, offset + width, offset), inside, 0.0)
    tl.store(gradients + offset, 0.5 * (right - left), inside)
    tl.store(gradients + size + offset, 0.5 * (below - above), inside)


@triton.jit(do_not_specialize=["height", "width", "new_height", "new_width"])
def resize(
    planes, resized, height, width, new_height, new_width, STEP: tl.constexpr, UP: tl.constexpr, BLOCK: tl.constexpr
):
    """resized (P, new_height, new_width) of planes (P, height, width); grid (P, blocks of new pixels)."""
    plane = tl.program_id(0).to(tl.int64)
    offset = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    planes += plane * height * width
    resized += plane * new_height * new_width
    _resized(planes, resized, height, width, new_height, new_width, offset, STEP, UP)


@triton.jit(do_not_specialize=["height", "width"])
def differentiate(images, gradients, height, width, BLOCK: tl.constexpr):
    """Central differences with repeated borders: gradients (B, 2, H, W) of images (B, H, W); grid (B, blocks of
    pixels)."""
    pair = tl.program_id(0).to(tl.int64)
    size = height * width
    offset = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    _differences(images + pair * size, gradients + pair * 2 * size, size, width, offset)
