"""TV-L1 of pairs of any sizes in a few launches: a program solves its own pair, warp after warp, and ends with it.

Launch by launch (`linearise`, `median5`, `iterate`) all pairs of a batch wait for the slowest at every launch, and one
that never settles keeps the GPU nearly idle. Here there is one launch a level of the pyramid, and a program that is
done makes room for the next pair's. The arithmetic is the same, statement by statement. One launch for all levels was
tried: with 64 registers it spills 24 bytes on compute capability 9.0 and 104 on 8.0, outside the inner loop.

Where a pair lies is read from a table, `places` (B, LEVELS, NUMBERS), finest level first: where the pair begins among
the pixels of all, N, where its first and its second frame lie in `pyramids`, and height and width, 0 of levels that it
lacks. `flows` (2, 2 N) has the flow of a pair, u and v one behind the other, in turn in the one half and in the other,
the finest level's in the first.
"""

from __future__ import annotations

import triton
import triton.language as tl

from pipeline.flow.kernels.triton_inner import _iterations
from pipeline.flow.kernels.triton_median import _two_medians
from pipeline.flow.kernels.triton_pyramid import _differences, _resized
from pipeline.flow.kernels.triton_warp import _data_term

NUMBERS = tl.constexpr(5)  # that `places` has of a level of a pair


@triton.jit
def _place(places, level, LEVELS: tl.constexpr):
    """This program's row of the table."""
    return places + (tl.program_id(0).to(tl.int64) * LEVELS + level) * NUMBERS


@triton.jit
def _size(place):
    return tl.load(place + 3).to(tl.int32), tl.load(place + 4).to(tl.int32)


@triton.jit
def _flow_of(flows, place, level, pixels):
    return flows + 2 * tl.load(place) + 2 * pixels.to(tl.int64) * (level % 2)


@triton.jit
def _zeros(planes, size, BLOCK: tl.constexpr):
    """So many numbers."""
    for begin in range(0, size, BLOCK):
        offset = begin + tl.arange(0, BLOCK)
        tl.store(planes + offset, tl.zeros_like(offset).to(planes.dtype.element_ty), offset < size)


@triton.jit(do_not_specialize=["pixels"])
def begin_pairs(
    frames, pyramids, places, pixels, LEVELS: tl.constexpr, STEP: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """Both frames at every level, from bytes (2, N); grid (B,). STEP: size of a level relative to the next one."""
    place = _place(places, 0, LEVELS)
    height, width = _size(place)
    for frame in tl.static_range(2):
        given = frames + frame * pixels.to(tl.int64) + tl.load(place)
        finest = pyramids + tl.load(place + 1 + frame)
        for begin in range(0, height * width, BLOCK):
            offset = begin + tl.arange(0, BLOCK)
            inside = offset < height * width
            tl.store(finest + offset, tl.load(given + offset, inside, 0).to(tl.float32), inside)
    for level in range(1, LEVELS):
        tl.debug_barrier()
        fine, coarse = _place(places, level - 1, LEVELS), _place(places, level, LEVELS)
        height, width = _size(fine)
        new_height, new_width = _size(coarse)
        for frame in tl.static_range(1, 3):
            source, target = pyramids + tl.load(fine + frame), pyramids + tl.load(coarse + frame)
            for begin in range(0, new_height * new_width, BLOCK):
                offset = begin + tl.arange(0, BLOCK)
                _resized(source, target, height, width, new_height, new_width, offset, STEP, False)


@triton.jit(do_not_specialize=["level", "pixels"])
def begin_level(
    pyramids, flows, gradients, duals, places, level, pixels, LEVELS: tl.constexpr, STEP: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """What a level begins with: the gradients of the second frame, duals of zero, and the flow of the coarser level, or
    none at the coarsest; grid (B,)."""
    place = _place(places, level, LEVELS)
    height, width = _size(place)
    size = height * width
    _zeros(duals + 4 * tl.load(place), 4 * size, BLOCK)
    image, target = pyramids + tl.load(place + 2), gradients + 2 * tl.load(place)
    for begin in range(0, size, BLOCK):
        _differences(image, target, size, width, begin + tl.arange(0, BLOCK))
    flow = _flow_of(flows, place, level, pixels)
    coarse = _place(places, tl.minimum(level + 1, LEVELS - 1), LEVELS)
    coarse_height, coarse_width = _size(coarse)
    if (level == LEVELS - 1) | (coarse_height == 0):
        _zeros(flow, 2 * size, BLOCK)
    else:
        source = _flow_of(flows, coarse, level + 1, pixels)
        for _ in tl.static_range(2):
            for begin in range(0, size, BLOCK):
                offset = begin + tl.arange(0, BLOCK)
                _resized(source, flow, coarse_height, coarse_width, height, width, offset, STEP, True)
            source += coarse_height * coarse_width
            flow += size


@triton.jit(do_not_specialize=["level", "pixels", "warps", "outer", "inner", "most"])
def solve_level(
    pyramids, flows, gradients, data, duals, places, thresholds, counts, level, pixels, warps, outer, inner, most,
    limit, theta, step, LEVELS: tl.constexpr, MEDIAN: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The flow of every pair at one level, from what is there to what the level makes of it; grid (B,).

    gradients: (2 N); data (3 N): room to work in; duals (4 N), zero at first; thresholds, counts: (B, LEVELS), of
    changes, and iterations in all. warps linearisations, at most `outer` medians each, `inner` iterations a median, and
    `most` in a warp. Medians lie where the next level's flow will be.
    """
    place = _place(places, level, LEVELS)
    height, width = _size(place)
    start = tl.load(place)
    first, second = pyramids + tl.load(place + 1), pyramids + tl.load(place + 2)
    flow, medians = _flow_of(flows, place, level, pixels), _flow_of(flows, place, level + 1, pixels)
    gradients += 2 * start
    data += 3 * start
    duals += 4 * start
    row = tl.program_id(0) * LEVELS + level
    threshold = tl.load(thresholds + row)
    size = height * width
    halves = ((height + 1) // 2) * width
    total = 0
    for _ in range(tl.where(size > 0, warps, 0)):
        for begin in range(0, size, BLOCK):
            _data_term(first, second, gradients, flow, data, size, height, width, begin + tl.arange(0, BLOCK))
        tl.debug_barrier()
        left = most
        change = float("inf")
        done = 0
        while (done < outer) & (left > 0) & (change > threshold):
            source = flow
            if MEDIAN:
                for begin in range(0, halves, BLOCK):
                    _two_medians(flow, medians, height, width, begin + tl.arange(0, BLOCK))
                for begin in range(0, halves, BLOCK):
                    _two_medians(flow + size, medians + size, height, width, begin + tl.arange(0, BLOCK))
                tl.debug_barrier()
                source = medians
            now = tl.minimum(inner, left)
            count, change = _iterations(
                data, source, flow, duals, size, width, now, change, threshold, limit, theta, step, BLOCK
            )
            left -= count
            total += count
            done += 1
    tl.store(counts + row, total)
