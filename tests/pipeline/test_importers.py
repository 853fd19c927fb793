"""Folders of videos as people have them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from pipeline import importers
from pipeline.errors import Refusal, UsageError
from pipeline.extraction.plan import VideoFiles
from pipeline.manifest import Manifest, Video
from pipeline.store import layout


def read(top: Path, *paths: str) -> Manifest:
    for path in paths:
        (top / path).parent.mkdir(parents=True, exist_ok=True)
        (top / path).write_bytes(b"video")
    return importers.read("folder", top)


def facts(manifest: Manifest) -> list[tuple[str, str, str]]:
    return [(row.video_id, row.label, row.split) for row in manifest.rows]


def test_folders_are_classes(tmp_path: Path) -> None:
    manifest = read(tmp_path, "walk/b.mp4", "walk/a.avi", "Jump/c.mkv")
    assert facts(manifest) == [("Jump/c", "Jump", ""), ("walk/a", "walk", ""), ("walk/b", "walk", "")]
    assert manifest.classes == ["Jump", "walk"]
    assert manifest.rows[0] == Video("Jump/c", "Jump/c.mkv", "Jump", "Jump/c", "")


def test_flat_files_have_no_label(tmp_path: Path) -> None:
    manifest = read(tmp_path, "a.mp4", "b.webm")
    assert facts(manifest) == [("a", "", ""), ("b", "", "")]
    assert manifest.classes == []


def test_split_folders_are_respected(tmp_path: Path) -> None:
    manifest = read(
        tmp_path, "train/walk/a.mp4", "Test/walk/a.mp4", "validation/jump/a.mp4", "val/b.mp4", "training/c.mp4"
    )
    assert facts(manifest) == [
        ("Test/walk/a", "walk", "test"),
        ("train/walk/a", "walk", "train"),
        ("training/c", "training", ""),
        ("val/b", "", "val"),
        ("validation/jump/a", "jump", "val"),
    ]


def test_the_label_is_the_folder_directly_above(tmp_path: Path) -> None:
    manifest = read(tmp_path, "train/sports/bowling/a.mp4")
    assert facts(manifest) == [("train/sports/bowling/a", "bowling", "train")]


def test_odd_names_are_taken_as_they_are(tmp_path: Path) -> None:
    names = ["a [1].mp4", "b (x)!.mp4", "#c & ;d.mp4", "été.mp4", "動作 'q'.mp4", "* ?.mp4", "%41.mp4", "noextension"]
    manifest = read(tmp_path, *(f"class [x]/{name}" for name in names))
    assert sorted(row.path for row in manifest.rows) == sorted(f"class [x]/{name}" for name in names)
    assert all((tmp_path / row.path).is_file() for row in manifest.rows)
    assert manifest.classes == ["class [x]"]


def test_one_stem_with_two_extensions_makes_two_videos(tmp_path: Path) -> None:
    manifest = read(tmp_path, "a.mp4", "a.avi", "a.mp4.mkv")
    assert [row.video_id for row in manifest.rows] == ["a.avi", "a.mp4", "a.mp4.mkv"]


def test_what_is_surely_no_video_and_what_is_hidden_is_left_out(tmp_path: Path) -> None:
    manifest = read(
        tmp_path, "a.mp4", "notes.txt", "list.CSV", ".hidden.mp4", ".git/b.mp4", "a.mp4.partial", "odd.2", "b"
    )
    assert [row.path for row in manifest.rows] == ["a.mp4", "b", "odd.2"]


def test_a_store_among_the_videos_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "store" / "videos" / "c").mkdir(parents=True)
    (tmp_path / "store" / "videos" / "c" / "0").write_bytes(b"shard")
    (tmp_path / "store" / layout.RECORD).write_bytes(layout.group())
    assert [row.path for row in read(tmp_path, "a.mp4").rows] == ["a.mp4"]


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "a.mp4").write_bytes(b"video")
    videos = tmp_path / "videos"
    videos.mkdir()
    os.symlink(elsewhere, videos / "walk")
    os.symlink(videos, videos / "circle")
    os.symlink(tmp_path, videos / "above")
    assert facts(importers.read("folder", videos)) == [("walk/a", "walk", "")]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "no such folder of videos"),
        (lambda path: path.write_bytes(b""), "this is a file, not a folder"),
        (lambda path: path.mkdir(), "no video was found"),
    ],
)
def test_a_folder_without_videos_is_refused(tmp_path: Path, make: object, message: str) -> None:
    make(tmp_path / "videos")  # type: ignore[operator]
    with pytest.raises(Refusal, match=message) as refused:
        importers.read("folder", tmp_path / "videos")
    assert refused.value.where == str(tmp_path / "videos")
    assert refused.value.remedy


def test_a_folder_that_cannot_be_listed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    scan = os.scandir

    def scandir(path: str) -> object:
        if str(path).endswith("/a"):
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(Refusal, match="Permission denied"):
        importers.read("folder", tmp_path)


def test_the_nearest_data_set_is_named() -> None:
    with pytest.raises(UsageError, match='did you mean "folder"'):
        importers.read("foldr", Path("videos"))


def test_a_description_must_name_an_importer(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    for text in ("", "importer: none\n", "- folder\n"):
        path.write_text(text)
        with pytest.raises(UsageError, match="does not name an importer"):
            importers.read(str(path), tmp_path)


@pytest.mark.parametrize("path", sorted(importers.DATASETS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_description_is_whole(path: Path) -> None:
    description = importers.describe(path.stem)
    assert description["title"]
    assert description["importer"] in importers.IMPORTERS


def test_pictures_text_playlists_and_archives_are_left_out_and_told_by_kind(tmp_path: Path) -> None:
    others = "nfo asc webp THM m3u8 ffconcat tif pgm wav mp3 tar srt sdp mpd concat txt csv json apng svg xyz".split()
    manifest = read(tmp_path, "a.mp4", "b.nfo", "c/take.2", "Mr. Bean", *(f"a.{kind}" for kind in others))
    assert [row.path for row in manifest.rows] == ["Mr. Bean", "a.mp4", "c/take.2"]
    assert [row.video_id for row in manifest.rows if row.path == "a.mp4"] == ["a"]
    told, archives = manifest.notes
    assert told.startswith(
        "files that are no videos by their names are left out: 2 .nfo (a.nfo, b.nfo); 1 .apng (a.apng)"
    )
    assert all(f".{kind.lower()} (a.{kind})" in told for kind in others if kind != "nfo")
    assert archives.startswith("archives (.tar) are not opened: unpack them")


def test_a_folder_of_shards_is_refused_with_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=r"no video was found; .* 2 \.tar \(0\.tar, 1\.tar\); archives .* unpack"):
        read(tmp_path, "0.tar", "1.tar")


def test_each_folder_and_file_is_taken_once_where_links_cross(tmp_path: Path) -> None:
    for path in ("train/walk/a.mp4", "test/walk/b.mp4"):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_bytes(b"video")
    (tmp_path / "train" / "held_out").symlink_to("../test")
    (tmp_path / "test" / "all").symlink_to("../train")
    (tmp_path / "test" / "c.mp4").symlink_to("walk/b.mp4")
    os.link(tmp_path / "train" / "walk" / "a.mp4", tmp_path / "train" / "walk" / "z.mp4")
    manifest = importers.read("folder", tmp_path)
    assert facts(manifest) == [("test/walk/b", "walk", "test"), ("train/walk/a", "walk", "train")]
    folders, files = manifest.notes
    assert folders.endswith("left out: test/all, train/held_out")
    assert "2 names of files" in files
    assert "test/c.mp4 is test/walk/b.mp4, train/walk/z.mp4 is train/walk/a.mp4" in files


def test_what_goes_while_it_is_listed_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read(tmp_path, "a.mp4", "b.mp4.part", "c/d.mp4")
    is_folder = os.path.isdir

    def looked_at(path: str) -> bool:
        found = is_folder(path)
        if path.endswith(("b.mp4.part", "c")) and os.path.exists(path):
            shutil.rmtree(path) if found else os.unlink(path)
        return found

    monkeypatch.setattr(os.path, "isdir", looked_at)
    assert [row.path for row in read(tmp_path).rows] == ["a.mp4"]
    assert not VideoFiles(tmp_path).has(Video("a", "x" * 300))


def test_three_folders_that_link_to_each_other_end(tmp_path: Path) -> None:
    outside = [tmp_path / "outside" / name for name in "xyz"]
    for folder in outside:
        folder.mkdir(parents=True)
        (folder / f"{folder.name}.mp4").write_bytes(b"video")
    for folder in outside:
        for other in outside:
            (folder / f"to_{other.name}").symlink_to(other)
    (tmp_path / "videos").mkdir()
    for folder in outside:
        (tmp_path / "videos" / folder.name).symlink_to(folder)
    manifest = importers.read("folder", tmp_path / "videos")
    assert [row.path for row in manifest.rows] == ["x/x.mp4", "y/y.mp4", "z/z.mp4"]
