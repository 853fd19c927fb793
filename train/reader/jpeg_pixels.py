"""Coefficients of a JPEG into samples, and samples into colours, compiled, in vectors, with the arithmetic that
libjpeg-turbo calls "islow" and "fancy"."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from pipeline.flow.kernels import lean
from train.reader.jpeg_codes import BLOCK
from train.reader.vectors import BYTE, INT, LONG, SHORT, all_of, between, lanes, rows_of, vector

LANES = 16  # pixels that are made at once; as many are read and written behind the last one


@lean
def between_samples(plane, y, shape, window, sums, out):  # pragma: no cover - compiled
    """A row of chroma at full size: three quarters of the nearer sample and one of the other, down and across."""
    height, width = (shape[0] + 1) // 2, (shape[1] + 1) // 2
    near, other = y // 2, min(max(y // 2 + (1 if y % 2 else -1), 0), height - 1)
    first, end = max(window[2] // 2 - 1, 0), min((window[3] + 1) // 2 + 1, width)
    for x in range(first, end, LANES):
        _three_to_one(plane[near], plane[other], x, sums)
    sums[first] = sums[first + 1]  # beyond the border it repeats
    sums[end + 1] = sums[end]
    for x in range(window[2] // 2, end, LANES):
        _twice_as_many(sums, x, out)


@lean
def colours(luma, blue, red, window, out):  # pragma: no cover - compiled
    for x in range(window[2], window[3], LANES):
        _red_green_blue(luma, blue, red, x, out)


@intrinsic
def inverse_transform(typingctx, block, scales, component, plane, at, width):
    """Of a block's coefficients, times scales[component], 8 x 8 samples into a plane of that width, from place `at`."""

    def generate(context, builder, signature, arguments):
        block, scales, component, plane, at, width = rows_of(context, builder, signature.args, arguments)
        flat = builder.mul(component.value, LONG(BLOCK))
        rows = [
            builder.mul(block.load(LONG(8 * row), SHORT, 8), scales.load(builder.add(flat, LONG(8 * row)), SHORT, 8))
            for row in range(8)
        ]
        # Without any but the first row there is nothing to round, and too large values are not cut but run over.
        others = functools.reduce(builder.or_, rows[1:])
        alone = builder.icmp_unsigned("==", builder.bitcast(others, ir.IntType(128)), ir.IntType(128)(0))
        first = builder.shl(rows[0], all_of(rows[0].type, 2))
        rows = [builder.select(alone, first, row) for row in _one_dimension(builder, rows, 11)]
        rows = _transposed(builder, rows)
        place = at.value
        for row in _transposed(builder, _one_dimension(builder, rows, 18)):
            sample = builder.trunc(between(builder, row, -128, 127), vector(BYTE, 8))
            plane.store(place, builder.xor(sample, all_of(sample.type, 0x80)))
            place = builder.add(place, width.value)
        return context.get_dummy_value()

    return types.none(block, scales, types.intp, plane, types.intp, types.intp), generate


@lean
def flat(value, plane, at, width):  # pragma: no cover - compiled
    """What `inverse_transform` makes of a block whose first coefficient, times its scale, is its only one."""
    value = np.int64(np.int16(4 * value))
    sample = np.uint64(min(max((value + 16) >> 5, -128), 127) + 128)
    for row in range(8):
        _eight_alike(sample, plane, at + row * width)


@intrinsic
def _eight_alike(typingctx, sample, plane, at):
    def generate(context, builder, signature, arguments):
        sample, plane, at = rows_of(context, builder, signature.args, arguments)
        plane.store(at.value, builder.mul(sample.value, LONG(0x0101010101010101)))
        return context.get_dummy_value()

    return types.none(types.uint64, plane, types.intp), generate


def _one_dimension(b: Any, rows: list, shift: int) -> list:
    """Of eight coefficients eight values, in each lane (Loeffler, Ligtenberg and Moschytz 1989; constants times 2 **
    13). Sums of inputs have 16 bits and products 32, as in libjpeg-turbo's vectors: equal even where they run over."""
    wide = vector(INT, 8)

    def products(first: Any, one: int, second: Any, two: int) -> Any:
        return b.add(*(b.mul(b.sext(row, wide), all_of(wide, by)) for row, by in ((first, one), (second, two))))

    def rounded(value: Any) -> Any:
        value = b.ashr(b.add(value, all_of(wide, 1 << (shift - 1))), all_of(wide, shift))
        return b.trunc(between(b, value, -(1 << 15), (1 << 15) - 1), vector(SHORT, 8))

    r0, r1, r2, r3, r4, r5, r6, r7 = rows
    low, high = products(r2, 4433, r6, 4433 - 15137), products(r2, 4433 + 6270, r6, 4433)
    total, difference = (b.shl(b.sext(one, wide), all_of(wide, 13)) for one in (b.add(r0, r4), b.sub(r0, r4)))
    even = [b.add(total, high), b.add(difference, low), b.sub(difference, low), b.sub(total, high)]
    third, fourth = b.add(r7, r3), b.add(r5, r1)
    shared = products(third, 9633 - 16069, fourth, 9633), products(third, 9633, fourth, 9633 - 3196)
    odd = [
        b.add(products(r1, 12299 - 7373, r7, -7373), shared[1]),
        b.add(products(r3, 25172 - 20995, r5, -20995), shared[0]),
        b.add(products(r5, 16819 - 20995, r3, -20995), shared[1]),
        b.add(products(r7, 2446 - 7373, r1, -7373), shared[0]),
    ]
    both = list(zip(even, odd, strict=True))
    return [rounded(b.add(*pair)) for pair in both] + [rounded(b.sub(*pair)) for pair in reversed(both)]


