"""Frames decoded from JPEG with the pixels of libjpeg-turbo, compiled: the part that is wanted, with the GIL free."""

from __future__ import annotations

import numpy as np

from pipeline.flow.kernels import kernel, lean
from train.reader.jpeg_codes import BEHIND, BLOCK, FLAT, read_block, unstuffed
from train.reader.jpeg_pixels import LANES, between_samples, colours, flat, inverse_transform

_U = np.uint64


@kernel
def decode_colour(
    streams, header, codes, starts, pairs, blocks, scales, units, wanted, across, window, frames, decoded
):  # pragma: no cover - compiled
    """Into frames, uint8 (N, H, W, 3) with LANES pixels of memory behind them, the window (top, bottom, left, right)
    of each; `decoded`, bool (N,), says of which. streams: a tuple of at least N. For the rest see `_planes`; the pixels
    around a window belong to what is wanted, too."""
    half = blocks[0, 1] == 2  # rows of blocks of luma in a unit
    side = 16 if half else 8
    luma = np.empty((units[0] * side + 2, units[1] * side), np.uint8)  # two rows more, for what is read behind the last
    blue = np.empty((units[0] * 8 + 2, units[1] * 8), np.uint8)
    red = np.empty_like(blue)
    sums = np.empty(units[1] * 8 + 2 * LANES, np.int16)
    full = np.empty((2, units[1] * 16 + 2 * LANES), np.uint8)
    data, block = np.empty(_longest(streams) + BEHIND, np.uint8), np.empty(BLOCK + 1, np.int16)
    tables = codes.reshape(-1), starts.reshape(-1), pairs.reshape(-1)
    for number in range(len(frames)):  # in order: what is written behind a frame belongs to the next one
        decoded[number] = _planes(
            streams[number], header, tables, blocks, scales, units, wanted, across, luma, blue, red, data, block
        )
        if decoded[number]:
            _colours(luma, blue, red, half, window, sums, full[0], full[1], frames[number])


@kernel
def decode_gray(
    streams, header, codes, starts, pairs, blocks, scales, units, wanted, across, window, frames, decoded
):  # pragma: no cover - compiled
    """Into frames, uint8 (N, P, H, W), the window (top, bottom, left, right) of each plane; the planes of a frame lie
    one above the other in the JPEG. For the rest see `decode_colour`."""
    luma = np.empty((units[0] * 8, units[1] * 8), np.uint8)
    data, block = np.empty(_longest(streams) + BEHIND, np.uint8), np.empty(BLOCK + 1, np.int16)
    tables = codes.reshape(-1), starts.reshape(-1), pairs.reshape(-1)
    for number in range(len(frames)):
        decoded[number] = _planes(
            streams[number], header, tables, blocks, scales, units, wanted, across, luma, luma, luma, data, block
        )
        if decoded[number]:
            _grays(luma, window, frames[number])


@lean
def _longest(streams):  # pragma: no cover - compiled
    length = 0
    for stream in streams:
        length = max(length, len(stream))
    return length


@lean
def _colours(luma, blue, red, half, window, sums, full_blue, full_red, out):  # pragma: no cover - compiled
    shape = len(out), out.shape[1]
    for y in range(window[0], window[1]):
        if half:
            between_samples(blue, y, shape, window, sums, full_blue)
            between_samples(red, y, shape, window, sums, full_red)
            colours(luma[y], full_blue, full_red, window, out[y])
        else:
            colours(luma[y], blue[y], red[y], window, out[y])


@lean
def _grays(luma, window, out):  # pragma: no cover - compiled
    for plane in range(len(out)):
        for y in range(window[0], window[1]):
            source = luma[plane * out.shape[1] + y][window[2] : window[3]]
            target = out[plane, y][window[2] : window[3]]
            for x in range(len(target)):
                target[x] = source[x]


@lean
def _planes(
    stream, header, tables, blocks, scales, units, wanted, across, luma, blue, red, data, block
):  # pragma: no cover - compiled
    """Samples of a frame, in whole blocks, wherever a row of units is `wanted` and a unit within `across`.

    Whether it was decoded: not where the stream begins with another header, does not end as a JPEG does, or is damaged.
    tables: of luma's AC, chroma's AC, luma's DC and chroma's DC one behind the other, three times: of all codes, of
    their first SHORT_CODE bits, and of pairs (AC alone). blocks: int64 (n, 7), of each block of a unit its component,
    rows and columns of that component's blocks in a unit, tables of DC and AC, its row and column. scales: int16
    (components, 64). units: rows and columns. wanted: bool (rows,). across: first and end. data, block: memory.
    """
    if len(stream) < len(header):
        return False
    for place in range(len(header)):
        if stream[place] != header[place]:
            return False
    size = unstuffed(stream, len(header), data)
    if size < 0:
        return False
    rows = 0
    for row in range(units[0]):
        if wanted[row]:
            rows = row + 1
    before_luma, before_blue, before_red = np.int16(0), np.int16(0), np.int16(0)
    codes, starts, pairs = tables
    held, count, place = _U(0), _U(0), _U(0)
    for row in range(rows):
        for column in range(units[1]):
            shown = wanted[row] and across[0] <= column < across[1]
            for number in range(len(blocks)):
                end, held, count, place = read_block(
                    data, held, count, place, codes, starts, pairs, _U(blocks[number, 3]), _U(blocks[number, 4]), block
                )
                if end == _U(0) or place > _U(size + 16):
                    return False
                component = blocks[number, 0]
                if component == 0:
                    before_luma += block[0]
                    block[0], plane = before_luma, luma
                elif component == 1:
                    before_blue += block[0]
                    block[0], plane = before_blue, blue
                else:
                    before_red += block[0]
                    block[0], plane = before_red, red
                if shown:
                    y, x = row * blocks[number, 1] + blocks[number, 5], column * blocks[number, 2] + blocks[number, 6]
                    at = 8 * (y * plane.shape[1] + x)
                    if end == _U(FLAT):
                        flat(block[0] * scales[component, 0], plane, at, plane.shape[1])
                    else:
                        inverse_transform(block, scales, component, plane, at, plane.shape[1])
    return np.int64(place) * 8 - np.int64(count) <= size * 8
