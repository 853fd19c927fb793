"""A whole level of the pyramid in one launch: a program solves its own pair, warp after warp, and ends with it.

Launch by launch (`linearise`, `median5`, `iterate`) all pairs of a batch wait for the slowest at every launch, and one
that never settles keeps the GPU nearly idle. Here a program that is done makes room for the next pair's. The arithmetic
is the same, statement by statement.
"""

from __future__ import annotations

import triton
import triton.language as tl

from pipeline.flow.kernels.triton_inner import _iterations
from pipeline.flow.kernels.triton_median import _two_medians
from pipeline.flow.kernels.triton_warp import _data_term


@triton.jit(do_not_specialize=["height", "width", "warps", "outer", "inner", "most"])
def solve_level(
    firsts, seconds, gradients, flow, medians, data, duals, counts, height, width, warps, outer, inner, most,
    threshold, limit, theta, step, MEDIAN: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The flow of every pair at one level, from what is there to what the level makes of it; grid (B,).

    firsts, seconds: (B, H, W); gradients: of the second, (B, 2, H, W); flow: (B, 2, H, W), in place; medians (B, 2, H,
    W) and data (B, 3, H, W): room to work in; duals: (B, 4, H, W), zero at first; counts: iterations in all (B,). warps
    linearisations, at most `outer` medians each, `inner` iterations a median, and `most` in a warp.
    """
    pair = tl.program_id(0).to(tl.int64)
    size = height * width
    firsts += pair * size
    seconds += pair * size
    gradients += pair * 2 * size
    flow += pair * 2 * size
    medians += pair * 2 * size
    data += pair * 3 * size
    duals += pair * 4 * size
    halves = ((height + 1) // 2) * width
    total = 0
    for _ in range(warps):
        for start in range(0, size, BLOCK):
            _data_term(firsts, seconds, gradients, flow, data, size, height, width, start + tl.arange(0, BLOCK))
        tl.debug_barrier()
        left = most
        change = float("inf")
        done = 0
        while (done < outer) & (left > 0) & (change > threshold):
            source = flow
            if MEDIAN:
                for start in range(0, halves, BLOCK):
                    _two_medians(flow, medians, height, width, start + tl.arange(0, BLOCK))
                for start in range(0, halves, BLOCK):
                    _two_medians(flow + size, medians + size, height, width, start + tl.arange(0, BLOCK))
                tl.debug_barrier()
                source = medians
            now = tl.minimum(inner, left)
            count, change = _iterations(
                data, source, flow, duals, size, width, now, change, threshold, limit, theta, step, BLOCK
            )
            left -= count
            total += count
            done += 1
    tl.store(counts + pair, total)
