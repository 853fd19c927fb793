"""Whether the compressed data of a JPEG are whole. Decoders make up what is missing or broken, without a word.

The codes are read as a decoder does (ITU-T T.81, F.2.2), and nothing is made of them: what libjpeg would warn of, which
OpenCV does not pass on, is found. Of a sequential JPEG; of a progressive one by FFmpeg, which finds nineteen in twenty
of those.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field

import av
import numpy as np
from numba import njit

SEQUENTIAL, PROGRESSIVE = (0xC0, 0xC1), 0xC2
TABLES, SCAN, END, RESTART_INTERVAL = 0xC4, 0xDA, 0xD9, 0xDD
OTHER_FRAMES = frozenset({*range(0xC3, 0xD0)} - {TABLES, 0xC8, 0xCC})  # lossless, arithmetic
DC, AC = range(4), range(4, 8)  # places of the tables
CUT_OFF, NO_CODE, LEFT_OVER, TOO_LONG, NO_RESTART = -1, -2, -3, -4, -5
DAMAGE = {
    CUT_OFF: "its data end before the picture does",
    NO_CODE: "its data hold a code that there is not",
    LEFT_OVER: "its data go on behind the end of the picture",
    TOO_LONG: "a block of it has more than 64 coefficients",
    NO_RESTART: "a restart marker is missing",
}


@dataclass
class _Header:
    """What is told before a scan. components: id -> horizontal and vertical sampling. tables: bodies of the DHT
    segments."""

    height: int = 0
    width: int = 0
    components: dict[int, tuple[int, int]] = field(default_factory=dict)
    tables: tuple[bytes, ...] = ()
    interval: int = 0


def damage(jpeg: bytes) -> str:
    """What is wrong with the data of a JPEG that decoders take; empty where nothing is, or nothing can be told."""
    header, at = _Header(), 2
    pixels = np.frombuffer(jpeg, np.uint8)
    try:
        while True:
            if jpeg[at] != 0xFF:
                return DAMAGE[LEFT_OVER]
            while jpeg[at + 1] == 0xFF:  # fill bytes
                at += 1
            marker, length = jpeg[at + 1], int.from_bytes(jpeg[at + 2 : at + 4], "big")
            body = jpeg[at + 4 : at + 2 + length]
            if marker == END:
                return _left_behind(jpeg, at)
            at += 2 + length
            if marker == PROGRESSIVE:
                return _damage_of_progressive(jpeg) or _left_behind(jpeg, jpeg.index(b"\xff\xd9", at))
            if marker in OTHER_FRAMES:
                return ""
            if marker in SEQUENTIAL:
                header.height, header.width = int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big")
                header.components = {
                    body[n]: (body[n + 1] >> 4, body[n + 1] & 15) for n in range(6, 6 + 3 * body[5], 3)
                }
            elif marker == TABLES:
                header.tables += (body,)
            elif marker == RESTART_INTERVAL:
                header.interval = int.from_bytes(body, "big")
            elif marker == SCAN:
                at = _walk(pixels, at, *code_tables(header.tables), *_scan(header, body), header.interval)
                if at < 0:
                    return DAMAGE[at]
    except (LookupError, ValueError, ZeroDivisionError):
        return "its header is damaged"


def _left_behind(jpeg: bytes, end: int) -> str:
    """Of what is behind the end marker, such as another picture, which decoders leave out; zeros are padding."""
    return DAMAGE[LEFT_OVER] if jpeg[end + 2 :].strip(b"\0") else ""


def _scan(header: _Header, body: bytes) -> tuple[np.ndarray, int]:
    """Of each block of a unit its two tables, int64 (B, 2), and how many units the scan has."""
    widest, highest = (max(sampling[axis] for sampling in header.components.values()) for axis in (0, 1))
    chosen = [(body[n], DC[body[n + 1] >> 4], AC[body[n + 1] & 15]) for n in range(1, 1 + 2 * body[0], 2)]
    if len(chosen) == 1:  # not interleaved: units are blocks of this component
        (component, *pair) = chosen[0]
        across, down = header.components[component]
        columns = _whole(_whole(header.width * across, widest), 8)
        rows = _whole(_whole(header.height * down, highest), 8)
        return np.array([pair]), columns * rows
    blocks = [
        pair
        for component, *pair in chosen
        for _ in range(header.components[component][0] * header.components[component][1])
    ]
    units = _whole(header.width, 8 * widest) * _whole(header.height, 8 * highest)
    return np.array(blocks), units


def _whole(size: int, part: int) -> int:
    """How many parts of that size cover it."""
    return (size + part - 1) // part


@functools.lru_cache(maxsize=64)  # encoders have few tables, and most pictures the same
def code_tables(tables: tuple[bytes, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Of the next 16 bits the length of their code << 8 | its symbol, 0 where there is none: uint16 (8, 65536), DC then
    AC.

    Before it the same of the next 10 bits, where that is enough: a table that stays in a core's nearest cache.
    """
    found = np.zeros((8, 1 << 16), np.uint16)
    for body in tables:
        at = 0
        while at < len(body):
            table = found[(body[at] >> 4 & 1) * 4 + (body[at] & 3)]
            table[:] = 0
            counts, at, code = body[at + 1 : at + 17], at + 17, 0
            for length, count in enumerate(counts, 1):
                span = 1 << (16 - length)
                for symbol in body[at : at + count]:
                    table[code : code + span] = length << 8 | symbol
                    code += span
                at += count
    short = found[:, ::64].copy()
    short[short >> 8 > 10] = 0
    return short, found


