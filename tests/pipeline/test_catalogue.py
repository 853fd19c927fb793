"""The listing of a store of very many videos: what it costs to take and to keep."""

from __future__ import annotations

import shutil
import tracemalloc
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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


def tiny(root: Path, video_id: str, **other: object) -> None:
    """Commit a video of which there is only the record."""
    facts = {"video_id": video_id, "length": 2, "fps": 25.0, "shapes": {"rgb": (2, 16, 16, 3)}, "files": {}, "file": {}}
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
                    tiny(root, video_id, length=3 + turn, cuts=[1] * turn)
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


def test_of_two_records_of_one_video_one_is_listed(tmp_path: Path) -> None:
    create_store(tmp_path, ExtractionSettings({"rgb": RgbSettings()}).resolved())
    tiny(tmp_path, "a")
    shutil.copytree(layout.video_folder(tmp_path, "a"), layout.video_folder(tmp_path, "copy of a"))
    tiny(tmp_path, "b")
    assert list(open_store(tmp_path).infos) == ["a", "b"]


def test_a_video_is_found_by_its_name_and_a_name_that_is_not_there_is_not(tmp_path: Path) -> None:
    create_store(tmp_path, ExtractionSettings({"rgb": RgbSettings()}).resolved())
    for video_id in IDS:
        tiny(tmp_path, video_id)
    table = open_store(tmp_path).table
    assert [table.row(video_id) for video_id in sorted(IDS)] == list(range(len(IDS)))
    assert [table.row(video_id) for video_id in ["", "A", "a/", "aa", "zz", "\U0010ffff"]] == [-1] * 6
    assert table.names(np.array([2, 0])) == [sorted(IDS)[2], sorted(IDS)[0]]
