"""The bytes of one shard: write frames that are already encoded, read them back with one positioned read.

A shard is Zarr v3's `sharding_indexed` with one frame per inner chunk and the index at the end:

    frame 0 | crc32c | frame 1 | crc32c | ... | index: n x (offset u64, size u64) | crc32c of the index

all little-endian; `size` counts the frame's four CRC bytes; 2^64-1 in both fields marks a chunk that is not there
(behind the end of the last shard). zarr-python writes the same bytes at twice the time (specs/reader.md section 5) and
reads a frame in six times the time (section 4); a test holds the two writers against each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import google_crc32c
import numpy as np

from pipeline.storage import OpenFile

FRAMES_PER_SHARD = 256
CRC_BYTES = 4
MISSING = 2**64 - 1


class CorruptShard(ValueError):
    """Bytes that are not what was written."""


def pack(streams: Sequence[np.ndarray], slots: int) -> bytes:
    """The shard of `streams` (1-D uint8, in frame order) with room for `slots` frames in its index."""
    index = np.full((slots, 2), MISSING, "<u8")
    parts, offset = [], 0
    for slot, stream in enumerate(streams):
        payload = stream.tobytes()
        parts += [payload, google_crc32c.value(payload).to_bytes(CRC_BYTES, "little")]
        size = len(payload) + CRC_BYTES
        index[slot] = offset, size
        offset += size
    footer = index.tobytes()
    return b"".join([*parts, footer, google_crc32c.value(footer).to_bytes(CRC_BYTES, "little")])


def read_index(file: OpenFile, slots: int) -> np.ndarray:
    """Offsets and sizes of the shard's frames, (slots, 2) uint64. Raises CorruptShard."""
    length = 16 * slots + CRC_BYTES
    footer = file.tail(length)
    if len(footer) != length or google_crc32c.value(footer[:-CRC_BYTES]).to_bytes(4, "little") != footer[-CRC_BYTES:]:
        raise CorruptShard("the index at its end does not match its checksum")
    return np.frombuffer(footer, "<u8", count=2 * slots).reshape(slots, 2)


def read_frames(file: OpenFile, index: np.ndarray, slots: Sequence[int]) -> Iterator[np.ndarray]:
    """JPEG streams (1-D uint8) of the given slots, with one positioned read that spans them all; checked one by one, when
    they are taken: what is decoded at once is then still in the processor's cache.

    Frames of a shard lie in order, so a clip is one read; a strided clip reads the frames between as well, which costs
    less than a second system call. Raises CorruptShard when a frame is missing or does not match its CRC32C.
    """
    wanted = index[np.asarray(slots, np.int64)]
    if (wanted[:, 0] == MISSING).any():
        raise CorruptShard(f"frame {int(np.flatnonzero(wanted[:, 0] == MISSING)[0])} of the request was never written")
    start, end = int(wanted[:, 0].min()), int(wanted.sum(axis=1).max())
    buffer = np.frombuffer(file.read(start, end - start), np.uint8)
    if buffer.size != end - start:
        raise CorruptShard(f"it ends after {start + buffer.size} bytes; {end} are needed")
    begins = (wanted[:, 0] - np.uint64(start)).astype(np.int64)
    ends = begins + wanted[:, 1].astype(np.int64) - CRC_BYTES
    checksums = buffer[ends[:, None] + np.arange(CRC_BYTES)].view("<u4")[:, 0]
    for slot, begin, end, checksum in zip(slots, begins.tolist(), ends.tolist(), checksums.tolist(), strict=True):
        stream = buffer[begin:end]
        if google_crc32c.value(stream) != checksum:
            raise CorruptShard(f"frame {slot} of the shard does not match its checksum")
        yield stream


def path(view_folder: Path, shard: int, dimensions: int) -> Path:
    """Where Zarr's default chunk-key encoding puts a shard along the first axis of an array."""
    return view_folder.joinpath("c", str(shard), *["0"] * (dimensions - 1))
