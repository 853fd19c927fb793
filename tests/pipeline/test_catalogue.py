"""The listing of a store of very many videos: what it costs to take and to keep."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import Refusal
from pipeline.store import catalogue, layout, open_store
from pipeline.store.settings import ExtractionSettings
from pipeline.store.writing import create_store
from pipeline.views.rgb import RgbSettings
from tests.benchmarks import memory

VIDEOS = 4000


def test_readers_keep_little_of_each_video(tmp_path: Path) -> None:
    """Of ten million videos 112 bytes each are 1.04 GiB. Nothing is kept of them but columns."""
    memory.simulate(tmp_path, VIDEOS)
    with memory.listed(VIDEOS):
        tracemalloc.start()
        try:
            store = open_store(tmp_path)
            before = tracemalloc.get_traced_memory()[0]
            assert len(store.table) == VIDEOS
            kept = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
        assert catalogue.load(tmp_path).current
    assert VIDEOS * 80 < kept < VIDEOS * 112 + 2**16


def test_a_simulated_store_is_what_it_says(tmp_path: Path) -> None:
    memory.simulate(tmp_path, 3)
    with memory.listed(3):
        infos = open_store(tmp_path).infos
    assert list(infos) == sorted(memory.name(number) for number in range(3))
    info = infos[memory.name(0)]
    assert info.shapes == {"rgb": (240, 128, 128, 3), "flow": (239, 2, 128, 128)}
    assert (info.length, info.label, info.split, info.cuts) == (240, "class_of_action_000", "train", (100, 200))


def tiny(root: Path, video_id: str, length: int = 2, **other: object) -> None:
    """Commit a video of which there is only the record."""
    shapes = {"rgb": (length, 16, 16, 3)}
    facts = {"video_id": video_id, "length": length, "fps": 25.0, "shapes": shapes, "file": {}}
    facts["files"] = {f"rgb/c/{part}/0/0/0": "0" * 64 for part in range(-(-length // 256))}
    record = layout.seal({**facts, "settings_hash": open_store(root).settings_hash, **other})
    path = layout.record_path(root, video_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(layout.group({layout.ATTRIBUTE: record}))


def seen(root: Path) -> dict[str, str]:
    """Videos in the order of the table, with their records' digests, by the catalogue; the same as without it."""
    table = open_store(root).table
    found = dict(zip(table.ids.to_pylist(), (digest.tobytes().hex() for digest in table.digests), strict=True))
    path = layout.catalogue_path(root)
    if path.exists():
        path.rename(root / "aside")
        plain = open_store(root).table
        (root / "aside").rename(path)
        assert plain.ids.equals(table.ids)
        assert np.array_equal(plain.digests, table.digests)
        assert [plain.shapes(row) for row in range(len(plain))] == [table.shapes(row) for row in range(len(table))]
        assert plain.cuts.equals(table.cuts)
    return found


IDS = [
    "a",
    "a b",
    "a/b",
    "a/b c",
    "a/b/d",
    "a%",
    "ab",
    "b/\x01",
    "b/a",
    "b0",
    "é/x",
    "名",
    "名/a",
]  # in no file system's order