@njit(cache=True, nogil=True)
def _walk(data, at, short, tables, blocks, units, interval):  # pragma: no cover - compiled
    """Read a scan that begins at `at`. Where the marker behind it is, or what is wrong."""
    bits, held, made_up, restarts = np.uint64(0), 0, 0, 0
    for unit in range(units):
        if interval and unit and unit % interval == 0:
            if held - made_up >= 8:
                return LEFT_OVER
            while at + 1 < len(data) and data[at] == 0xFF and data[at + 1] == 0xFF:
                at += 1
            if at + 1 >= len(data) or data[at] != 0xFF:
                return LEFT_OVER
            if data[at + 1] != 0xD0 + restarts % 8:
                return NO_RESTART if data[at + 1] else LEFT_OVER
            at, restarts, bits, held, made_up = at + 2, restarts + 1, np.uint64(0), 0, 0
        for block in range(len(blocks)):
            place = 0
            while place < 64:
                while held <= 48:
                    byte = np.uint64(0)
                    if made_up or at + 1 >= len(data):
                        made_up += 8
                    elif data[at] != 0xFF:
                        byte = np.uint64(data[at])
                        at += 1
                    else:
                        behind = at
                        while behind + 1 < len(data) and data[behind] == 0xFF:
                            behind += 1
                        if data[behind]:  # a marker
                            made_up += 8
                        else:
                            byte, at = np.uint64(0xFF), behind + 1
                    bits = (bits << np.uint64(8)) | byte
                    held += 8
                table = blocks[block, 1 if place else 0]
                code = short[table, (bits >> np.uint64(held - 10)) & np.uint64(0x3FF)]
                if code == 0:
                    code = tables[table, (bits >> np.uint64(held - 16)) & np.uint64(0xFFFF)]
                if code == 0:
                    return CUT_OFF if held - 16 < made_up else NO_CODE
                run, size = (code >> 4) & 15, code & 15
                held -= (code >> 8) + size
                if held < made_up:
                    return CUT_OFF
                if place == 0:
                    place = 1
                elif size:
                    place += run + 1
                elif run == 15:
                    place += 16
                else:
                    break
            if place > 64:
                return TOO_LONG
    if held - made_up >= 8 or at + 1 >= len(data) or data[at] != 0xFF or data[at + 1] == 0:
        return LEFT_OVER
    return at


def _damage_of_progressive(jpeg: bytes) -> str:
    decoder = av.CodecContext.create("mjpeg", "r")
    decoder.options = {"err_detect": "explode"}
    try:
        decoder.decode(av.Packet(jpeg))
    except av.error.InvalidDataError:
        return "its data are damaged"
    return ""
