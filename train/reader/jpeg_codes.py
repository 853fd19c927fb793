"""The codes of a JPEG's scan read into blocks of coefficients, compiled (ITU-T T.81, F.2.2).

libjpeg-turbo spends most of its time here. A table tells two coefficients at once, and nothing is asked between two
codes that mostly has the same answer: half of that time.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from pipeline.flow.kernels import kernel, lean
from train.reader.vectors import INT, LONG, rows_of

SHORT_CODE = 9  # bits that tell most codes
PAIR = 10  # bits that tell most coefficients, or two: tables that stay in a core's nearest cache
BLOCK = 64
NOWHERE = 128  # zeros before a value that there is not: behind the end of a block
FLAT = NOWHERE + 2  # where a block ends whose first coefficient is its only one
BEHIND = 256  # bytes behind the data that a damaged block may take for its own
HELD = 64  # bits
_U = np.uint64
_ORDER = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5,
    12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21, 28,
    35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51,
    58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
]  # fmt: skip
ZIGZAG = np.array(_ORDER + [BLOCK] * (2 * NOWHERE), np.uint8)


@kernel
def code_table(codes, ac):  # pragma: no cover - compiled
    """Of the next 16 bits: bits of their code | bits with the value behind it << 5 | zeros before the value << 10.

    codes: uint16 (65536,), length << 8 | symbol, 0 where there is none. An end of a block stands as NOWHERE zeros.
    """
    table = np.zeros(1 << 16, np.uint32)
    for bits in range(1 << 16):
        length, symbol = codes[bits] >> 8, codes[bits] & 255
        if length:
            zeros, size = (symbol >> 4, symbol & 15) if ac else (0, symbol)
            if ac and size == 0 and zeros != 15:
                zeros = NOWHERE
            table[bits] = length | (length + size) << 5 | zeros << 10
    return table


@kernel
def pair_table(codes):  # pragma: no cover - compiled
    """Of the next PAIR bits: a coefficient alone, with the next one, or with the end of its block; 0 for anything else.

    bits | place of the first << 5 | of the second << 13 | places taken << 21 | value of the first << 32, second << 48;
    codes: of `code_table`.
    """
    table = np.zeros(1 << PAIR, np.uint64)
    for bits in range(1 << PAIR):
        held = _U(bits) << _U(HELD - PAIR)
        length, total, first = _told(_U(codes[held >> _U(48)]))
        if length == _U(0) or total > _U(PAIR) or first >= _U(NOWHERE):
            continue
        value = _value(held << length, total - length) & _U(0xFFFF)
        taken, second, other = first + _U(1), _U(NOWHERE), _U(0)
        held <<= total
        length, more, zeros = _told(_U(codes[held >> _U(48)]))
        if length and total + more <= _U(PAIR):
            other = _value(held << length, more - length) & _U(0xFFFF)
            total += more
            if zeros < _U(NOWHERE):
                second = taken + zeros
                taken = second + _U(1)
            else:
                taken = _U(NOWHERE + BLOCK)  # behind any end that is read alone
        table[bits] = total | first << _U(5) | second << _U(13) | taken << _U(21) | value << _U(32) | other << _U(48)
    return table


@lean
def _told(entry):  # pragma: no cover - compiled
    return entry & _U(31), (entry >> _U(5)) & _U(31), entry >> _U(10)


@lean
def _value(held, size):  # pragma: no cover - compiled
    """Of the uppermost `size` bits, a signed number (T.81, F.2.2.1)."""
    value = (held >> _U(1)) >> (_U(HELD - 1) - size)
    return value - (((_U(1) << size) - _U(1)) & ((held >> _U(HELD - 1)) - _U(1)))


@lean
def read_block(data, held, count, place, codes, starts, pairs, dc, ac, block):  # pragma: no cover - compiled
    """The next block's coefficients, int16 (65,), the first one as the difference to that of the block before.

    The scan's state: the next bits, held uppermost; how many are sure; and where the bytes behind them begin. Returns
    where the block ended, 0 where there was none, and the state behind it. Reads up to BEHIND bytes from `place` on.
    dc, ac: tables.
    """
    block[:BLOCK] = 0
    held, count, place = _filled(data, held, count, place)
    length, total, zeros = _code(codes, starts, dc, held)
    sound = length != _U(0)
    block[0] = np.int16(_value(held << length, total - length))
    held, count = held << total, count - total
    k = _U(1)
    while k < _U(BLOCK):
        held, count, place = _filled(data, held, count, place)
        both = pairs[(ac << _U(PAIR)) + (held >> _U(HELD - PAIR))]
        zeros = (both >> _U(5)) & _U(255)
        if both and k + zeros < _U(BLOCK - 1):  # behind the last coefficient another block begins
            total = both & _U(31)
            block[_U(ZIGZAG[k + zeros])] = np.int16(both >> _U(32))
            block[_U(ZIGZAG[k + ((both >> _U(13)) & _U(255))])] = np.int16(both >> _U(48))
            k += (both >> _U(21)) & _U(255)
        else:
            length, total, zeros = _code(codes, starts, ac, held)
            if length == _U(0):
                sound, zeros = False, _U(NOWHERE)
            block[_U(ZIGZAG[k + zeros])] = np.int16(_value(held << length, total - length))
            k += zeros + _U(1)
        held, count = held << total, count - total
    if not sound or _U(BLOCK) < k < _U(NOWHERE):
        k = _U(0)
    return k, held, count, place


@lean
def _filled(data, held, count, place):  # pragma: no cover - compiled
    """With 56 bits or more."""
    held |= eight_bytes(data, place) >> count
    return held, count | _U(HELD - 8), place + ((_U(HELD - 1) - count) >> _U(3))


@lean
def _code(codes, starts, table, held):  # pragma: no cover - compiled
    entry = _U(starts[(table << _U(SHORT_CODE)) + (held >> _U(HELD - SHORT_CODE))])
    if entry == _U(0):
        entry = _U(codes[(table << _U(16)) + (held >> _U(48))])
    return _told(entry)


@lean
def unstuffed(stream, at, data):  # pragma: no cover - compiled
    """The data of a scan into `data`, without the zeros stuffed into them, and BEHIND zeros; how many bytes. -1 where
    another marker comes before the end of the image."""
    size, end = 0, len(stream) - 2
    if end < at or stream[end] != 0xFF or stream[end + 1] != 0xD9:
        return -1
    while at < end:
        if at + 8 <= end and _no_marker(_eight_copied(stream, at, data, size)):
            at += 8
            size += 8
            continue
        data[size] = stream[at]
        at += 1
        if data[size] == 0xFF:
            if at == end or stream[at] != 0:
                return -1
            at += 1
        size += 1
    data[size : size + BEHIND] = 0
    return size


@lean
def _no_marker(word):  # pragma: no cover - compiled
    """Whether none of its bytes is 0xFF."""
    return (~word - _U(0x0101010101010101)) & word & _U(0x8080808080808080) == _U(0)


@intrinsic
def eight_bytes(typingctx, data, at):
    """As a number, the first byte uppermost."""

    def generate(context, builder, signature, arguments):
        data, at = rows_of(context, builder, signature.args, arguments)
        word = builder.extract_element(data.load(at.value, LONG, 1), INT(0))
        swap = cgutils.get_or_insert_function(builder.module, ir.FunctionType(LONG, [LONG]), "llvm.bswap.i64")
        return builder.call(swap, [word])

    return types.uint64(data, types.uint64), generate


@intrinsic
def _eight_copied(typingctx, data, at, out, to):
    """The same bytes, in any order, which are copied into out[to:]."""

    def generate(context, builder, signature, arguments):
        data, at, out, to = rows_of(context, builder, signature.args, arguments)
        word = data.load(at.value, LONG, 1)
        out.store(to.value, word)
        return builder.extract_element(word, INT(0))

    return types.uint64(data, types.intp, out, types.intp), generate
