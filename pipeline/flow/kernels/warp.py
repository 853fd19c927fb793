"""Warping of TV-L1 on a CPU: the second frame and its gradients, sampled at x + u in one pass.

The three planes lie interleaved in memory (image, dx, dy, nothing), so that a bicubic tap of all three is one vector of
four floats, with one set of weights; OpenCV's three remaps find the places and compute the weights three times.
"""

from __future__ import annotations

import numpy as np

from pipeline.flow.kernels import kernel, part
from pipeline.flow.kernels.instructions import fma, peek, poke, weighted_taps

BORDER = 4  # zeros on each side: a sample further out than 3 pixels sees nothing but border
FLOATS = 4  # a pixel
READ, WRITTEN = 0, 1  # planes, see `instructions`


def interleaved_size(height: int, width: int) -> int:
    """Floats that `interleave` needs."""
    return (height + 2 * BORDER) * (width + 2 * BORDER) * FLOATS


@kernel
def interleave(image, height, width, out):  # pragma: no cover - compiled
    """The image (height, width) float32 and its central differences (one-sided halves at edges), with a zero border."""
    stride = (width + 2 * BORDER) * FLOATS
    half = np.float32(0.5)
    out[: BORDER * stride] = 0
    out[(height + BORDER) * stride : (height + 2 * BORDER) * stride] = 0
    for y in range(height):
        start = (y + BORDER) * stride
        out[start : start + BORDER * FLOATS] = 0
        out[start + (width + BORDER) * FLOATS : start + stride] = 0
        above, here, below = image[max(y - 1, 0)], image[y], image[min(y + 1, height - 1)]
        for x in range(width):
            at = start + (x + BORDER) * FLOATS
            out[at] = here[x]
            out[at + 1] = half * (here[min(x + 1, width - 1)] - here[max(x - 1, 0)])
            out[at + 2] = half * (below[x] - above[x])
            out[at + 3] = 0


@part
def _weights(x, at, step, out):  # pragma: no cover - compiled
    """Cubic convolution with a = -0.75 at fraction x; the roundings are those of OpenCV 5's remap."""
    a = np.float32(-0.75)
    one = np.float32(1)
    y = one - x
    squared = x * x
    first = a * (x * (y * y))
    last = a * (y * squared)
    second = fma(fma(np.float32(1.25), x, np.float32(-2.25)), squared, one)
    poke(out, at, first, WRITTEN)
    poke(out, at + step, second, WRITTEN)
    poke(out, at + 2 * step, ((one - first) - second) - last, WRITTEN)
    poke(out, at + 3 * step, last, WRITTEN)


@part
def _locate(y, u1, u2, height, width, offsets, across, down):  # pragma: no cover - compiled
    """Where the taps of each pixel of a row begin, and their weights; far outside, all taps fall on the border."""
    stride = np.int32((width + 2 * BORDER) * FLOATS)
    least = np.float32(-3)
    for x in range(width):
        sample_x = min(max(np.float32(x) + peek(u1, x, READ), least), np.float32(width + 1))
        sample_y = min(max(np.float32(y) + peek(u2, x, READ), least), np.float32(height + 1))
        whole_x = np.floor(sample_x)
        whole_y = np.floor(sample_y)
        _weights(sample_x - whole_x, x, width, across)
        _weights(sample_y - whole_y, x, width, down)
        row = np.int32(whole_y + np.float32(BORDER - 1))
        column = np.int32(whole_x + np.float32(BORDER - 1))
        offsets[x] = row * stride + column * np.int32(FLOATS)


@part
def _sample(planes, width, offsets, across, down, image, ix, iy):  # pragma: no cover - compiled
    stride = (width + 2 * BORDER) * FLOATS
    for x in range(width):
        value, value_x, value_y = weighted_taps(planes, offsets[x], stride, across, down, x, width)
        poke(image, x, value, 1)
        poke(ix, x, value_x, 2)
        poke(iy, x, value_y, 3)


@part
def _linearise(first, image, u1, u2, width, ix, iy, rho, squared):  # pragma: no cover - compiled
    for x in range(width):
        a = peek(ix, x, READ)
        b = peek(iy, x, READ)
        poke(squared, x, a * a + b * b, 1)
        value = ((peek(image, x, READ) - a * peek(u1, x, READ)) - b * peek(u2, x, READ)) - peek(first, x, READ)
        poke(rho, x, value, 2)


@kernel
def warp(first, planes, u1, u2, height, width, ix, iy, rho, squared):  # pragma: no cover - compiled
    """The data term about the flow (u1, u2): gradients ix, iy, constant part rho and ix^2 + iy^2, written in place.

    first: float32 (height, width); planes: the second frame, interleaved.
    """
    offsets = np.empty(width, np.int32)
    across = np.empty(4 * width, np.float32)
    down = np.empty(4 * width, np.float32)
    image = np.empty(width, np.float32)
    for y in range(height):
        _locate(y, u1[y], u2[y], height, width, offsets, across, down)
        _sample(planes, width, offsets, across, down, image, ix[y], iy[y])
        _linearise(first[y], image, u1[y], u2[y], width, ix[y], iy[y], rho[y], squared[y])
