"""How a frame becomes a chunk of a Zarr v3 array: as JPEG, by a codec of our own, or without loss as zstd.

Importing this module registers the JPEG codec; an installed costream registers it through the entry point
`zarr.codecs`, so that any Zarr v3 client in the same environment reads the arrays. Arrays in zstd need no costream.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import cv2
import numpy as np
from numcodecs.zstd import Zstd
from zarr.abc.codec import ArrayBytesCodec
from zarr.registry import register_codec

from pipeline import pictures

if TYPE_CHECKING:
    from zarr.core.array_spec import ArraySpec
    from zarr.core.buffer import Buffer, NDBuffer

NAME = "costream.jpeg"
Layout = Literal["rgb", "stacked"]
DIMENSIONS: dict[Layout, tuple[str, ...]] = {  # of an array of frames
    "rgb": ("frame", "y", "x", "channel"),
    "stacked": ("frame", "plane", "y", "x"),
}
Chroma = Literal["4:2:0", "4:4:4"]
_SAMPLING = {
    "4:2:0": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
    "4:4:4": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
}
_FLAGS = {
    "rgb": cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION,
    "stacked": cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION,
}
_ZSTD_MAGIC, _ZSTD_HEADER = b"\x28\xb5\x2f\xfd", 18  # bytes of the longest header


class FrameCodec(Protocol):
    """Frames <-> encoded frames: what Zarr's codec chain gives for a frame's chunk before the checksum is added."""

    def encode_frame(self, frame: np.ndarray) -> np.ndarray:
        """One uint8 frame encoded, 1-D uint8."""

    def decode_frame(self, encoded: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """The frame, uint8 of that shape. Raises ValueError when the bytes do not hold one."""

    def chain(self) -> list[dict[str, Any]]:
        """The codecs for the array's zarr.json."""


def encode(frame: np.ndarray, layout: Layout, quality: int, chroma: Chroma = "4:2:0") -> np.ndarray:
    """One frame as JPEG, 1-D uint8.

    `rgb`: frame (H, W, 3) uint8 RGB, stored as an ordinary colour JPEG; with chroma "4:2:0", colour is
    kept at half the height and width (the habit of JPEG and of video), with "4:4:4" at full size.
    `stacked`: frame (P, H, W) uint8, the planes one above the other in ONE gray JPEG of P*H x W. Three-channel JPEG
    would mix u and v through the chroma planes, at twice the error (0.086 px against 0.045, docs/methods.md 1.4).
    """
    image = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR) if layout == "rgb" else frame.reshape(-1, frame.shape[-1])
    settings = [cv2.IMWRITE_JPEG_QUALITY, quality]
    if layout == "rgb":
        settings += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, _SAMPLING[chroma]]
    done, encoded = cv2.imencode(".jpg", image, settings)
    if not done:
        raise ValueError(f"JPEG encoding refused a frame of shape {frame.shape}")
    return encoded


def decode(encoded: np.ndarray, layout: Layout, shape: tuple[int, ...]) -> np.ndarray:
    """The inverse of `encode`: uint8 of `shape`, which is (H, W, 3) for `rgb` and (P, H, W) for `stacked`.

    Raises ValueError when the bytes do not hold an image of that shape.
    """
    wanted = shape if layout == "rgb" else (shape[0] * shape[1], shape[2])
    announced = pictures.jpeg_size(encoded)  # decoding takes memory for what is announced, whatever is there
    image = cv2.imdecode(encoded, _FLAGS[layout]) if announced == wanted[:2] else None
    if image is None or image.shape != wanted:
        found = f"an image of {announced[0]} x {announced[1]}" if announced else "nothing"
        raise ValueError(f"a JPEG should hold a frame of shape {shape} and holds {found}")
    return image.reshape(shape)


