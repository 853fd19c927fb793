"""What the reader computes on CPUs, compiled: a window resized as OpenCV does it, and colour; each in one pass.

Resizing gives OpenCV's INTER_LINEAR of bytes bit for bit (on x86) in half its time: OpenCV blends columns byte by byte,
here a vector holds both neighbours of all channels of a pixel, or of eight gray ones. The GIL is free meanwhile.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from pipeline.flow.kernels import kernel, part

ONE = 2048  # a weight of one, in OpenCV's fixed point
COLOURS = 3  # channels of interleaved pixels; planes have one
GRAY_GROUP = 8  # columns of a plane that are blended at once
LANES = 16  # values that are blended at once from two rows
BEHIND = 8  # bytes; more than are read behind the last pixel of a row

_BYTE, _SHORT, _INT = ir.IntType(8), ir.IntType(16), ir.IntType(32)


@kernel
def lay_out(extent, left, size, flip, channels, columns, weights, rows):  # pragma: no cover - compiled
    """Where each pixel of the output has its neighbours in the frame, and their weights.

    extent, size: (height, width) of the window and of the output. columns: int64, for each output column the byte of its
    left neighbour in a row of the frame. weights: int16, of the two neighbours of each column; of colours four times the
    same. rows: int64 (h, 4), for each output row its two neighbours in the window and their weights.
    """
    repeats = 4 if channels == COLOURS else 1
    for place in range(len(columns)):
        index, fraction = _neighbour(min(place, size[1] - 1), extent[1], size[1])
        if index < 0 or extent[1] == 1:
            index, fraction = 0, np.float32(0)
        elif index >= extent[1] - 1:  # the last pixel alone, as the right one of two
            index, fraction = extent[1] - 2, np.float32(1)
        target = size[1] - 1 - place if flip and place < size[1] else place
        columns[target] = (left + index) * channels
        for pair in range(repeats * target, repeats * (target + 1)):
            weights[2 * pair] = _fixed_point(np.float32(1) - fraction)
            weights[2 * pair + 1] = _fixed_point(fraction)
    for place in range(size[0]):
        index, fraction = _neighbour(place, extent[0], size[0])
        rows[place, 0] = max(index, 0)
        rows[place, 1] = min(index + 1, extent[0] - 1)
        rows[place, 2] = _fixed_point(np.float32(1) - fraction)
        rows[place, 3] = _fixed_point(fraction)


@part
def _neighbour(place, extent, size):  # pragma: no cover - compiled
    """The left neighbour of an output pixel's centre, and the share of the right one; rounded where OpenCV rounds."""
    exact = np.float32((place + 0.5) * (extent / size) - 0.5)
    index = int(np.floor(exact))
    return index, exact - np.float32(index)


@part
def _fixed_point(share):  # pragma: no cover - compiled
    return np.int16(np.rint(share * np.float32(ONE)))


