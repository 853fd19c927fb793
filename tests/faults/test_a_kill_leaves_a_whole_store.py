"""A run that dies at any change of the disk leaves a store of whole videos, all of the settings it names; a rerun
completes it."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.importers import folder
from pipeline.store import VideoStore, layout, open_store
from pipeline.store.verify import verify
from tests.faults import small
from tests.faults.disk import Disk
from tests.faults.small import OTHER, SMALL
from tests.pipeline.reference import content, run_here


def streams(store: VideoStore) -> dict[str, list[bytes]]:
    """What readers get of each video that they see."""
    return {name: [one.tobytes() for one in store.encoded(name, "rgb", slice(None))] for name in store.videos}


def nothing_there(videos: Path, store: Path) -> None:
    shutil.rmtree(store)


def other_settings(videos: Path, store: Path) -> None:
    shutil.rmtree(store)
    small.store(videos, store, OTHER)


def other_files(videos: Path, store: Path) -> None:
    """One video has changed, one broke, one was mended."""
    small.write(videos / "walk" / "a.mp4", 5, frames=4)
    (videos / "walk" / "b.mp4").write_bytes(b"no longer a video")
    small.write(videos / "jump" / "broken.mp4", 6)


@pytest.mark.parametrize("stride", [17, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("before", [nothing_there, other_settings, other_files])
def test_a_run_that_dies_at_any_step_leaves_a_whole_store_and_a_rerun_completes_it(
    tmp_path: Path, disk: Disk, before: Callable[[Path, Path], None], stride: int
) -> None:
    videos = small.make(tmp_path / "videos")
    begun = small.store(videos, tmp_path / "begun")
    before(videos, begun)
    old = (open_store(begun).settings_hash, streams(open_store(begun))) if begun.exists() else None
    run_here(folder.read(videos), videos, tmp_path / "fresh", SMALL)
    fresh = open_store(tmp_path / "fresh")
    expected, new = content(fresh.root), (fresh.settings_hash, streams(fresh))
    for step in itertools.count(0, stride):
        store = tmp_path / "store"
        if begun.exists():
            shutil.copytree(begun, store)
        with disk.killed_at(store, step):
            run_here(folder.read(videos), videos, store, SMALL, retry_quarantined=True, overwrite=True)
        done = 0
        if (store / layout.RECORD).exists():
            opened = open_store(store)
            assert not any(found for _, _, found in verify(opened))
            for name, frames in streams(opened).items():
                assert (opened.settings_hash, frames) in [(hash, seen.get(name)) for hash, seen in (old or new, new)]
            assert not opened.quarantine.keys() & set(opened.videos)
            done = len(opened.videos) if opened.settings_hash == fresh.settings_hash else 0
        if not disk.died:
            break
        summary = run_here(folder.read(videos), videos, store, SMALL, retry_quarantined=True, overwrite=True)
        assert summary.skipped <= done
        if before is not other_files:
            assert summary.skipped == done
        assert content(store) == expected
        assert open_store(store).quarantine == fresh.quarantine
        assert not list(store.rglob("*.partial"))
        shutil.rmtree(store)
    assert step > 30
    assert content(store) == expected


def test_other_settings_are_refused_as_before_after_a_kill_while_the_store_is_emptied(
    tmp_path: Path, disk: Disk
) -> None:
    """What is left is a smaller store of the old settings: the old command completes it again."""
    videos = small.make(tmp_path / "videos")
    store = small.store(videos, tmp_path / "store", OTHER)
    expected = content(store)
    with disk.killed_at(store, 11):
        run_here(folder.read(videos), videos, store, SMALL, overwrite=True)
    assert len(open_store(store).videos) < 3
    assert run_here(folder.read(videos), videos, store, OTHER, retry_quarantined=True).stored > 0
    assert content(store) == expected


def test_a_file_half_written_is_what_a_kill_leaves(tmp_path: Path, disk: Disk) -> None:
    """The tests above can see it."""
    with disk.killed_at(tmp_path, 1):
        (tmp_path / "one").write_bytes(b"whole")
        (tmp_path / "two").write_bytes(b"whole")
        os.unlink(tmp_path / "one")
    assert disk.died
    assert (tmp_path / "one").read_bytes() == b"whole"
    assert (tmp_path / "two").read_bytes() == b"half"
