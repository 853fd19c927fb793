"""Encoded frames of a store for many threads and epochs: keeps shards open and their indices parsed.

`VideoStore.encoded` opens a shard and reads its index for every clip. On a local disk that is a fifth of the 0.2 ms
that the bytes of a clip of 32 frames cost (decoding them costs 4 ms), but on a network file system it is several round
trips; here a clip from a shard that is still open is one positioned read.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np

from pipeline import storage
from pipeline.store import VideoStore, shard

OPEN_SHARDS = 256  # a quarter of the usual limit of 1024 files a process; their indices take 30 kB each


Opened = tuple[storage.OpenFile, list[tuple[int, int]]]  # a shard's file and index


class ShardReader:
    """The same bytes and refusals as `VideoStore.encoded`, from the `capacity` shards used last. Safe for threads."""

    def __init__(self, store: VideoStore, capacity: int = OPEN_SHARDS) -> None:
        self.store, self.capacity = store, capacity
        self._shards: OrderedDict[tuple[str, str, int], Opened] = OrderedDict()
        self._lock = threading.Lock()

    def encoded(self, video_id: str, view: str, frames: Sequence[int] | np.ndarray) -> dict[int, np.ndarray]:
        """Frame number -> its stream (1-D uint8, checked against its CRC32C), each distinct frame once, in order.

        Raises Refusal, naming the video, when a byte is not what was written, and IndexError for a frame outside.
        """
        return dict(self.each(video_id, view, frames))

    def each(self, video_id: str, view: str, frames: Sequence[int] | np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """What `encoded` gives, one frame after the other; each is checked, and refused, when it is taken."""
        numbers = sorted(set(self.store.indices(video_id, view, frames)))
        for part, group in groupby(numbers, lambda number: number // shard.FRAMES_PER_SHARD):
            wanted = list(group)
            file, index = self._open(video_id, view, part)
            slots = [number % shard.FRAMES_PER_SHARD for number in wanted]
            try:
                yield from zip(wanted, shard.read_frames(file, index, slots), strict=True)
            except (OSError, shard.CorruptShard) as error:
                raise self.store.corrupt_shard(video_id, view, part, error) from error

    def close(self) -> None:
        """Let go of the files."""
        with self._lock:
            self._shards.clear()

    def _open(self, video_id: str, view: str, part: int) -> Opened:
        key = (video_id, view, part)  # not the path, which takes as long to put together as a clip to read
        with self._lock:
            opened = self._shards.pop(key, None)
        if opened is None:
            # Outside the lock: two threads may open the same shard at once, and one of the two is let go again.
            opened = self.store.open_shard(*key)
        with self._lock:
            self._shards[key] = opened
            while len(self._shards) > self.capacity:
                self._shards.popitem(last=False)
        return opened
