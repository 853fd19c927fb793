"""The inner loop of TV-L1 on a GPU: one program runs all iterations of one pair and stops when that pair has settled.

The state of a pair stays in the caches as far as it fits. A program goes through its image block by block, the duals
one row behind u: the update of u at a pixel reads the duals of that pixel, the one to the left and the one above, all
of the iteration before; the update of a dual reads u of its pixel, the one to the right and the one below, all of this
iteration. So with blocks of BLOCK pixels in reading order, the step at `start`
    updates u     of pixels start         to start + BLOCK, then, after a barrier,
    updates duals of pixels start - width to start + BLOCK - width.
What one step's duals write, the next step's u does not read (its first dual is the one above its first pixel), and what
that u writes, those duals do not read: one barrier a step is enough, and every plane passes through once an iteration.

Arithmetic is as in `tvl1-cpu`: quotients rounded correctly, nothing fused that is not written so (launch with
enable_fp_fusion=False). What differs: the order in which squared changes are summed, and the length of a gradient,
which is not taken in double precision but corrected for its error (one in a million differs, in the last bit).
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _length(a, b):
    """sqrt(a^2 + b^2), from a rough inverse root and what the squares, their sum and the root lost by rounding."""
    squares = a * a
    product = b * b
    lost = tl.fma(a, a, -squares) + tl.fma(b, b, -product)
    total = tl.maximum(squares + product, 1e-30)  # of less nothing would be left in 1 + step * length
    lost += tl.minimum(squares, product) - (total - tl.maximum(squares, product))
    inverse = tl.rsqrt(total)
    root = total * inverse
    return tl.fma(lost + tl.fma(-root, root, total), 0.5 * inverse, root)


@triton.jit
def _inverse(b):
    """1 / b for `_quotient`, from a rough one; without the branches for extreme values that hold up the loads behind
    them."""
    rough = 1.0 / b
    return tl.fma(rough, tl.fma(-b, rough, 1.0), rough)


@triton.jit
def _quotient(a, b, inverse):
    """a / b, correctly rounded (Markstein 1990)."""
    quotient = a * inverse
    return tl.fma(tl.fma(-b, quotient, a), inverse, quotient)


@triton.jit
def _divergence(across, down, size, offset, x, width, inside):
    """Backward differences, zero outside; OpenCV adds the three terms of the first column in another order."""
    here = tl.load(across + offset, inside, 0.0).to(tl.float32)
    left = tl.load(across + offset - 1, inside & (x > 0), 0.0).to(tl.float32)
    below = tl.load(down + offset, inside, 0.0).to(tl.float32)
    above = tl.load(down + offset - width, inside & (offset >= width), 0.0).to(tl.float32)
    return tl.where(x > 0, (here - left) + (below - above), (here + below) - above)


@triton.jit
def _update_flow(data, source, flow, duals, size, offset, x, width, inside, limit, theta):
    """u + d + theta div p from `source` into `flow`; returns the squared changes, zero where not `inside`."""
    ix = tl.load(data + offset, inside, 0.0).to(tl.float32)
    iy = tl.load(data + size + offset, inside, 0.0).to(tl.float32)
    rho = tl.load(data + 2 * size + offset, inside, 0.0).to(tl.float32)
    u = tl.load(source + offset, inside, 0.0)
    v = tl.load(source + size + offset, inside, 0.0)
    squared = ix * ix + iy * iy
    residual = rho + (ix * u + iy * v)
    bound = limit * squared
    textured = squared > 1.1920929e-07
    divisor = tl.where(textured, squared, 1.0)
    step = tl.where(textured, _quotient(-residual, divisor, _inverse(divisor)), 0.0)
    step = tl.where(residual > bound, -limit, step)
    step = tl.where(residual < -bound, limit, step)
    first = _divergence(duals, duals + size, size, offset, x, width, inside)
    second = _divergence(duals + 2 * size, duals + 3 * size, size, offset, x, width, inside)
    new_u = (u + step * ix) + theta * first
    new_v = (v + step * iy) + theta * second
    tl.store(flow + offset, new_u, inside)
    tl.store(flow + size + offset, new_v, inside)
    return tl.where(inside, (new_u - u) * (new_u - u) + (new_v - v) * (new_v - v), 0.0)


@triton.jit
def _new_duals(u, across, down, size, offset, x, width, inside, step):
    """(p + step grad u) / (1 + step |grad u|) of one component of the flow, by forward differences, zero beyond the
    border."""
    here = tl.load(u + offset, inside, 0.0)
    right = tl.load(u + offset + 1, inside & (x < width - 1), 0.0)
    below = tl.load(u + offset + width, inside & (offset < size - width), 0.0)
    along_x = tl.where(x < width - 1, right - here, 0.0)
    along_y = tl.where(offset < size - width, below - here, 0.0)
    old_across = tl.load(across + offset, inside, 0.0).to(tl.float32)
    old_down = tl.load(down + offset, inside, 0.0).to(tl.float32)
    norm = 1 + step * _length(along_x, along_y)
    inverse = _inverse(norm)
    return _quotient(old_across + step * along_x, norm, inverse), _quotient(old_down + step * along_y, norm, inverse)


@triton.jit
def _update_duals(flow, duals, size, offset, x, width, inside, step):
    """All four; read before any is written, so that nothing waits for a write."""
    p11, p12 = _new_duals(flow, duals, duals + size, size, offset, x, width, inside, step)
    p21, p22 = _new_duals(flow + size, duals + 2 * size, duals + 3 * size, size, offset, x, width, inside, step)
    tl.store(duals + offset, p11, inside)
    tl.store(duals + size + offset, p12, inside)
    tl.store(duals + 2 * size + offset, p21, inside)
    tl.store(duals + 3 * size + offset, p22, inside)


@triton.jit
def _iterations(
    data, medians, flow, duals, size, width, most, change, threshold, limit, theta, step, BLOCK: tl.constexpr
):
    """At most `most` iterations of one pair, until its squared changes, `change` so far, sum to `threshold`: how many,
    and their last sum."""
    count = 0
    source = medians
    while (count < most) & (change > threshold):
        changes = tl.zeros([BLOCK], tl.float32)
        x = tl.arange(0, BLOCK) % width
        for start in range(0, size + width, BLOCK):
            offset = start + tl.arange(0, BLOCK)
            changes += _update_flow(data, source, flow, duals, size, offset, x, width, offset < size, limit, theta)
            tl.debug_barrier()
            above = offset - width
            _update_duals(flow, duals, size, above, x, width, (above >= 0) & (above < size), step)
            x += BLOCK % width
            x = tl.where(x >= width, x - width, x)
        change = tl.sum(changes, 0)
        tl.debug_barrier()
        source = flow
        count += 1
    return count, change


@triton.jit(do_not_specialize=["height", "width", "most"])
def iterate(
    data, medians, flow, duals, left, counts, height, width, most, threshold, limit, theta, step, BLOCK: tl.constexpr
):
    """At most `most` iterations of every pair that has some left, until its squared changes sum to `threshold`; grid
    (B,).

    data: ix, iy, rho (B, 3, H, W); medians, flow: where u is read first, and where it goes (B, 2, H, W; may be the
    same); duals: p11 p12 p21 p22 (B, 4, H, W), in place; left: iterations (B,), zero for a pair that has settled;
    counts: iterations done so far (B,).
    """
    pair = tl.program_id(0).to(tl.int64)
    size = height * width
    data += pair * 3 * size
    medians += pair * 2 * size
    flow += pair * 2 * size
    duals += pair * 4 * size
    allowed = tl.load(left + pair)
    most = tl.minimum(most, allowed)
    change = float("inf")
    count, change = _iterations(
        data, medians, flow, duals, size, width, most, change, threshold, limit, theta, step, BLOCK
    )
    if allowed > 0:
        tl.store(counts + pair, tl.load(counts + pair) + count)
        tl.store(left + pair, tl.where(change > threshold, allowed - count, 0))