@dataclass(frozen=True)
class JpegCodec(ArrayBytesCodec):
    """Array-to-bytes codec whose chunks hold one frame each: shape (1, H, W, 3) or (1, P, H, W), uint8."""

    is_fixed_size = False

    quality: int = 95
    layout: Layout = "rgb"
    chroma: Chroma = "4:2:0"  # says nothing in the layout `stacked`, which is gray

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> JpegCodec:
        return cls(**data.get("configuration", {}))

    def to_dict(self) -> dict[str, Any]:
        configuration: dict[str, Any] = {"quality": self.quality, "layout": self.layout}
        if self.layout == "rgb":
            configuration["chroma"] = self.chroma
        return {"name": NAME, "configuration": configuration}

    def encode_frame(self, frame: np.ndarray) -> np.ndarray:
        """`encode` with these settings."""
        return encode(frame, self.layout, self.quality, self.chroma)

    def decode_frame(self, encoded: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        return decode(encoded, self.layout, shape)

    def chain(self) -> list[dict[str, Any]]:
        return [self.to_dict()]

    def validate(self, *, shape: tuple[int, ...], dtype: Any, chunk_grid: Any) -> None:
        if dtype.to_native_dtype() != np.uint8:
            raise ValueError(f"{NAME} stores uint8 arrays, not {dtype}")
        if len(shape) != 4 or (self.layout == "rgb" and shape[-1] != 3):
            raise ValueError(f"{NAME} with layout {self.layout!r} cannot store an array of shape {shape}")

    async def _decode_single(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        encoded = np.frombuffer(chunk_bytes.as_numpy_array(), np.uint8)
        frame = await asyncio.to_thread(decode, encoded, self.layout, chunk_spec.shape[1:])
        return chunk_spec.prototype.nd_buffer.from_numpy_array(frame[None])

    async def _encode_single(self, chunk_array: NDBuffer, chunk_spec: ArraySpec) -> Buffer | None:
        frame = chunk_array.as_numpy_array()[0]
        encoded = await asyncio.to_thread(self.encode_frame, frame)
        return chunk_spec.prototype.buffer.from_array_like(encoded)

    def compute_encoded_size(self, input_byte_length: int, _chunk_spec: ArraySpec) -> int:
        raise NotImplementedError("the size of a JPEG is known only once it is made")


@dataclass(frozen=True)
class ZstdFrames:
    """Frames without loss. Level 1 without shuffling: on flow bytes higher levels and filters are larger
    (docs/methods.md 1.4)."""

    level: int = 1

    def encode_frame(self, frame: np.ndarray) -> np.ndarray:
        return np.frombuffer(Zstd(self.level).encode(np.ascontiguousarray(frame)), np.uint8)

    def decode_frame(self, encoded: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        announced = _content_size(encoded[:_ZSTD_HEADER].tobytes())
        if announced != math.prod(shape):  # decompressing takes memory for what is announced
            raise ValueError(f"zstd bytes should hold a frame of shape {shape} and hold {announced} bytes")
        try:
            values = np.frombuffer(Zstd().decode(np.ascontiguousarray(encoded)), np.uint8)
        except RuntimeError as error:
            raise ValueError(f"zstd bytes cannot be decompressed: {error}") from error
        return values.reshape(shape)

    def chain(self) -> list[dict[str, Any]]:
        return [{"name": "bytes"}, {"name": "zstd", "configuration": {"level": self.level, "checksum": False}}]


def _content_size(header: bytes) -> int | None:
    """Bytes that a zstd frame says it holds (RFC 8878, 3.1.1.1); None where it does not say, as ours always do."""
    if len(header) < 5 or header[:4] != _ZSTD_MAGIC:
        return None
    flags = header[4]
    whole = bool(flags & 32)  # a single segment: no byte tells the size of a window
    start = 5 + (not whole) + (0, 1, 2, 4)[flags & 3]
    length = (1 if whole else 0, 2, 4, 8)[flags >> 6]
    if not length:
        return None
    return int.from_bytes(header[start : start + length], "little") + (256 if length == 2 else 0)


register_codec(NAME, JpegCodec)
