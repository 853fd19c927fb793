"""Names of videos as paths, and writing aside."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline import storage
from pipeline.store import layout

COMPONENTS = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=60)
TRICKY = st.sampled_from(
    ["rgb", "flow", "c", "zarr.json", "a.json", "x.partial", "__", "__init__", ".", "..", ".lock", "%72gb", "~", " "]
)
IDS = st.lists(COMPONENTS | TRICKY, min_size=1, max_size=3).map("/".join)


@given(IDS)
@example("rgb")
@example("a/zarr.json")
@example("Bowling/v_Bowling_g01_c01")
@example("動作" * 100)
def test_a_video_id_becomes_names_that_nothing_else_has(video_id: str) -> None:
    path = layout.quoted(video_id)
    names = path.split("/")
    assert len(names) == video_id.count("/") + 1
    for name in names:
        assert name not in layout.reserved()
        assert not name.startswith("__")
        assert not name.endswith((".json", ".partial"))
        assert name.isascii()
        assert len(name) + len(".json.partial") <= 255


@given(st.lists(IDS, min_size=2, max_size=8, unique=True))
@example(["rgb", "%72gb"])
@example(["a.json", "a.jso%6E"])
@example(["x" * 300, "x" * 301])
def test_two_ids_never_share_a_path(ids: list[str]) -> None:
    assert len({layout.quoted(video_id) for video_id in ids}) == len(ids)


@given(IDS)
def test_a_path_tells_the_id_unless_a_name_is_very_long(video_id: str) -> None:
    path = layout.quoted(video_id)
    if "~" not in path:
        assert layout.unquoted(path) == video_id


def test_plain_names_stay_as_they_are() -> None:
    assert layout.quoted("Bowling/v_Bowling_g01_c01") == "Bowling/v_Bowling_g01_c01"
    assert layout.quoted("rgb/flow") == "%72gb/%66low"
    assert PurePosixPath(layout.video_folder(Path("s"), "a b")).parts == ("s", "videos", "a%20b")


def test_a_quarantine_file_is_no_folder_of_another() -> None:
    file = layout.quarantine_path(Path("s"), "a")
    inside = layout.quarantine_path(Path("s"), "a.json/b")
    assert file not in inside.parents


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    storage.write_atomically(path, b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        storage.write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_flushing_a_folder_that_is_gone_fails(tmp_path: Path) -> None:
    storage.flush_file_system(tmp_path)
    with pytest.raises(FileNotFoundError):
        storage.flush_file_system(tmp_path / "gone")


def test_a_seal_breaks_with_any_change() -> None:
    record = layout.seal({"length": 5, "label": "walk"})
    assert layout.is_sealed(record)
    assert not layout.is_sealed({**record, "length": 6})
    assert not layout.is_sealed({**record, "more": 1})
    assert not layout.is_sealed({"length": 5})


def test_attributes_of_somebody_elses_group() -> None:
    assert layout.attributes_of(b'{"attributes": {"other": 1}}') is None
    assert layout.attributes_of(layout.group()) is None
    assert layout.attributes_of(layout.group({layout.ATTRIBUTE: {"a": 1}})) == {"a": 1}
