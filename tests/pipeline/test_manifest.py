"""The manifest: load, save, refuse."""

from __future__ import annotations

import csv
import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.errors import Refusal
from pipeline.manifest import Manifest, Video, classes_path, unique_ids

HEADER = "video_id,path,label,source,split\n"
ODD_NAMES = ("a [1] (b)!", "#1 & ;2", "été, 動作", 'say "hi"', " leading", "new\nline")
TEXT = st.text(st.characters(exclude_characters="/\0\r", exclude_categories=["Cs"]), min_size=1, max_size=12)


def load(tmp_path: Path, text: str, classes: str | None = None) -> Manifest:
    path = tmp_path / "list.csv"
    path.write_text(text, encoding="utf-8")
    if classes is not None:
        classes_path(path).write_text(classes, encoding="utf-8")
    return Manifest.load(path)


@given(names=st.lists(TEXT.filter(lambda name: name not in (".", "..")), min_size=1, max_size=5, unique=True))
@example(names=list(ODD_NAMES))
def test_whatever_is_saved_is_loaded(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    rows = [Video(name, f"{name}.mp4", label="jump", source=name, split="train") for name in names]
    manifest = Manifest(rows, ["walk", "jump"])
    path = tmp_path_factory.mktemp("manifest") / "sub" / "list.csv"
    manifest.save(path)
    assert Manifest.load(path) == manifest
    assert sorted(file.name for file in path.parent.iterdir()) == ["list.classes.txt", "list.csv"]


def test_the_class_list_keeps_its_order(tmp_path: Path) -> None:
    text = HEADER + "a,a.mp4,walk,a,\nb,b.mp4,jump,b,\n"
    assert load(tmp_path, text).classes == ["jump", "walk"]
    assert load(tmp_path, text, "walk\njump\nunused\n").classes == ["walk", "jump", "unused"]


def test_columns_may_stand_in_another_order_and_behind_a_byte_order_mark(tmp_path: Path) -> None:
    manifest = load(tmp_path, "\ufeffsplit,path,video_id,label,source\ntest,x/a.mp4,x/a,,\n")
    assert manifest.rows == [Video("x/a", "x/a.mp4", split="test")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "header is empty"),
        ("video_id,path\na,a.mp4\n", "header is video_id,path"),
        (HEADER + "a,a.mp4,,\n", "five fields"),
        (HEADER + "a,a.mp4,,,,more\n", "five fields"),
        (HEADER + ",a.mp4,,,\n", "without video_id or path"),
        (HEADER + "a,,,,\n", "without video_id or path"),
        (HEADER + "../a,a.mp4,,,\n", "not a plain relative path"),
        (HEADER + "/a,a.mp4,,,\n", "not a plain relative path"),
        (HEADER + "a//b,a.mp4,,,\n", "not a plain relative path"),
        (HEADER + "a,a.mp4,,,\na,b.mp4,,,\n", "stands in two rows"),
        (HEADER + "a,a.mp4,,,training\n", "split 'training'"),
        (HEADER + "a,a\0.mp4,,,\n", "holds a NUL"),
        (HEADER.replace("\n", ",split\n") + "a,a.mp4,,,test,train\n", "header is .*,split,split"),
        (HEADER + "a,a.mp4,,,\na\u200b,b.mp4,,,\n", r"video_ids 'a' and 'a\\u200b' look alike"),
        (HEADER + "a,a.mp4,x y,,\nb,b.mp4,x\xa0y,,\n", r"class names 'x y' and 'x\\xa0y' look alike"),
        (HEADER + "a,a.mp4,x,s,\nb,b.mp4,x,s ,\n", "recordings 's' and 's ' look alike"),
        (HEADER + f"a,a.mp4,,{'x' * (csv.field_size_limit() + 1)},\n", "field larger than field limit"),
    ],
)
def test_a_bad_manifest_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(Refusal, match=message) as refused:
        load(tmp_path, text)
    assert str(tmp_path / "list.csv") in refused.value.where
    assert refused.value.remedy


def test_the_refusal_of_a_row_names_its_line(tmp_path: Path) -> None:
    with pytest.raises(Refusal) as refused:
        load(tmp_path, HEADER + "a,a.mp4,,,\nb,b.mp4\n")
    assert refused.value.where.endswith("line 3")


@pytest.mark.parametrize(
    ("classes", "message"),
    [("walk\nwalk\n", "listed twice"), ("run\n", "'walk' of 'a' is not in the class list"), ("walk\n\n", "one line")],
)
def test_a_bad_class_list_is_refused(tmp_path: Path, classes: str, message: str) -> None:
    with pytest.raises(Refusal, match=message):
        load(tmp_path, HEADER + "a,a.mp4,walk,,\n", classes)


def test_a_class_name_of_two_lines_is_refused() -> None:
    with pytest.raises(Refusal, match="not one line"):
        Manifest([Video("a", "a.mp4", label="a\u2028b")], ["a\u2028b"])


@pytest.mark.remedy("give both the same name")
@pytest.mark.parametrize("first", ["a", "caf\u00e9"])  # the second is its own recording
def test_recordings_of_two_normal_forms_are_refused(tmp_path: Path, first: str) -> None:
    def loaded(*sources: str) -> Manifest:
        rows = "".join(f"{name},{name}.mp4,,{source},\n" for name, source in zip((first, "b"), sources, strict=True))
        return load(tmp_path, HEADER + rows)

    with pytest.raises(Refusal, match=r"recordings 'caf\\xe9' and 'cafe\\u0301' look alike"):
        loaded("caf\u00e9", "cafe\u0301")
    assert [row.source for row in loaded("caf\u00e9", "caf\u00e9").rows] == ["caf\u00e9"] * 2


def test_a_file_name_that_is_no_text_is_refused() -> None:
    with pytest.raises(Refusal, match="not valid UTF-8"):
        Manifest([Video("caf\udce9", "caf\udce9.mp4")], [])


def test_a_manifest_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="cannot be read"):
        Manifest.load(tmp_path / "none.csv")
    (tmp_path / "latin.csv").write_bytes(HEADER.encode() + b"caf\xe9,a.mp4,,,\n")
    with pytest.raises(Refusal, match="cannot be read"):
        Manifest.load(tmp_path / "latin.csv")


def test_an_interrupted_save_leaves_the_old_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = Manifest([Video("a", "a.mp4")], [])
    old.save(tmp_path / "list.csv")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Refusal, match="No space"):
        replace(old, rows=[Video("b", "b.mp4")]).save(tmp_path / "list.csv")
    assert Manifest.load(tmp_path / "list.csv") == old


def test_ids_keep_the_extension_only_where_they_must() -> None:
    assert unique_ids(["x/a.mp4", "x/b.mp4", "x/b.avi"]) == {
        "x/a.mp4": "x/a",
        "x/b.mp4": "x/b.mp4",
        "x/b.avi": "x/b.avi",
    }
    assert unique_ids(["a", "a.mp4"]) == {"a": "a", "a.mp4": "a.mp4"}


@given(st.sets(st.lists(st.sampled_from(["a", "b", ".mp4", ".avi", "."]), min_size=1, max_size=4).map("".join)))
@example({"a.mp4", "a.avi", "a.mp4.mkv"})
def test_ids_are_unique(paths: set[str]) -> None:
    assert len(set(unique_ids(sorted(paths)).values())) == len(paths)
