"""Warping of TV-L1 on a GPU: the second frame and its gradients at x + u, and the constant part of the residual.

Bicubic with a = -0.75 and zeros outside the image, added in the order of OpenCV 5's remap; a tap of all three planes
has its place and weight computed once.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _weights(x):
    """Cubic convolution at fraction x; the roundings are OpenCV's."""
    rest = 1 - x
    squared = x * x
    first = -0.75 * (x * (rest * rest))
    last = -0.75 * (rest * squared)
    second = tl.fma(tl.fma(1.25, x, -2.25), squared, 1.0)
    return first, second, ((1 - first) - second) - last, last


@triton.jit
def _row(plane, start, i0, i1, i2, i3, w0, w1, w2, w3):
    """Four taps of one row, from left to right; i0 to i3 say which lie in the image."""
    total = w0 * tl.load(plane + start, i0, 0.0)
    total = tl.fma(w1, tl.load(plane + start + 1, i1, 0.0), total)
    total = tl.fma(w2, tl.load(plane + start + 2, i2, 0.0), total)
    return tl.fma(w3, tl.load(plane + start + 3, i3, 0.0), total)


@triton.jit
def _sample(plane, top, left, height, width, inside, w0, w1, w2, w3, v0, v1, v2, v3):
    """4 x 4 taps whose first is at (top, left), weighted by w0 to w3 across and v0 to v3 down."""
    i0 = inside & (left >= 0) & (left < width)
    i1 = inside & (left >= -1) & (left < width - 1)
    i2 = inside & (left >= -2) & (left < width - 2)
    i3 = inside & (left >= -3) & (left < width - 3)
    start = top * width + left
    j = (top >= 0) & (top < height)
    total = v0 * _row(plane, start, i0 & j, i1 & j, i2 & j, i3 & j, w0, w1, w2, w3)
    j = (top >= -1) & (top < height - 1)
    total = tl.fma(v1, _row(plane, start + width, i0 & j, i1 & j, i2 & j, i3 & j, w0, w1, w2, w3), total)
    j = (top >= -2) & (top < height - 2)
    total = tl.fma(v2, _row(plane, start + 2 * width, i0 & j, i1 & j, i2 & j, i3 & j, w0, w1, w2, w3), total)
    j = (top >= -3) & (top < height - 3)
    return tl.fma(v3, _row(plane, start + 3 * width, i0 & j, i1 & j, i2 & j, i3 & j, w0, w1, w2, w3), total)


@triton.jit
def _data_term(first, second, gradients, flow, data, size, height, width, offset):
    """ix, iy, rho of one pair about its flow, at the pixels `offset`."""
    inside = offset < size
    y = offset // width
    u = tl.load(flow + offset, inside, 0.0)
    v = tl.load(flow + size + offset, inside, 0.0)
    # Three pixels outside the image all taps are outside; the bounds keep the index small.
    column = tl.minimum(tl.maximum((offset - y * width).to(tl.float32) + u, -3.0), (width + 1).to(tl.float32))
    row = tl.minimum(tl.maximum(y.to(tl.float32) + v, -3.0), (height + 1).to(tl.float32))
    whole_column, whole_row = tl.floor(column), tl.floor(row)
    w0, w1, w2, w3 = _weights(column - whole_column)
    v0, v1, v2, v3 = _weights(row - whole_row)
    x0, y0 = whole_column.to(tl.int32) - 1, whole_row.to(tl.int32) - 1
    image = _sample(second, y0, x0, height, width, inside, w0, w1, w2, w3, v0, v1, v2, v3)
    ix = _sample(gradients, y0, x0, height, width, inside, w0, w1, w2, w3, v0, v1, v2, v3)
    iy = _sample(gradients + size, y0, x0, height, width, inside, w0, w1, w2, w3, v0, v1, v2, v3)
    rho = ((image - ix * u) - iy * v) - tl.load(first + offset, inside, 0.0)
    tl.store(data + offset, ix, inside)
    tl.store(data + size + offset, iy, inside)
    tl.store(data + 2 * size + offset, rho, inside)


@triton.jit(do_not_specialize=["height", "width", "most"])
def linearise(firsts, seconds, gradients, flow, data, left, height, width, most, BLOCK: tl.constexpr):
    """The data term about the flow (B, 2, H, W): data (B, 3, H, W) is ix, iy, rho; grid (B, blocks of pixels).

    firsts, seconds: (B, H, W); gradients: of the second, (B, 2, H, W). Every pair has `most` iterations left
    afterwards.
    """
    pair = tl.program_id(0).to(tl.int64)
    size = height * width
    firsts += pair * size
    seconds += pair * size
    gradients += pair * 2 * size
    flow += pair * 2 * size
    data += pair * 3 * size
    if tl.program_id(1) == 0:
        tl.store(left + pair, most)
    offset = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    _data_term(firsts, seconds, gradients, flow, data, size, height, width, offset)
