"""What is inside a JPEG that others wrote: whether it can be stored as it is, its frame, or the flow in it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from pipeline import pictures, storage
from pipeline.video.decode import Undecodable

BASELINE, SCAN, EXIF, ADOBE = 0xC0, 0xDA, 0xE1, 0xEE
OTHER_FRAMES = frozenset({*range(0xC1, 0xD0)} - {0xC4, 0xC8, 0xCC})  # progressive, lossless, arithmetic
EMPTY = 128  # CoCLR's third channel, where there is nothing
LEAK = 16  # gray levels on average: chroma at half size lets through 0.7 from the other two


def is_plain(jpeg: bytes) -> bool:
    """Whether it is a baseline JPEG of 8 bits with the three components Y, Cb and Cr, that no orientation turns.

    Every decoder gives the same frame for those, on a CPU or a GPU; what is in doubt is better encoded again.
    """
    at = 2
    three = False
    while jpeg[:2] == pictures.JPEG_START and at + 4 <= len(jpeg) and jpeg[at] == 0xFF:
        marker, length = jpeg[at + 1], int.from_bytes(jpeg[at + 2 : at + 4], "big")
        body = jpeg[at + 4 : at + 2 + length]
        if marker == SCAN:
            return three
        if (
            marker in OTHER_FRAMES
            or (marker == EXIF and body[:4] == b"Exif")
            or (marker == ADOBE and body[:5] == b"Adobe")
        ):
            return False
        if marker == BASELINE:
            if len(body) != 15 or body[0] != 8 or body[5] != 3 or body[6::3] == b"RGB":
                return False
            three = True
        at += 2 + length
    return False


def load(jpeg: bytes | Path) -> bytes:
    """A JPEG, read where it is a file. Raises Undecodable."""
    if isinstance(jpeg, bytes):
        return jpeg
    try:
        return storage.read_regular(jpeg)
    except OSError as error:
        raise Undecodable(f"{jpeg.name} cannot be read: {error.strerror}", "open") from error


def frame(jpeg: bytes, what: str) -> np.ndarray:
    """A JPEG's frame, uint8 RGB (H, W, 3); a gray one has three equal channels. Raises Undecodable, naming `what`."""
    return _decode(jpeg, cv2.IMREAD_COLOR_RGB, what)


def planes(jpegs: tuple[bytes, ...], what: str) -> np.ndarray:
    """The flow in one three-channel JPEG of CoCLR, or in two gray ones: bytes of u and v, uint8 (2, H, W).

    CoCLR has u in blue, v in green and 128 in red (docs/methods.md 1.4). Raises Undecodable for what has not.
    """
    if len(jpegs) == 2:
        u, v = (_decode(jpeg, cv2.IMREAD_GRAYSCALE, what) for jpeg in jpegs)
        if u.shape != v.shape:
            raise Undecodable(f"{what}: u is {_size(u)} and v is {_size(v)}", "decode")
        return np.stack([u, v])
    red, v, u = np.moveaxis(_decode(jpegs[0], cv2.IMREAD_COLOR_RGB, what), -1, 0)
    if np.abs(red.astype(np.int16) - EMPTY).mean() > LEAK:
        raise Undecodable(f"{what} is not flow as CoCLR has it: its red channel is not {EMPTY} all over", "decode")
    return np.stack([u, v])


def _decode(jpeg: bytes, flags: int, what: str) -> np.ndarray:
    if not jpeg.startswith(pictures.JPEG_START):  # OpenCV would decode other pictures, too
        raise Undecodable(f"{what} is no JPEG" if jpeg else f"{what} is empty", "decode")
    try:
        image = pictures.decoded(jpeg, flags)
    except ValueError as error:
        raise Undecodable(f"{what} cannot be decoded: {error}", "decode") from error
    damaged = pictures.damage(jpeg)
    if damaged == pictures.CUT_OFF:
        raise Undecodable(f"{what} is cut off", "decode")
    if image is None:
        raise Undecodable(f"{what} cannot be decoded", "decode")
    if damaged:
        raise Undecodable(f"{what} is damaged: {damaged}", "decode")
    return image


def _size(image: np.ndarray) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"
