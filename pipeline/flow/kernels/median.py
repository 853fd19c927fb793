"""Median of 5 x 5 floats on a CPU, borders repeated: about 70 minima and maxima a pixel, OpenCV's takes 180.

Two things are shared. Each row's sliding windows of five are sorted once, for all five windows below each other. And
two outputs above each other have four rows in common: of their 20 values only the six in the middle (ranks 8 to 13) can
be a median; each output then takes the sixth of those six and its own row of five, both sorted. Networks of minima and
maxima sort every input if they sort every input of zeros and ones (Knuth, 5.3.4), which the tests go through one by
one.
"""

from __future__ import annotations

import numpy as np

from pipeline.flow.kernels import kernel, part
from pipeline.flow.kernels.instructions import peek, poke

RADIUS = 2
IN, OUT, UPPER, LOWER = 0, 1, 2, 3  # planes, see `instructions`


@part
def _order(a, b):  # pragma: no cover - compiled
    return min(a, b), max(a, b)


@part
def _sort_windows(row, width, out):  # pragma: no cover - compiled
    """out[k * width + x] = the k-th smallest of row[x : x + 5]; row is padded by RADIUS on both sides."""
    width2, width3, width4 = 2 * width, 3 * width, 4 * width
    for x in range(width):
        a, b, c, d, e = (
            peek(row, x, IN),
            peek(row, x + 1, IN),
            peek(row, x + 2, IN),
            peek(row, x + 3, IN),
            peek(row, x + 4, IN),
        )
        a, b = _order(a, b)
        d, e = _order(d, e)
        c, e = _order(c, e)
        c, d = _order(c, d)
        b, e = _order(b, e)
        a, d = _order(a, d)
        a, c = _order(a, c)
        b, d = _order(b, d)
        b, c = _order(b, c)
        poke(out, x, a, OUT)
        poke(out, x + width, b, OUT)
        poke(out, x + width2, c, OUT)
        poke(out, x + width3, d, OUT)
        poke(out, x + width4, e, OUT)


@part
def _sort4(a, b, c, d):  # pragma: no cover - compiled
    a, b = _order(a, b)
    c, d = _order(c, d)
    a, c = _order(a, c)
    b, d = _order(b, d)
    b, c = _order(b, c)
    return a, b, c, d


@part
def _sixth(six, r0, r1, r2, r3, r4):  # pragma: no cover - compiled
    """The sixth smallest of six sorted and five sorted values: the least bound that i of one and 6 - i of the other
    share."""
    s0, s1, s2, s3, s4, s5 = six
    low = min(min(max(s0, r4), max(s1, r3)), min(max(s2, r2), max(s3, r1)))
    return min(low, min(max(s4, r0), s5))


@part
def middle_six(m02, m03, m04, m11, m12, m13, m14, m20, m21, m22, m23, m30, m31, m32):  # pragma: no cover - compiled
    """Ranks 8 to 13 of a 4 x 5 matrix whose rows and columns ascend; the six other values cannot have those ranks.

    A network found by search: 22 exchanges, of which 36 minima and maxima are used.
    """
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


@part
def _two_rows(above, a, b, c, d, below, width, upper, lower):  # pragma: no cover - compiled
    """Medians of two rows from the sorted windows of six, (5, width) each and flat; a to d belong to both."""
    for x in range(width):
        _, _, m20, m30 = _sort4(peek(a, x, IN), peek(b, x, IN), peek(c, x, IN), peek(d, x, IN))
        x1 = x + width
        _, m11, m21, m31 = _sort4(peek(a, x1, IN), peek(b, x1, IN), peek(c, x1, IN), peek(d, x1, IN))
        x2 = x1 + width
        m02, m12, m22, m32 = _sort4(peek(a, x2, IN), peek(b, x2, IN), peek(c, x2, IN), peek(d, x2, IN))
        x3 = x2 + width
        m03, m13, m23, _ = _sort4(peek(a, x3, IN), peek(b, x3, IN), peek(c, x3, IN), peek(d, x3, IN))
        x4 = x3 + width
        m04, m14, _, _ = _sort4(peek(a, x4, IN), peek(b, x4, IN), peek(c, x4, IN), peek(d, x4, IN))
        s0, s1, s2, s3, s4, s5 = middle_six(m02, m03, m04, m11, m12, m13, m14, m20, m21, m22, m23, m30, m31, m32)
        six = (s0, s1, s2, s3, s4, s5)
        poke(
            upper, x,
            _sixth(
                six,
                peek(above, x, IN), peek(above, x1, IN), peek(above, x2, IN), peek(above, x3, IN), peek(above, x4, IN),
            ),
            UPPER,
        )  # fmt: skip
        poke(
            lower, x,
            _sixth(
                six,
                peek(below, x, IN), peek(below, x1, IN), peek(below, x2, IN), peek(below, x3, IN), peek(below, x4, IN),
            ),
            LOWER,
        )  # fmt: skip


@part
def _sorted_row(plane, y, height, width, padded, out):  # pragma: no cover - compiled
    row = plane[min(max(y, 0), height - 1)]
    padded[RADIUS : RADIUS + width] = row[:width]
    padded[:RADIUS] = row[0]
    padded[RADIUS + width : 2 * RADIUS + width] = row[width - 1]
    _sort_windows(padded, width, out)


@kernel
def median5(plane, height, width, out):  # pragma: no cover - compiled
    """5 x 5 median of plane[:height, :width] (float32, finite) into out[:height, :width], another array."""
    padded = np.empty(width + 2 * RADIUS, np.float32)
    spare = np.empty(width, np.float32)
    rows = np.empty((6, 5 * width), np.float32)  # a ring: row y of the image lies at (y + 2) % 6
    for y in range(-RADIUS, RADIUS):
        _sorted_row(plane, y, height, width, padded, rows[(y + 2) % 6])
    for y in range(0, height, 2):
        _sorted_row(plane, y + 2, height, width, padded, rows[(y + 4) % 6])
        _sorted_row(plane, y + 3, height, width, padded, rows[(y + 5) % 6])
        lower = out[y + 1, :width] if y + 1 < height else spare
        _two_rows(
            rows[y % 6], rows[(y + 1) % 6], rows[(y + 2) % 6], rows[(y + 3) % 6], rows[(y + 4) % 6], rows[(y + 5) % 6],
            width, out[y, :width], lower,
        )  # fmt: skip
