"""A video keeps its id whatever appears beside its file, and one that is stored twice is told."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.extraction.journal import Summary
from pipeline.importers import folder
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
    assert "removed 1 videos that are not listed: 'walk/a'" in out
    assert open_store(store).videos == ["walk/a.mov"]


@pytest.mark.remedy("`remove` takes out one of them", told=True)
def test_equal_bytes_under_two_ids_are_told_and_the_remedy_works(run: Run, tmp_path: Path) -> None:
    videos, store = tmp_path / "videos", tmp_path / "store"
    small.write(videos / "walk" / "a.mp4", 0)
    shutil.copy(videos / "walk" / "a.mp4", videos / "copy.mp4")
    small.write(videos / "walk" / "b.mp4", 1)
    code, _, err = run("extract", "--videos", videos, "--store", store, "--views", "rgb", "--workers", 1)
    assert code == 0, err
    told = "1 videos have the same bytes as another one: copy = walk/a"
    assert told in err
    assert told in run("status", "--store", store)[1]
    assert "`remove` takes out one of them" in err
    assert run("remove", "--store", store, "--videos+", "copy")[0] == 0
    assert "the same bytes" not in run("status", "--store", store)[1]
    assert not any(damage for _, _, damage in verify(open_store(store)))
