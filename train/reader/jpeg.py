"""Frames as our encoder writes them, decoded where clips show them; all else by OpenCV. The same pixels either way."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline import LARGEST
from pipeline.huffman import SCAN, SEQUENTIAL, TABLES, code_tables
from pipeline.views.codec import FrameCodec, JpegCodec
from train.augment.windows import PixelWindow
from train.reader import jpeg_kernels
from train.reader.jpeg_codes import BLOCK, SHORT_CODE, ZIGZAG, code_table, pair_table
from train.reader.jpeg_pixels import LANES
from train.reader.resize import TOGETHER

SCALES = 0xDB  # the marker of the tables that coefficients are multiplied by
AC, DC = 0, 2  # places of the first of two tables
NARROW = 5  # pixels: below that chroma at half size is enlarged otherwise


class WindowDecoder:
    """Decodes frames of a shape, (H, W, 3) or (P, H, W), uint8, right within all of `windows`; elsewhere they hold
    anything.

    Up to twice as fast as OpenCV, whose pixels they have (on x86, to the bit). Of frames that another encoder wrote,
    or with another quality than the store says, or damaged ones, OpenCV makes what it makes of them. Used by any
    threads.
    """

    def __init__(self, codec: FrameCodec, shape: tuple[int, ...], windows: Sequence[PixelWindow]) -> None:
        self._codec, self._shape = codec, shape
        self._form = form(codec, shape) if isinstance(codec, JpegCodec) else None
        if self._form:
            top, left = (min(window[axis] for window in windows) for axis in (0, 1))
            bottom, right = (max(window[axis] + window[axis + 2] for window in windows) for axis in (0, 1))
            self._part = *self._form.part(top, bottom, left, right), (top, bottom, left, right)

    def __call__(self, streams: Sequence[np.ndarray]) -> list[np.ndarray]:
        """From 1 to `TOGETHER` frames. Raises ValueError where the bytes of one hold no such frame."""
        frames: Sequence[np.ndarray | None] = [None] * len(streams)
        if self._form:
            frames = self._form.decode(streams, *self._part)
        return [
            self._codec.decode_frame(stream, self._shape) if frame is None else frame
            for stream, frame in zip(streams, frames, strict=True)
        ]


@functools.cache
def prepare() -> None:
    """Compile it, which the first reader on a machine would wait for."""
    for codec in (JpegCodec(layout="rgb"), JpegCodec(layout="stacked")):
        frame = _small(codec)
        WindowDecoder(codec, frame.shape, [(0, 0, 1, 1)])([codec.encode_frame(frame)])


@dataclass(frozen=True)
class Form:
    """What is the same in all frames of a shape that a codec writes: see `jpeg_kernels`."""

    shape: tuple[int, ...]
    header: np.ndarray
    tables: tuple[np.ndarray, np.ndarray, np.ndarray]
    blocks: np.ndarray
    scales: np.ndarray
    units: tuple[int, int]

    def part(self, top: int, bottom: int, left: int, right: int) -> tuple[np.ndarray, tuple[int, int]]:
        """Which rows of units, and which units of a row, hold that window, with a pixel around it."""
        down, across = (int(8 * self.blocks[0, axis]) for axis in (1, 2))
        rows = np.zeros(self.units[0], np.bool_)
        for plane in range(self.shape[0] if self.colours == 1 else 1):
            above = plane * self.shape[1]
            rows[max(above + top - 1, 0) // down : (above + bottom) // down + 1] = True
        return rows, (max(left - 1, 0) // across, right // across + 1)

    @property
    def colours(self) -> int:
        return len(self.scales)

    def decode(
        self, streams: Sequence[np.ndarray], rows: np.ndarray, across: tuple, window: tuple
    ) -> list[np.ndarray | None]:
        """From 1 to `TOGETHER` frames; None where a stream is not in this form."""
        size = len(streams) * math.prod(self.shape)
        frames = np.empty(size + 3 * LANES, np.uint8)[:size].reshape(-1, *self.shape)
        decoded = np.empty(len(streams), np.bool_)
        run = jpeg_kernels.decode_colour if self.colours == 3 else jpeg_kernels.decode_gray
        # All read-only and of one length, or the kernels would be compiled anew.
        given = [_read_only(stream) for stream in streams]
        given += [given[-1]] * (TOGETHER - len(given))
        form = self.header, *self.tables, self.blocks, self.scales, self.units
        run(tuple(given), *form, rows, across, window, frames, decoded)
        return [frame if right else None for frame, right in zip(frames, decoded.tolist(), strict=True)]


def _read_only(stream: np.ndarray) -> np.ndarray:
    if stream.flags.writeable:
        stream = stream.view()
        stream.flags.writeable = False
    return stream


@functools.lru_cache(maxsize=256)
def form(codec: JpegCodec, shape: tuple[int, ...]) -> Form | None:
    """Of frames of a shape, read off a small one that the codec writes; None where chroma is so narrow that it is
    enlarged otherwise, and for frames too large to be taken memory for before their own header is read."""
    height, width = shape[:2] if codec.layout == "rgb" else (shape[0] * shape[1], shape[2])
    if not (0 < height < 1 << 16 and 0 < width < 1 << 16 and height * width <= LARGEST):
        return None
    encoded = bytearray(codec.encode_frame(_small(codec)))
    scales: dict[int, np.ndarray] = {}
    tables: tuple[bytes, ...] = ()
    at = 2
    while encoded[at + 1] != SCAN:
        marker, end = encoded[at + 1], at + 2 + int.from_bytes(encoded[at + 2 : at + 4], "big")
        body = bytes(encoded[at + 4 : end])
        if marker == SCALES:
            for place in range(0, len(body), 1 + BLOCK):
                scales[body[place]] = np.zeros(BLOCK, np.int16)
                scales[body[place]][ZIGZAG[:BLOCK]] = np.frombuffer(body, np.uint8, BLOCK, place + 1)
        elif marker == TABLES:
            tables += (body,)
        elif marker in SEQUENTIAL:
            encoded[at + 5 : at + 9] = height.to_bytes(2, "big") + width.to_bytes(2, "big")
            components = [(body[n] >> 4, body[n] & 15, body[n + 1]) for n in range(7, 7 + 3 * body[5], 3)]
        at = end
    across, down, _ = components[0]
    if across == 2 and width < NARROW:
        return None
    blocks = [
        (number, high, wide, DC + min(number, 1), AC + min(number, 1), row, column)
        for number, (wide, high, _) in enumerate(components)
        for row in range(high)
        for column in range(wide)
    ]
    header = np.frombuffer(bytes(encoded[: at + 2 + int.from_bytes(encoded[at + 2 : at + 4], "big")]), np.uint8)
    factors = np.array([scales[number] for _, _, number in components])
    return Form(
        shape, header, _tables(tables), np.array(blocks), factors, (-(-height // (8 * down)), -(-width // (8 * across)))
    )


def _small(codec: JpegCodec) -> np.ndarray:
    return np.zeros((8, 8, 3) if codec.layout == "rgb" else (1, 8, 8), np.uint8)


@functools.lru_cache(maxsize=8)
def _tables(segments: tuple[bytes, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of all codes, of their beginnings, and of pairs of values: see `jpeg_kernels`."""
    found = code_tables(segments)[1]
    codes = np.array([code_table(found[table], table >= 4) for table in (4, 5, 0, 1)])
    starts = codes[:, :: 1 << (16 - SHORT_CODE)].copy()
    starts[(starts & 31) > SHORT_CODE] = 0
    return codes, starts, np.array([pair_table(table) for table in codes[:2]])