@given(st.data())
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_history_is_listed_as_it_is(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Videos come, go and are redone; now and then the catalogue is brought up to date, in row groups of three."""
    root = tmp_path_factory.mktemp("history") / "store"
    create_store(root, ExtractionSettings({"rgb": RgbSettings()}).resolved())
    expected: dict[str, str] = {}
    with mock.patch.object(catalogue, "ROWS", 3):
        for turn in range(data.draw(st.integers(1, 4))):
            for video_id in data.draw(st.lists(st.sampled_from(IDS), max_size=8)):
                if data.draw(st.integers(0, 3)):
                    tiny(root, video_id, length=3 + turn, cuts=list(range(turn)))
                    expected[video_id] = catalogue.read_record(layout.record_path(root, video_id))["digest"][:32]  # type: ignore[index]
                else:
                    layout.record_path(root, video_id).unlink(missing_ok=True)
                    expected.pop(video_id, None)
            if data.draw(st.booleans()):
                catalogue.save(root)
                assert catalogue.load(root).current
            assert list(seen(root).items()) == sorted(expected.items())
        catalogue.save(root)
        written = layout.catalogue_path(root).read_bytes()
        layout.catalogue_path(root).unlink()
        catalogue.save(root)
        assert layout.catalogue_path(root).read_bytes() == written


@pytest.mark.parametrize("catalogued", [False, True])
def test_a_record_in_another_videos_folder_is_refused(tmp_path: Path, catalogued: bool) -> None:
    """Its id would give another video's frames; and the remedy helps."""
    create_store(tmp_path, ExtractionSettings({"rgb": RgbSettings()}).resolved())
    for name in ("a", "b", "c d"):
        tiny(tmp_path, name)
    if catalogued:
        catalogue.save(tmp_path)
    first, second = (layout.video_folder(tmp_path, name) for name in ("a", "c d"))
    first.rename(tmp_path / "aside")
    second.rename(first)
    (tmp_path / "aside").rename(second)
    with pytest.raises(Refusal, match="of video 'c d' lies in another video's folder") as refused:
        open_store(tmp_path).videos
    assert "'c%20d'" in refused.value.remedy
    first.rename(tmp_path / "aside")
    second.rename(first)
    (tmp_path / "aside").rename(second)
    assert open_store(tmp_path).videos == ["a", "b", "c d"]


def test_a_record_from_the_future_is_one_as_any_other(tmp_path: Path) -> None:
    """Another machine's clock goes ahead, or NTP set this one back."""
    create_store(tmp_path, ExtractionSettings({"rgb": RgbSettings()}).resolved())
    tiny(tmp_path, "a")
    ahead = time.time_ns() + 3600 * 10**9
    os.utime(layout.record_path(tmp_path, "a"), ns=(ahead, ahead))
    catalogue.save(tmp_path)
    before = layout.catalogue_path(tmp_path).stat().st_mtime_ns
    assert catalogue.load(tmp_path).current
    catalogue.save(tmp_path)
    assert layout.catalogue_path(tmp_path).stat().st_mtime_ns == before


def test_stamps_of_another_catalogue_are_not_believed(tmp_path: Path) -> None:
    create_store(tmp_path, ExtractionSettings({"rgb": RgbSettings()}).resolved())
    tiny(tmp_path, "a")
    catalogue.save(tmp_path)
    old = layout.stamps_path(tmp_path).read_bytes()
    tiny(tmp_path, "a", length=3)
    catalogue.save(tmp_path)
    assert catalogue.load(tmp_path).current
    layout.stamps_path(tmp_path).write_bytes(old)
    assert not catalogue.load(tmp_path).current


def test_a_video_is_found_by_its_name_and_a_name_that_is_not_there_is_not(tmp_path: Path) -> None:
    create_store(tmp_path, ExtractionSettings({"rgb": RgbSettings()}).resolved())
    for video_id in IDS:
        tiny(tmp_path, video_id)
    table = open_store(tmp_path).table
    assert [table.row(video_id) for video_id in sorted(IDS)] == list(range(len(IDS)))
    assert [table.row(video_id) for video_id in ["", "A", "a/", "aa", "zz", "\U0010ffff"]] == [-1] * 6
    assert table.names(np.array([2, 0])) == [sorted(IDS)[2], sorted(IDS)[0]]


def test_reading_starts_no_thread(tmp_path: Path) -> None:
    """Arrow's may abort a program as it ends (apache/arrow 34314)."""
    create_store(tmp_path / "store", ExtractionSettings({"rgb": RgbSettings()}).resolved())
    tiny(tmp_path / "store", "one")
    catalogue.save(tmp_path / "store")
    script = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from pipeline.store.catalogue_file import Catalogue\n"
        "before = len(os.listdir('/proc/self/task'))\n"
        "print([batch.num_rows for batch in Catalogue(Path(sys.argv[1])).batches()])\n"
        "print(len(os.listdir('/proc/self/task')) - before)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "store")], capture_output=True, text=True, check=True
    )
    assert ran.stdout.split() == ["[1]", "0"]
