"""A video keeps its id whatever appears beside its file, and one that is stored twice is told."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.extraction.journal import Summary
from pipeline.importers import folder
from pipeline.manifest import Manifest
from pipeline.store import open_store
from pipeline.store.verify import verify
from tests.faults import small
from tests.pipeline.reference import run_here

Run = Callable[..., tuple[int, str, str]]


def test_a_stored_video_keeps_its_id_when_neighbours_come_and_go(run: Run, tmp_path: Path) -> None:
    videos, store = tmp_path / "videos", tmp_path / "store"

    def extracted() -> Summary:
        return run_here(folder.read(videos), videos, store, small.SMALL)

    small.write(videos / "walk" / "a.mp4", 0)
    assert extracted().stored == 1
    (videos / "walk" / "a.wav").write_bytes(b"RIFF")
    small.write(videos / "b.mp4", 1)
    (videos / "b.mp4").rename(videos / "walk" / "a.mov")
    second = extracted()
    assert (second.stored, second.skipped) == (1, 1)
    assert open_store(store).videos == ["walk/a", "walk/a.mov"]
    (videos / "walk" / "a.mp4").unlink()  # now the other one would be `walk/a` in a new store
    third = extracted()
    assert (third.stored, third.skipped) == (0, 1)
    command = ("extract", "--videos", videos, "--store", store, "--views", "rgb", "--prune", "true")
    code, out, err = run(*command, "--rgb.short_side", 0, "--rgb.quality", 90)
    assert code == 0, err
    assert "removed 1 unlisted video: 'walk/a'" in out
    assert open_store(store).videos == ["walk/a.mov"]


@pytest.mark.remedy("a manifest (make manifest VIDEOS= OUT=)", told=True)
@pytest.mark.usefixtures("in_this_process")
def test_names_that_differ_in_the_extension_alone_are_told_and_both_remedies_help(run: Run, tmp_path: Path) -> None:
    videos, listed = tmp_path / "videos", tmp_path / "list.csv"
    for seed, name in enumerate(("a.mp4", "a.avi", "b.mp4", "c")):
        small.write(tmp_path / "made.mp4", seed)
        (videos / "walk").mkdir(parents=True, exist_ok=True)
        (tmp_path / "made.mp4").rename(videos / "walk" / name)
    code, _, err = run("manifest", "--videos", videos, "--out", listed)
    assert code == 0, err
    told = "2 files have others beside them whose names differ in the extension alone, and hence have it in their ids"
    assert f"{told}: walk/a.avi, walk/a.mp4; without the others they would not" in err
    ids = [row.video_id for row in Manifest.load(listed).rows]
    assert ids == ["walk/a.avi", "walk/a.mp4", "walk/b", "walk/c"]
    (videos / "walk" / "a.avi").rename(videos / "walk" / "d.avi")
    assert folder.read(videos).notes == ()
    assert [row.video_id for row in folder.read(videos).rows] == ["walk/a", "walk/b", "walk/c", "walk/d"]
    (videos / "walk" / "d.avi").unlink()
    command = ("extract", "--videos", videos, "--store", tmp_path / "store", "--manifest", listed, "--views", "rgb")
    assert run(*command, "--workers", 1)[0] == 3  # a.avi is gone
    assert open_store(tmp_path / "store").videos == ids[1:]


@pytest.mark.remedy("`remove` takes out one of them", told=True)
@pytest.mark.usefixtures("in_this_process")
def test_equal_bytes_under_two_ids_are_told_and_the_remedy_works(run: Run, tmp_path: Path) -> None:
    videos, store = tmp_path / "videos", tmp_path / "store"
    small.write(videos / "walk" / "a.mp4", 0)
    shutil.copy(videos / "walk" / "a.mp4", videos / "copy.mp4")
    small.write(videos / "walk" / "b.mp4", 1)
    code, _, err = run("extract", "--videos", videos, "--store", store, "--views", "rgb", "--workers", 1)
    assert code == 0, err
    told = "1 video with the same bytes as another one: copy = walk/a"
    assert told in err
    assert told in run("status", "--store", store)[1]
    assert "`remove` takes out one of them" in err
    assert run("remove", "--store", store, "--videos+", "copy")[0] == 0
    assert "the same bytes" not in run("status", "--store", store)[1]
    assert not any(damage for _, _, damage in verify(open_store(store)))
