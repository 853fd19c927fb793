"""The bytes of one shard: write frames that are already encoded, read them back with one positioned read.

A shard is Zarr v3's `sharding_indexed` with one frame per inner chunk and the index at the end:

    frame 0 | crc32c | frame 1 | crc32c | ... | mark | index: n x (offset u64, size u64) | crc32c of the index

all little-endian; `size` counts the frame's four CRC bytes; 2^64-1 in both fields marks a chunk that is not there
(behind the end of the last shard). The mark says of which video, view and part the shard is; it is read together with
the index, so that a shard in another one's place is noticed by every reader, at no cost. Zarr knows nothing of it and
leaves it alone. But for the mark, zarr-python writes the same bytes at twice the time and reads a frame in six times
the time (`tests/benchmarks/store`); a test holds the two writers against each other.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import google_crc32c
import numpy as np

from pipeline.storage import OpenFile

FRAMES_PER_SHARD = 256
CRC_BYTES = 4
MARK_BYTES = 16
MISSING = 2**64 - 1
LARGEST = 2**40  # bytes of a frame, far above what any can have: sums of such do not run over


class CorruptShard(ValueError):
    """Bytes that are not what was written."""


def mark(video_id: str, view: str, part: int) -> bytes:
    """Of the shard number `part` of a video's view."""
    return hashlib.blake2b(f"{view}/{part}/{video_id}".encode(), digest_size=MARK_BYTES).digest()


def pack(encoded: Sequence[np.ndarray], slots: int, marked: bytes = b"") -> bytes:
    """The shard of `encoded` frames (1-D uint8, in frame order) with room for `slots` frames in its index."""
    index = np.full((slots, 2), MISSING, "<u8")
    parts, offset = [], 0
    for slot, frame in enumerate(encoded):
        payload = frame.tobytes()
        parts += [payload, google_crc32c.value(payload).to_bytes(CRC_BYTES, "little")]
        size = len(payload) + CRC_BYTES
        index[slot] = offset, size
        offset += size
    footer = index.tobytes()
    return b"".join([*parts, marked, footer, google_crc32c.value(footer).to_bytes(CRC_BYTES, "little")])


def read_index(file: OpenFile, slots: int, frames: int, marked: bytes = b"") -> list[tuple[int, int]]:
    """Offset and size of each of the shard's frames, of which there are `frames`. Raises CorruptShard.

    marked: the mark that it must have; b"" for shards from before there were marks.
    """
    length = 16 * slots + CRC_BYTES
    end = file.tail(len(marked) + length)
    footer = end[len(marked) :]
    if len(footer) != length or google_crc32c.value(footer[:-CRC_BYTES]).to_bytes(4, "little") != footer[-CRC_BYTES:]:
        raise CorruptShard("the index at its end does not match its checksum")
    if end[: len(marked)] != marked:
        raise CorruptShard("this is the shard of another video, view or part")
    index = np.frombuffer(footer[:-CRC_BYTES], "<u8").reshape(slots, 2)
    offsets, sizes = index[:frames].T
    # As they were written: one after the other, from the beginning, none missing.
    ends = np.cumsum(sizes)
    if (
        not (index[frames:] == MISSING).all()
        or not ((sizes >= CRC_BYTES) & (sizes < LARGEST)).all()
        or offsets[:1].any()
        or not np.array_equal(offsets[1:], ends[:-1])
    ):
        raise CorruptShard(f"its index is not that of {frames} frames, one after the other")
    return list(struct.iter_unpack("<QQ", footer[:-CRC_BYTES]))


def read_frames(file: OpenFile, index: Sequence[tuple[int, int]], slots: Sequence[int]) -> Iterator[np.ndarray]:
    """Encoded frames (1-D uint8) of the given slots, with one positioned read that spans them all; checked one by one,
    when they are taken: what is decoded at once is then still in the processor's cache.

    Frames of a shard lie in order, so a clip is one read; a strided clip reads the frames between as well, which costs
    less than a second system call. Raises CorruptShard when a frame is missing or does not match its CRC32C.
    """
    # Plain integers: between two decoded frames each small NumPy operation takes tens of microseconds.
    wanted = [index[slot] for slot in slots]
    missing = [slot for slot, (offset, _) in zip(slots, wanted, strict=True) if offset == MISSING]
    if missing:
        raise CorruptShard(f"frame {missing[0]} of the shard was never written")
    start, end = min(offset for offset, _ in wanted), max(offset + size for offset, size in wanted)
    data = file.read(start, end - start)
    if len(data) != end - start:
        raise CorruptShard(f"it ends after {start + len(data)} bytes; {end} are needed")
    buffer = np.frombuffer(data, np.uint8)
    for slot, (offset, size) in zip(slots, wanted, strict=True):
        behind = offset - start + size - CRC_BYTES
        frame = buffer[offset - start : behind]
        if google_crc32c.value(frame) != int.from_bytes(data[behind : behind + CRC_BYTES], "little"):
            raise CorruptShard(f"frame {slot} of the shard does not match its checksum")
        yield frame


def path(view_folder: Path, shard: int, dimensions: int) -> Path:
    """Where Zarr's default chunk-key encoding puts a shard along the first axis of an array."""
    return view_folder.joinpath("c", str(shard), *["0"] * (dimensions - 1))
