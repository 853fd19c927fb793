"""What the reader computes on CPUs, compiled: a window resized as OpenCV does it, and colour; each in one pass.

Resizing gives OpenCV's INTER_LINEAR of bytes bit for bit (on x86) in a fraction of its time: OpenCV blends columns byte
by byte, here one shuffle gathers the neighbours of two colour pixels, or of eight gray ones. The GIL is free meanwhile.
"""

from __future__ import annotations

import platform
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from pipeline.flow.kernels import kernel, part
from train.reader.vectors import BYTE, INT, SHORT, all_of, lanes, rows_of, times, vector

ONE = 2048  # a weight of one, in OpenCV's fixed point
COLOURS = 3  # channels of interleaved pixels; planes have one
VALUES = 8  # of neighbouring columns that are blended at once, from BYTES of a row
BYTES = 16
NOTHING = 0x80  # no byte at all, hence zero
LANES = 16  # values that are blended at once from two rows

_SHUFFLE = {"aarch64": "llvm.aarch64.neon.tbl1.v16i8", "arm64": "llvm.aarch64.neon.tbl1.v16i8"}.get(
    platform.machine(), "llvm.x86.ssse3.pshuf.b.128"
)


@kernel
def lay_out(
    extent, left, size, flip, channels, columns, shares, starts, picks, weights, rows
):  # pragma: no cover - compiled
    """Where each pixel of the output has its neighbours in the frame, and their weights; returns the columns of a
    group.

    extent, size: (height, width) of the window and of the output. columns int64 (w,), shares float32 (w,): the left
    neighbour of each output column, and the share of the right one. A group is so many columns that all their
    neighbours lie within BYTES of a row. For each group: starts, int64, the first of these bytes; picks, uint8 (groups,
    2 * BYTES), the places among them of left, right, left, ..., each followed by NOTHING, so that it becomes 16 bits;
    weights, int16 (groups, BYTES), theirs. rows: int64 (h, 4), for each output row its two neighbours in the window and
    their weights.
    """
    for place in range(size[1]):
        index, share = _neighbour(place, extent[1], size[1])
        if index < 0 or extent[1] == 1:
            index, share = 0, np.float32(0)
        elif index >= extent[1] - 1:  # the last pixel alone, as the right one of two
            index, share = extent[1] - 2, np.float32(1)
        target = size[1] - 1 - place if flip else place
        columns[target], shares[target] = left + index, share
    group = VALUES // channels
    while not _fits(columns, group, channels):
        group //= 2
    picks[:] = NOTHING
    weights[:] = 0
    for first in range(0, size[1], group):
        number, members = first // group, columns[first : first + group]
        low = members.min()
        starts[number] = low * channels
        for value in range(len(members) * channels):
            member, channel = value // channels, value % channels
            near = (members[member] - low) * channels + channel
            picks[number, 4 * value], picks[number, 4 * value + 2] = near, near + channels
            share = shares[first + member]
            weights[number, 2 * value] = _fixed_point(np.float32(1) - share)
            weights[number, 2 * value + 1] = _fixed_point(share)
    for place in range(size[0]):
        index, share = _neighbour(place, extent[0], size[0])
        rows[place, 0] = max(index, 0)
        rows[place, 1] = min(index + 1, extent[0] - 1)
        rows[place, 2] = _fixed_point(np.float32(1) - share)
        rows[place, 3] = _fixed_point(share)
    return group


@part
def _neighbour(place, extent, size):  # pragma: no cover - compiled
    """The left neighbour of an output pixel's centre, and the share of the right one; rounded where OpenCV rounds."""
    exact = np.float32((place + 0.5) * (extent / size) - 0.5)
    index = int(np.floor(exact))
    return index, exact - np.float32(index)


@part
def _fixed_point(share):  # pragma: no cover - compiled
    return np.int16(np.rint(share * np.float32(ONE)))


@part
def _fits(columns, group, channels):  # pragma: no cover - compiled
    for first in range(0, len(columns), group):
        members = columns[first : first + group]
        if (members.max() - members.min() + 2) * channels > BYTES:
            return False
    return True


@kernel
def resize(
    frames, top, values, starts, picks, weights, rows, scratch, edge, clip, places
):  # pragma: no cover - compiled
    """Into clip[:, places], uint8 (P, T, h, w * channels), a window of each of `frames`, uint8 (H, W, 3) or (P, H, W).

    frames: a tuple of at least as many as there are places. top: of the window. values: of a group of columns, all
    channels counted. starts, picks, weights, rows: of `lay_out`. scratch: int16 (2, ...), two blended rows. edge:
    uint8, a row and BYTES.
    """
    planes, width = len(clip), len(edge) - BYTES
    for number in range(len(places)):
        of_planes = frames[number].reshape(planes, -1, width)
        for plane in range(planes):
            after = (planes - 1 - plane) * of_planes[plane].size  # bytes of later planes
            target = clip[plane, places[number]]
            _resize_plane(of_planes[plane], top, values, starts, picks, weights, rows, scratch, edge, target, after)