@kernel
def resize(frame, top, channels, columns, weights, rows, scratch, edge, clip, place):  # pragma: no cover - compiled
    """Into clip[:, place], uint8 (P, T, h, w * channels), the window of `frame`, uint8 (P, H, W * channels).

    top: of the window. columns, weights, rows: of `lay_out`. scratch: int16 (2, ...), two blended rows. edge: uint8, a row
    and BEHIND.
    """
    planes, height, width = frame.shape
    values = clip.shape[3]
    for plane in range(planes):
        held0, held1 = -1, -1
        for y in range(clip.shape[2]):
            for row in (rows[y, 0], rows[y, 1]):
                if (held1 if row % 2 else held0) == row:
                    continue
                source = frame[plane, top + row]
                if plane == planes - 1 and top + row == height - 1:  # nothing may be read behind the frame
                    edge[:width] = source
                    source = edge
                if channels == COLOURS:
                    for x in range(values // COLOURS):
                        _blend_colours(source, columns, weights, x, scratch[row % 2])
                else:
                    for x in range(0, values, GRAY_GROUP):
                        _blend_grays(source, columns, weights, x, scratch[row % 2])
                if row % 2:
                    held1 = row
                else:
                    held0 = row
            upper, lower = scratch[rows[y, 0] % 2], scratch[rows[y, 1] % 2]
            _blend_rows(upper, lower, rows[y, 2], rows[y, 3], clip[plane, place, y])


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
def _blend_colours(typingctx, source, columns, weights, x, target):
    """The two neighbours of output column x into target[3 * x:], with one value of no meaning behind the three."""

    def generate(context, builder, signature, arguments):
        source, columns, weights, x, target = _rows(context, builder, signature.args, arguments)
        pixels = source.load(columns.load(x.value), _BYTE, 8)
        pairs = builder.shuffle_vector(pixels, pixels, _lanes(0, 3, 1, 4, 2, 5, 2, 5))
        blended = _blend_pairs(builder, pairs, weights.load(_times(builder, x.value, 8), _SHORT, 8))
        target.store(_times(builder, x.value, COLOURS), blended)
        return context.get_dummy_value()

    return types.none(source, columns, weights, types.intp, target), generate


@intrinsic
def _blend_grays(typingctx, source, columns, weights, x, target):
    """The neighbours of the output columns x to x + 7 into target[x:]."""

    def generate(context, builder, signature, arguments):
        source, columns, weights, x, target = _rows(context, builder, signature.args, arguments)
        pairs = ir.Constant(ir.VectorType(_SHORT, GRAY_GROUP), ir.Undefined)
        for lane in range(GRAY_GROUP):
            column = columns.load(builder.add(x.value, x.value.type(lane)))
            pair = builder.bitcast(source.load(column, _BYTE, 2), _SHORT)
            pairs = builder.insert_element(pairs, pair, _INT(lane))
        pairs = builder.bitcast(pairs, ir.VectorType(_BYTE, 2 * GRAY_GROUP))
        blended = _blend_pairs(builder, pairs, weights.load(_times(builder, x.value, 2), _SHORT, 2 * GRAY_GROUP))
        target.store(x.value, blended)
        return context.get_dummy_value()

    return types.none(source, columns, weights, types.intp, target), generate


@intrinsic
def _blend_lanes(typingctx, upper, lower, first, second, x, target):
    """Sixteen values of two blended rows into target[x:], as in the plain loop of `_blend_rows`."""

    def generate(context, builder, signature, arguments):
        upper, lower, first, second, x, target = _rows(context, builder, signature.args, arguments)
        total = ir.Constant(ir.VectorType(_SHORT, LANES), [2] * LANES)
        for row, weight in ((upper, first), (lower, second)):
            lane = builder.insert_element(ir.Constant(total.type, ir.Undefined), weight.value, _INT(0))
            weights = builder.shuffle_vector(lane, lane, _lanes(*[0] * LANES))
            factors = [builder.sext(one, _wide(LANES)) for one in (row.load(x.value, _SHORT, LANES), weights)]
            high = builder.ashr(builder.mul(*factors), _lanes(*[16] * LANES))
            total = builder.add(total, builder.trunc(high, total.type))
        rounded = builder.lshr(total, ir.Constant(total.type, [2] * LANES))
        target.store(x.value, builder.trunc(rounded, ir.VectorType(_BYTE, LANES)))
        return context.get_dummy_value()

    return types.none(upper, lower, types.int16, types.int16, types.intp, target), generate


class _Row:
    """An argument of an intrinsic: a number, or a contiguous row that is read and written by vectors at any place."""

    def __init__(self, context: Any, builder: Any, kind: Any, value: Any) -> None:
        self.context, self.builder, self.kind, self.value = context, builder, kind, value

    def load(self, index: Any, lane: Any = None, count: int = 0) -> Any:
        """A number, or a vector of `count` lanes."""
        loaded = self.builder.load(self._pointer(index, ir.VectorType(lane, count) if count else None))
        loaded.align = 8 if not count else 1
        return loaded

    def store(self, index: Any, vector: Any) -> None:
        self.builder.store(vector, self._pointer(index, vector.type)).align = 1

    def _pointer(self, index: Any, vector: Any) -> Any:
        array = self.context.make_array(self.kind)(self.context, self.builder, self.value)
        place = self.builder.gep(array.data, [index])
        return self.builder.bitcast(place, vector.as_pointer()) if vector else place


def _rows(context: Any, builder: Any, kinds: Any, values: Any) -> list[_Row]:
    return [_Row(context, builder, kind, value) for kind, value in zip(kinds, values, strict=True)]


def _blend_pairs(builder: Any, pairs: Any, weights: Any) -> Any:
    """(left * weight + right * weight) >> 4 as int16, of bytes and weights (left, right, left, ...)."""
    count = pairs.type.count // 2
    sides = []
    for side in (0, 1):
        chosen = _lanes(*range(side, 2 * count, 2))
        factors = [builder.shuffle_vector(one, one, chosen) for one in (builder.zext(pairs, weights.type), weights)]
        sides.append(builder.mul(*(builder.sext(one, _wide(count)) for one in factors)))
    total = builder.lshr(builder.add(*sides), _lanes(*[4] * count))
    return builder.trunc(total, ir.VectorType(_SHORT, count))


def _wide(count: int) -> Any:
    return ir.VectorType(_INT, count)


def _lanes(*numbers: int) -> Any:
    return ir.Constant(_wide(len(numbers)), numbers)


def _times(builder: Any, value: Any, factor: int) -> Any:
    return builder.mul(value, value.type(factor))


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
