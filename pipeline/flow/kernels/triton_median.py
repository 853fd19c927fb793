"""Median of 5 x 5 floats on a GPU, borders repeated: the scheme of `kernels.median`, two pixels above each other at a
time.

Their windows have four rows in common. Each row of five is sorted; of the 20 common values only six can be a median,
which a network finds; each pixel then takes the sixth of those six and its own fifth row.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _order(a, b):
    return tl.minimum(a, b), tl.maximum(a, b)


@triton.jit
def _sorted_row(plane, y, x, height, width, inside):
    """The five values about column x of row y, ascending."""
    row = plane + tl.minimum(tl.maximum(y, 0), height - 1) * width
    last = width - 1
    a = tl.load(row + tl.maximum(x - 2, 0), inside, 0.0)
    b = tl.load(row + tl.maximum(x - 1, 0), inside, 0.0)
    c = tl.load(row + x, inside, 0.0)
    d = tl.load(row + tl.minimum(x + 1, last), inside, 0.0)
    e = tl.load(row + tl.minimum(x + 2, last), inside, 0.0)
    a, b = _order(a, b)
    d, e = _order(d, e)
    c, e = _order(c, e)
    c, d = _order(c, d)
    b, e = _order(b, e)
    a, d = _order(a, d)
    a, c = _order(a, c)
    b, d = _order(b, d)
    b, c = _order(b, c)
    return a, b, c, d, e


@triton.jit
def _sort4(a, b, c, d):
    a, b = _order(a, b)
    c, d = _order(c, d)
    a, c = _order(a, c)
    b, d = _order(b, d)
    b, c = _order(b, c)
    return a, b, c, d


@triton.jit
def _middle_six(m02, m03, m04, m11, m12, m13, m14, m20, m21, m22, m23, m30, m31, m32):
    """Ranks 8 to 13 of a 4 x 5 matrix whose rows and columns ascend: the network of `median.middle_six`."""
    m03, m21 = _order(m03, m21)
    m14, m32 = _order(m14, m32)
    m13, m31 = _order(m13, m31)
    m02, m20 = _order(m02, m20)
    m04, m30 = _order(m04, m30)
    m04, m12 = _order(m04, m12)
    m22, m30 = _order(m22, m30)
    m12, m21 = _order(m12, m21)
    m03, m20 = _order(m03, m20)
    m04, m20 = _order(m04, m20)
    m13, m22 = _order(m13, m22)
    m14, m30 = _order(m14, m30)
    m11, m20 = _order(m11, m20)
    m14, m31 = _order(m14, m31)
    m14, m23 = _order(m14, m23)
    m13, m20 = _order(m13, m20)
    m14, m21 = _order(m14, m21)
    m12, m13 = _order(m12, m13)
    m13, m20 = _order(m13, m20)
    m21, m22 = _order(m21, m22)
    m14, m21 = _order(m14, m21)
    m14, m20 = _order(m14, m20)
    return m12, m13, m14, m20, m21, m22


@triton.jit
def _sixth(s0, s1, s2, s3, s4, s5, r0, r1, r2, r3, r4):
    """The sixth smallest of six sorted and five sorted values: the least bound that i of one and 6 - i of the other
    share."""
    low = tl.minimum(tl.maximum(s0, r4), tl.maximum(s1, r3))
    low = tl.minimum(low, tl.minimum(tl.maximum(s2, r2), tl.maximum(s3, r1)))
    return tl.minimum(low, tl.minimum(tl.maximum(s4, r0), s5))


@triton.jit
def _two_medians(flow, medians, height, width, offset):
    """Of one plane, at the pixels that `offset` counts in every second row, and below them."""
    y = offset // width
    x = offset - y * width
    y = 2 * y
    inside = y < height
    a0, a1, a2, a3, a4 = _sorted_row(flow, y - 1, x, height, width, inside)
    b0, b1, b2, b3, b4 = _sorted_row(flow, y, x, height, width, inside)
    c0, c1, c2, c3, c4 = _sorted_row(flow, y + 1, x, height, width, inside)
    d0, d1, d2, d3, d4 = _sorted_row(flow, y + 2, x, height, width, inside)
    _, _, m20, m30 = _sort4(a0, b0, c0, d0)
    _, m11, m21, m31 = _sort4(a1, b1, c1, d1)
    m02, m12, m22, m32 = _sort4(a2, b2, c2, d2)
    m03, m13, m23, _ = _sort4(a3, b3, c3, d3)
    m04, m14, _, _ = _sort4(a4, b4, c4, d4)
    s0, s1, s2, s3, s4, s5 = _middle_six(m02, m03, m04, m11, m12, m13, m14, m20, m21, m22, m23, m30, m31, m32)
    r0, r1, r2, r3, r4 = _sorted_row(flow, y - 2, x, height, width, inside)
    tl.store(medians + y * width + x, _sixth(s0, s1, s2, s3, s4, s5, r0, r1, r2, r3, r4), inside)
    r0, r1, r2, r3, r4 = _sorted_row(flow, y + 3, x, height, width, inside)
    lower = _sixth(s0, s1, s2, s3, s4, s5, r0, r1, r2, r3, r4)
    tl.store(medians + (y + 1) * width + x, lower, inside & (y + 1 < height))


@triton.jit(do_not_specialize=["height", "width"])
def median5(flow, medians, left, height, width, BLOCK: tl.constexpr):
    """medians (B, 2, H, W) of the flow (B, 2, H, W), for pairs with iterations left; grid (2 B, blocks of pairs of
    pixels)."""
    plane = tl.program_id(0).to(tl.int64)
    if tl.load(left + plane // 2) > 0:
        flow += plane * height * width
        medians += plane * height * width
        offset = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
        _two_medians(flow, medians, height, width, offset)
