"""How large a picture may be, as decoders take memory by what its header announces before they read a single pixel; and
whether it is whole, as they make up what is missing or broken without a word."""

from __future__ import annotations

import os

import cv2
import numpy as np

from pipeline import LARGEST, MAX_PIXELS_VARIABLE

JPEG_START, JPEG_END = b"\xff\xd8", b"\xff\xd9"
PNG_START, PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
CUT_OFF = "it is cut off"
_SCAN = 0xDA
_NO_SIZES = frozenset({0xC4, 0xC8, 0xCC})  # of the markers C0 to CF, which otherwise begin with the picture's size
_HEAD = 4096  # bytes that hold the header of a usual JPEG


class TooLarge(ValueError):
    """A picture that announces more pixels than are taken."""

    def __init__(self, height: int, width: int) -> None:
        announced = f"it announces {width}x{height} pixels"
        super().__init__(f"{announced}, more than {LARGEST:,}; {MAX_PIXELS_VARIABLE} in the environment allows more")


def refuse_huge(height: int, width: int) -> None:
    """Raises TooLarge."""
    if height * width > LARGEST:
        raise TooLarge(height, width)


def decoded(encoded: bytes | np.ndarray, flags: int) -> np.ndarray | None:
    """A picture as `cv2.imdecode` gives it; None where it is none. Raises TooLarge before memory is taken for it."""
    if size := jpeg_size(encoded):
        refuse_huge(*size)
    try:
        return cv2.imdecode(np.frombuffer(encoded, np.uint8), flags) if len(encoded) else None
    except cv2.error as error:  # of other kinds of pictures OpenCV itself reads the header, and keeps to the limit
        limit = os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"]
        raise ValueError(f"it announces more pixels than {limit}, or is broken: {error.err}") from error


def damage(encoded: bytes) -> str:
    """What is wrong with a JPEG or PNG that `decoded` takes all the same; empty where nothing is, and of other kinds.
    To be asked after that, which refuses huge ones."""
    if encoded.startswith(JPEG_START):
        if not encoded.rstrip(b"\0").endswith(JPEG_END):
            return CUT_OFF
        # Here, as numba takes half a second to import, which other commands need not wait for.
        from pipeline.huffman import damage as of_scan

        return of_scan(encoded)
    return CUT_OFF if encoded.startswith(PNG_START) and not encoded.endswith(PNG_END) else ""


def jpeg_size(encoded: bytes | np.ndarray) -> tuple[int, int] | None:
    """Height and width that the header of a JPEG announces; None where there is no such header."""
    if not len(encoded):
        return None
    whole = np.frombuffer(encoded, np.uint8)
    return _size(whole[:_HEAD].tobytes()) or (_size(whole.tobytes()) if len(whole) > _HEAD else None)


def _size(data: bytes) -> tuple[int, int] | None:
    if data[:2] != JPEG_START:
        return None
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # any number of them may fill up
            at += 1
            continue
        if marker == _SCAN:
            return None
        if 0xC0 <= marker <= 0xCF and marker not in _NO_SIZES:
            return int.from_bytes(data[at + 5 : at + 7], "big"), int.from_bytes(data[at + 7 : at + 9], "big")
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None
