"""The listing of a store of very many videos: what it costs to take and to keep."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

from pipeline.store import catalogue, open_store
from tests.benchmarks import memory

VIDEOS = 4000


def test_readers_keep_little_of_each_video(tmp_path: Path) -> None:
    """Of 240,000 videos 1.2 kB each are 290 MB. Records, parsed, are four times as much."""
    memory.simulate(tmp_path, VIDEOS)
    with memory.listed(VIDEOS):
        tracemalloc.start()
        try:
            store = open_store(tmp_path)
            assert len(store.videos) == VIDEOS
            kept, largest = tracemalloc.get_traced_memory()
            listing = catalogue.load(tmp_path)
            whole = tracemalloc.get_traced_memory()[0] - kept
        finally:
            tracemalloc.stop()
    assert listing.current
    assert kept < 1200 * VIDEOS
    assert largest < kept + 1200 * VIDEOS + 2 * 2**20  # beside the listing: the folders that there are, and 1024 rows
    assert whole > 3 * kept


def test_a_simulated_store_is_what_it_says(tmp_path: Path) -> None:
    memory.simulate(tmp_path, 3)
    with memory.listed(3):
        infos = open_store(tmp_path).infos
    assert list(infos) == sorted(memory.name(number) for number in range(3))
    info = infos[memory.name(0)]
    assert info.shapes == {"rgb": (240, 128, 128, 3), "flow": (239, 2, 128, 128)}
    assert (info.length, info.label, info.split, info.cuts) == (240, "class_of_action_000", "train", (100, 200))
