"""Folders of frames: each once, whatever links lead to it."""

from __future__ import annotations

from pathlib import Path

from pipeline.existing.frame_folders import FrameFolders
from tests.pipeline.existing import frame_jpegs, write_folder


def test_each_folder_of_frames_is_taken_once_where_links_cross(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "raw", {"train/a": frame_jpegs(2), "test/b": frame_jpegs(2, 1)}, {})
    (root / "train" / "held_out").symlink_to("../test")
    (root / "test" / "all").symlink_to("../train")
    (root / "test" / "again").symlink_to("b")
    found = FrameFolders(root)
    assert found.videos == ["test/b", "train/a"]
    (note,) = found.notes
    assert note.startswith("links to folders that are listed already are left out: ")
    assert all(name in note for name in ("train/held_out", "test/all", "test/again"))


def test_three_folders_of_frames_that_link_to_each_other_end(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in "abc"]
    for folder in folders:
        write_folder(folder, {"v": frame_jpegs(1)}, {})
    (tmp_path / "raw").mkdir()
    for folder in folders:
        for other in folders:
            if other != folder:
                (folder / f"to_{other.name}").symlink_to(other)
        (tmp_path / "raw" / folder.name).symlink_to(folder)
    assert FrameFolders(tmp_path / "raw").videos == ["a/v", "b/v", "c/v"]
