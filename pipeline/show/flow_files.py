"""Flow in files: Middlebury's `.flo`, KITTI's 16-bit `.png`, NumPy's `.npy`. NaN marks pixels whose flow is unknown."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np

from pipeline import pictures, storage
from pipeline.errors import Refusal, UsageError

MAGIC = b"PIEH"  # the float 202021.25, little-endian: a reader with the other byte order notices
UNKNOWN = 1e9  # .flo: larger components, of either sign, say that the flow is not known there
_UNKNOWN_WRITTEN = np.float32(1e10)
KITTI_STEPS, KITTI_ZERO = 64, 2**15  # u = (stored - 2^15) / 64 pixels


def read(path: Path) -> np.ndarray:
    """Flow of one pair, float32 (2, H, W) in pixels, u (right) before v (down); NaN in both where it is not known.

    Raises UsageError for an ending of no known format, and Refusal for a file that is missing, cut off or something
    else.
    """
    decode = _format(path)[1]
    try:
        data = storage.read_regular(path)
    except OSError as error:
        raise Refusal(
            f"the flow cannot be read: {error.strerror}", where=str(path), remedy="give another file"
        ) from error
    try:
        flow = decode(data)
    except ValueError as error:
        raise Refusal(
            f"this is not a whole {path.suffix} file of flow: {error}", where=str(path), remedy="replace the file"
        ) from error
    flow[:, ~_known(flow)] = np.nan
    return flow


def encode(path: Path, flow: np.ndarray) -> bytes:
    """What a file of this name holds for `flow`, (2, H, W) in pixels. KITTI's format rounds to 1/64 pixel.

    Raises UsageError for an ending of no known format, and Refusal for flow beyond KITTI's range of 512 pixels.
    """
    if flow.ndim != 3 or len(flow) != 2 or 0 in flow.shape:
        raise ValueError(f"flow must be (2, H, W), not {flow.shape}")
    flow = flow.astype(np.float32)
    try:
        return _format(path)[0](flow, _known(flow))
    except OverflowError as error:
        raise Refusal(str(error), where=str(path), remedy="write a .flo or .npy file instead") from error


def write(path: Path, flow: np.ndarray) -> None:
    """Write the flow of one pair, the whole file or none. Raises what `encode` raises, and Refusal."""
    data = encode(path, flow)
    try:
        storage.write_atomically(path, data)
    except OSError as error:
        raise unwritable(path, error) from error


def unwritable(path: Path, error: OSError) -> Refusal:
    return Refusal(f"it cannot be written: {error.strerror}", where=str(path), remedy="give another file as --out")


def is_kitti(path: Path) -> bool:
    """Whether a file is a PNG of 16-bit colour, which is flow; pictures have 8 bits."""
    with open(path, "rb", opener=storage.regular) as file:
        head = file.read(26)
    return head.startswith(pictures.PNG_START) and head[24:26] == bytes([16, 2])


def _known(flow: np.ndarray) -> np.ndarray:
    """bool (H, W)"""
    with np.errstate(invalid="ignore"):
        return (np.abs(flow) <= UNKNOWN).all(axis=0)


def _encode_flo(flow: np.ndarray, known: np.ndarray) -> bytes:
    pixels = np.where(known, flow, _UNKNOWN_WRITTEN).transpose(1, 2, 0)
    return MAGIC + np.array(known.shape[::-1], "<i4").tobytes() + pixels.astype("<f4").tobytes()


def _decode_flo(data: bytes) -> np.ndarray:
    if data[:4] != MAGIC:
        raise ValueError(f"it does not begin with {MAGIC.decode()}")
    if len(data) < 12:
        raise ValueError("it ends within its header")
    width, height = (int(number) for number in np.frombuffer(data, "<i4", 2, offset=4))
    if width < 1 or height < 1:
        raise ValueError(f"it claims a size of {width}x{height}")
    if len(data) != 12 + 8 * width * height:
        raise ValueError(f"{width}x{height} pixels need {12 + 8 * width * height} bytes, and it has {len(data)}")
    return np.frombuffer(data, "<f4", offset=12).reshape(height, width, 2).transpose(2, 0, 1).astype(np.float32)


def _encode_kitti(flow: np.ndarray, known: np.ndarray) -> bytes:
    stored = np.rint(np.where(known, flow, 0).astype(np.float64) * KITTI_STEPS) + KITTI_ZERO
    if stored.min() < 0 or stored.max() > 65535:
        raise OverflowError(f"KITTI's PNG holds up to 512 pixels, and this flow has {np.abs(flow[:, known]).max():.0f}")
    blue_green_red = np.stack([known, np.where(known, stored[1], 0), np.where(known, stored[0], 0)], axis=-1)
    return cv2.imencode(".png", blue_green_red.astype(np.uint16))[1].tobytes()


def _decode_kitti(data: bytes) -> np.ndarray:
    if not data.startswith(pictures.PNG_START):
        raise ValueError("it is no PNG")
    if damaged := pictures.damage(data):
        raise ValueError(damaged)
    pixels = pictures.decoded(data, cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise ValueError("it cannot be decoded")
    if pixels.dtype != np.uint16 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError("it is a picture; KITTI's flow is a PNG of 16-bit colour")
    valid, v, u = np.moveaxis(pixels.astype(np.float32), -1, 0)
    flow = (np.stack([u, v]) - KITTI_ZERO) / KITTI_STEPS
    flow[:, valid == 0] = np.nan
    return flow


def _encode_npy(flow: np.ndarray, known: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, np.where(known, flow, np.float32(np.nan)))
    return file.getvalue()


def _decode_npy(data: bytes) -> np.ndarray:
    try:
        flow = np.load(io.BytesIO(data), allow_pickle=False)
    except (EOFError, SyntaxError, MemoryError, OverflowError) as error:  # a header may claim any size
        raise ValueError(str(error)) from error
    if not isinstance(flow, np.ndarray) or not np.issubdtype(flow.dtype, np.floating):
        raise ValueError("it holds no array of floating-point numbers")
    if flow.ndim != 3 or len(flow) != 2 or 0 in flow.shape:
        raise ValueError(f"flow of one pair is (2, H, W), and this is {flow.shape}")
    return flow.astype(np.float32)


FORMATS = {
    ".flo": (_encode_flo, _decode_flo),
    ".png": (_encode_kitti, _decode_kitti),
    ".npy": (_encode_npy, _decode_npy),
}


def _format(path: Path) -> tuple:
    if path.suffix.lower() not in FORMATS:
        raise UsageError(
            f"flow files end in {', '.join(FORMATS)}, not in {path.suffix or 'nothing'!r}", where=str(path)
        )
    return FORMATS[path.suffix.lower()]