@part
def _resize_plane(
    plane, top, values, starts, picks, weights, rows, scratch, edge, target, after
):  # pragma: no cover - compiled
    height, width = plane.shape
    groups = -(-target.shape[1] // values)
    held0, held1 = -1, -1
    for y in range(len(target)):
        for row in (rows[y, 0], rows[y, 1]):
            if (held1 if row % 2 else held0) == row:
                continue
            source = plane[top + row]
            if after + (height - 1 - top - row) * width < BYTES:  # nothing may be read behind the frame
                edge[:width] = source
                source = edge
            for group in range(groups):
                _blend_group(source, starts, picks, weights, group, scratch[row % 2], group * values)
            if row % 2:
                held1 = row
            else:
                held0 = row
        upper, lower = scratch[rows[y, 0] % 2], scratch[rows[y, 1] % 2]
        _blend_rows(upper, lower, rows[y, 2], rows[y, 3], target[y])


@part
def _blend_rows(upper, lower, first, second, target):  # pragma: no cover - compiled
    values = len(target)
    if values < LANES:
        for x in range(values):
            target[x] = (((first * upper[x]) >> 16) + ((second * lower[x]) >> 16) + 2) >> 2
    else:
        for x in range(0, values - LANES + 1, LANES):
            _blend_lanes(upper, lower, np.int16(first), np.int16(second), x, target)
        _blend_lanes(upper, lower, np.int16(first), np.int16(second), values - LANES, target)


@intrinsic
def _blend_group(typingctx, source, starts, picks, weights, group, target, place):
    """(left * weight + right * weight) >> 4 of the columns of a group, into target[place:]: VALUES numbers, some
    unused."""

    def generate(context, builder, signature, arguments):
        source, starts, picks, weights, group, target, place = rows_of(context, builder, signature.args, arguments)
        row = vector(BYTE, BYTES)
        shuffle = cgutils.get_or_insert_function(builder.module, ir.FunctionType(row, [row] * 2), _SHUFFLE)
        near = source.load(starts.load(group.value), BYTE, BYTES)
        halves = []
        for half in (0, 1):  # a compiler for wider vectors makes one of the two
            entry = builder.add(times(builder, group.value, 2), group.value.type(half))
            pick = picks.load(times(builder, entry, BYTES), BYTE, BYTES)
            pairs = builder.bitcast(builder.call(shuffle, [near, pick]), vector(SHORT, VALUES))
            weight = weights.load(times(builder, entry, VALUES), SHORT, VALUES)
            products = [
                builder.mul(*(_every_other(builder, shorts, side) for shorts in (pairs, weight))) for side in (0, 1)
            ]
            halves.append(builder.lshr(builder.add(*products), all_of(vector(INT, VALUES // 2), 4)))
        total = builder.shuffle_vector(*halves, lanes(*range(VALUES)))
        target.store(place.value, builder.trunc(total, vector(SHORT, VALUES)))
        return context.get_dummy_value()

    return types.none(source, starts, picks, weights, types.intp, target, types.intp), generate


@intrinsic
def _blend_lanes(typingctx, upper, lower, first, second, x, target):
    """Sixteen values of two blended rows into target[x:], as in the plain loop of `_blend_rows`."""

    def generate(context, builder, signature, arguments):
        upper, lower, first, second, x, target = rows_of(context, builder, signature.args, arguments)
        total = all_of(vector(SHORT, LANES), 2)
        for row, weight in ((upper, first), (lower, second)):
            lane = builder.insert_element(ir.Constant(total.type, ir.Undefined), weight.value, INT(0))
            weights = builder.shuffle_vector(lane, lane, lanes(*[0] * LANES))
            factors = [builder.sext(one, vector(INT, LANES)) for one in (row.load(x.value, SHORT, LANES), weights)]
            high = builder.ashr(builder.mul(*factors), all_of(vector(INT, LANES), 16))
            total = builder.add(total, builder.trunc(high, total.type))
        rounded = builder.lshr(total, all_of(total.type, 2))
        target.store(x.value, builder.trunc(rounded, vector(BYTE, LANES)))
        return context.get_dummy_value()

    return types.none(upper, lower, types.int16, types.int16, types.intp, target), generate


def _every_other(builder: Any, shorts: Any, first: int) -> Any:
    """The even (first = 0) or odd numbers of eight, in 32 bits."""
    chosen = lanes(*range(first, VALUES, 2))
    return builder.sext(builder.shuffle_vector(shorts, shorts, chosen), vector(INT, VALUES // 2))


@kernel
def colour_interleaved(pixels, maps, out):  # pragma: no cover - compiled
    """`maps` (K, 3, 4) of pixels, uint8 (T, n, 3), into the planes of out, float32 (3, T, n)."""
    for t in range(out.shape[1]):
        source, m = pixels[t].reshape(-1), maps[t if len(maps) > 1 else 0]
        first, second, third = out[0, t], out[1, t], out[2, t]
        for x in range(len(first)):
            a, b, c = np.float32(source[3 * x]), np.float32(source[3 * x + 1]), np.float32(source[3 * x + 2])
            first[x] = m[0, 0] * a + m[0, 1] * b + m[0, 2] * c + m[0, 3]
            second[x] = m[1, 0] * a + m[1, 1] * b + m[1, 2] * c + m[1, 3]
            third[x] = m[2, 0] * a + m[2, 1] * b + m[2, 2] * c + m[2, 3]


@kernel
def colour_planes(pixels, maps, out):  # pragma: no cover - compiled
    """`maps` (K, D, C + 1) of planes, uint8 or float32 (C, T, n), into the planes of out, float32 (D, T, n)."""
    channels = len(pixels)
    for t in range(out.shape[1]):
        m = maps[t if len(maps) > 1 else 0]
        for d in range(len(out)):
            target = out[d, t]
            target[:] = m[d, channels]
            for c in range(channels):
                factor, source = m[d, c], pixels[c, t]
                for x in range(len(target)):
                    target[x] += factor * np.float32(source[x])