def _transposed(b: Any, rows: list) -> list:
    """8 x 8: three times the perfect shuffle of all values."""
    halves = lanes(0, 8, 1, 9, 2, 10, 3, 11), lanes(4, 12, 5, 13, 6, 14, 7, 15)
    for _ in range(3):
        rows = [b.shuffle_vector(rows[row], rows[row + 4], half) for row in range(4) for half in halves]
    return rows


@intrinsic
def _three_to_one(typingctx, near, other, x, sums):
    """3 * near + other of LANES samples from x on, into sums[x + 1:]."""

    def generate(context, b, signature, arguments):
        near, other, x, sums = rows_of(context, b, signature.args, arguments)
        short = vector(SHORT, LANES)
        one, two = (b.zext(row.load(x.value, BYTE, LANES), short) for row in (near, other))
        sums.store(b.add(x.value, LONG(1)), b.add(b.mul(one, all_of(short, 3)), two))
        return context.get_dummy_value()

    return types.none(near, other, types.intp, sums), generate


@intrinsic
def _twice_as_many(typingctx, sums, x, out):
    """Of LANES samples from x on, whose sums stand from x + 1 on, twice as many into out[2 * x:]."""

    def generate(context, b, signature, arguments):
        sums, x, out = rows_of(context, b, signature.args, arguments)
        short = vector(SHORT, LANES)
        here = b.mul(sums.load(b.add(x.value, LONG(1)), SHORT, LANES), all_of(short, 3))
        both = []
        for beside, half in ((0, 8), (2, 7)):
            total = b.add(b.add(here, sums.load(b.add(x.value, LONG(beside)), SHORT, LANES)), all_of(short, half))
            both.append(b.trunc(b.lshr(total, all_of(short, 4)), vector(BYTE, LANES)))
        turns = lanes(*(place // 2 + LANES * (place % 2) for place in range(2 * LANES)))
        out.store(b.mul(x.value, LONG(2)), b.shuffle_vector(*both, turns))
        return context.get_dummy_value()

    return types.none(sums, types.intp, out), generate


@intrinsic
def _red_green_blue(typingctx, luma, blue, red, x, out):
    """Of LANES pixels from x on, into out, (W, 3) (JFIF 1.02; constants times 2 ** 16)."""

    def generate(context, b, signature, arguments):
        luma, blue, red, x, out = rows_of(context, b, signature.args, arguments)
        short, wide = vector(SHORT, LANES), vector(INT, LANES)

        def times(by: int, value: Any) -> Any:
            return b.mul(b.sext(value, wide), all_of(wide, by))

        def rounded(value: Any) -> Any:
            return b.trunc(b.ashr(b.add(value, all_of(wide, 1 << 15)), all_of(wide, 16)), short)

        y = b.zext(luma.load(x.value, BYTE, LANES), short)
        cb, cr = (b.sub(b.zext(row.load(x.value, BYTE, LANES), short), all_of(short, 128)) for row in (blue, red))
        # Whole multiples of a factor apart: what is left fits into vectors' products of 16 bits.
        colours = [
            b.add(b.add(y, cr), rounded(times(91881 - 65536, cr))),
            b.sub(b.add(y, rounded(b.add(times(-22554, cb), times(65536 - 46802, cr)))), cr),
            b.add(b.add(y, b.add(cb, cb)), rounded(times(116130 - 131072, cb))),
        ]
        red_, green, blue_ = (b.trunc(between(b, colour, 0, 255), vector(BYTE, LANES)) for colour in colours)
        first, second = (b.shuffle_vector(*two, lanes(*range(2 * LANES))) for two in ((red_, green), (blue_, blue_)))
        turns = lanes(*(place // 3 + LANES * (place % 3) for place in range(3 * LANES)))
        out.store(b.mul(x.value, LONG(3)), b.shuffle_vector(first, second, turns))
        return context.get_dummy_value()

    return types.none(luma, blue, red, types.intp, out), generate
