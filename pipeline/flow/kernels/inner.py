"""The inner loop of TV-L1 on a CPU: one pass over the rows an iteration (docs/methods.md 1.1).

The update of u in row y needs the duals of rows y and y-1, the update of the duals in row y-1 needs u of rows y-1 and
y. So both go down the image together, one row apart, and every plane is read and written once an iteration. Planes are
padded (a zero column and row for the duals, a repeated column for u), so that no row function has a branch.
"""

from __future__ import annotations

import numpy as np

from pipeline.flow.kernels import kernel, part, reordered_part, whole_vectors
from pipeline.flow.kernels.instructions import peek, poke

DATA, U1, U2, P11, P12, P21, P22, OTHER = 0, 1, 2, 3, 4, 5, 6, 7  # planes, see `instructions`
FLAT = np.float32(1.1920929e-07)  # where the squared gradient is no more than this, there is no data term
ZERO = np.float32(0)
# OpenCV adds the squared changes of all pixels one after the other in float32. A sum in any order differs from that one
# by less than this share (up to 250,000 pixels), so where it is further from the threshold, the verdict is the same.
MARGIN = 0.02


@part
def _new_flow(a, b, rho, squared, u, v, divergence1, divergence2, limit, theta):  # pragma: no cover - compiled
    """u + d + theta div p of one pixel, d being the thresholded step along the gradient (a, b)."""
    residual = rho + (a * u + b * v)
    bound = limit * squared
    step = -residual / squared if squared > FLAT else ZERO
    step = -limit if residual > bound else step
    step = limit if residual < -bound else step
    return (u + step * a) + theta * divergence1, (v + step * b) + theta * divergence2


@part
def _update_flow(
    ix, iy, rho, squared, u1, u2, p11, p12, p12_above, p21, p22, p22_above, changes, width, limit, theta
):  # pragma: no cover - compiled
    """u of one row; its squared changes go to `changes`. p11 and p21 begin with the zero column."""
    first_u = peek(u1, 0, U1)
    first_v = peek(u2, 0, U2)
    for x in range(whole_vectors(width)):
        u = peek(u1, x, U1)
        v = peek(u2, x, U2)
        divergence1 = (peek(p11, x + 1, P11) - peek(p11, x, P11)) + (peek(p12, x, P12) - peek(p12_above, x, P12))
        divergence2 = (peek(p21, x + 1, P21) - peek(p21, x, P21)) + (peek(p22, x, P22) - peek(p22_above, x, P22))
        new_u, new_v = _new_flow(
            peek(ix, x, DATA), peek(iy, x, DATA), peek(rho, x, DATA), peek(squared, x, DATA),
            u, v, divergence1, divergence2, limit, theta,
        )  # fmt: skip
        poke(u1, x, new_u, U1)
        poke(u2, x, new_v, U2)
        poke(changes, x, (new_u - u) * (new_u - u) + (new_v - v) * (new_v - v), OTHER)
    # OpenCV adds the three terms of the first column's divergence in another order
    divergence1 = (peek(p11, 1, P11) + peek(p12, 0, P12)) - peek(p12_above, 0, P12)
    divergence2 = (peek(p21, 1, P21) + peek(p22, 0, P22)) - peek(p22_above, 0, P22)
    new_u, new_v = _new_flow(
        peek(ix, 0, DATA), peek(iy, 0, DATA), peek(rho, 0, DATA), peek(squared, 0, DATA),
        first_u, first_v, divergence1, divergence2, limit, theta,
    )  # fmt: skip
    poke(u1, 0, new_u, U1)
    poke(u2, 0, new_v, U2)
    poke(changes, 0, (new_u - first_u) * (new_u - first_u) + (new_v - first_v) * (new_v - first_v), OTHER)


@part
def _length(a, b):  # pragma: no cover - compiled
    """As the C library's hypotf, by way of doubles."""
    a = np.float64(a)
    b = np.float64(b)
    return np.float32(np.sqrt(a * a + b * b))


@part
def _update_duals(u1, u2, u1_below, u2_below, p11, p12, p21, p22, width, step):  # pragma: no cover - compiled
    """p of one row: (p + step grad u) / (1 + step |grad u|)."""
    one = np.float32(1)
    for x in range(whole_vectors(width)):
        u = peek(u1, x, U1)
        x1 = peek(u1, x + 1, U1) - u
        y1 = peek(u1_below, x, U1) - u
        norm1 = one + step * _length(x1, y1)
        poke(p11, x, (peek(p11, x, P11) + step * x1) / norm1, P11)
        poke(p12, x, (peek(p12, x, P12) + step * y1) / norm1, P12)
        v = peek(u2, x, U2)
        x2 = peek(u2, x + 1, U2) - v
        y2 = peek(u2_below, x, U2) - v
        norm2 = one + step * _length(x2, y2)
        poke(p21, x, (peek(p21, x, P21) + step * x2) / norm2, P21)
        poke(p22, x, (peek(p22, x, P22) + step * y2) / norm2, P22)


@reordered_part
def _sum_in_any_order(row, width):  # pragma: no cover - compiled
    total = np.float32(0)
    for x in range(width):
        total += peek(row, x, OTHER)
    return total


@kernel
def _sum_in_order(changes, height, width):  # pragma: no cover - compiled
    total = np.float32(0)
    for y in range(height):
        for x in range(width):
            total += changes[y, x]
    return total


@kernel
def iterate(
    ix, iy, rho, squared, u1, u2, p11, p12, p21, p22, changes, height, width, limit, theta, step, threshold, most
):  # pragma: no cover - compiled
    """Iterations until the squared changes of u sum to at most `threshold`, `most` at most; returns (how many,
    settled).

    ix, iy, rho, squared (ix^2 + iy^2), u1, u2, changes: float32 planes with at least width + 1 columns; p11 p12 p21
    p22: the same with one row more, first row and first column zero (pixel (y, x) of p11, p21 lies at [y + 1, x + 1],
    of p12, p22 at [y + 1, x]).
    """
    count = 0
    settled = False
    last = height - 1
    while count < most and not settled:
        change = 0.0
        for y in range(height):
            above, here = y, y + 1
            _update_flow(
                ix[y], iy[y], rho[y], squared[y], u1[y], u2[y],
                p11[here], p12[here], p12[above], p21[here], p22[here], p22[above], changes[y], width, limit, theta,
            )  # fmt: skip
            change += _sum_in_any_order(changes[y], width)
            u1[y, width] = u1[y, width - 1]
            u2[y, width] = u2[y, width - 1]
            if y > 0:
                _update_duals(
                    u1[y - 1], u2[y - 1], u1[y], u2[y],
                    p11[above, 1:], p12[above], p21[above, 1:], p22[above], width, step,
                )  # fmt: skip
        _update_duals(
            u1[last], u2[last], u1[last], u2[last],
            p11[height, 1:], p12[height], p21[height, 1:], p22[height], width, step,
        )  # fmt: skip
        count += 1
        if abs(change - threshold) < MARGIN * threshold:
            change = _sum_in_order(changes, height, width)
        settled = change <= threshold
    return count, settled
