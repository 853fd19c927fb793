"""A disk without space: a clear message, nothing half-written to be seen, and a rerun completes."""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.errors import Refusal
from pipeline.extraction import job
from pipeline.extraction.run import extract
from pipeline.importers import folder
from pipeline.manifest import Video
from pipeline.store import open_store, writing
from pipeline.store.verify import verify
from tests.faults.disk import Disk
from tests.faults.processes import SETTINGS, Extraction
from tests.pipeline.reference import content, run_here

VIDEO = Video("walk/a", "walk/a.mp4", label="walk")


def test_a_disk_that_fills_at_any_step_leaves_nothing_to_be_seen(eight: Path, tmp_path: Path, disk: Disk) -> None:
    completed = set()
    for full_after in itertools.count():
        store = tmp_path / str(full_after)
        writing.create_store(store, SETTINGS)
        writing.add_groups(store, [VIDEO.video_id])
        disk.fill(store, full_after)
        outcome = job.extract_video(str(eight), str(store), VIDEO, SETTINGS.as_dict())
        disk.folder = None
        if outcome.status == "stored":
            break
        assert outcome.status == "failed"
        assert outcome.reason.startswith("No space left on device: ")
        opened = open_store(store)
        assert opened.videos == []
        assert opened.quarantine == {}
        assert not [path for path in (store / "videos").rglob("*") if path.name not in ("walk", "zarr.json")]
        assert job.extract_video(str(eight), str(store), VIDEO, SETTINGS.as_dict()).status == "stored"
        completed.add(frozenset(content(store).items()))
    assert full_after > 10
    assert completed == {frozenset(content(store).items())}


@pytest.mark.parametrize("full_after", range(9))
def test_a_disk_that_is_full_before_the_first_video_is_told(
    eight: Path, tmp_path: Path, disk: Disk, full_after: int
) -> None:
    store = tmp_path / "store"
    disk.fill(store, full_after)
    with pytest.raises(Refusal, match="store cannot be written: No space left on device") as refused:
        extract(folder.read(eight), eight, store, SETTINGS, workers=1)
    assert str(store) in refused.value.where
    assert "run the same command again" in refused.value.remedy
    disk.folder = None
    assert writing.create_store(store, SETTINGS).videos == []  # what was begun is not taken for somebody else's


def test_a_store_below_a_file_is_told(eight: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(Refusal, match="cannot be written: Not a directory"):
        extract(folder.read(eight), eight, tmp_path / "file" / "store", SETTINGS, workers=1)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 400 KiB, a third of what the store needs."""
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", path], capture_output=True)
    if mounted.returncode:
        pytest.skip("needs the right to mount a file system")
    yield path
    subprocess.run(["umount", "--lazy", path], check=True)


def test_a_run_stops_at_a_full_disk_and_goes_on_when_there_is_room(
    eight: Path, undisturbed: dict[str, bytes], small_disk: Path, extract_apart: Callable[..., Extraction]
) -> None:
    code, _, err = extract_apart(eight, small_disk / "store", workers=1).end()
    assert code == 1
    assert "No space left on device" in err
    assert "make room" in err
    assert "Traceback" not in err
    store = open_store(small_disk / "store")
    assert "jump/long" not in store.videos
    assert store.quarantine == {}
    assert not any(found for _, _, found in verify(store))
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    run_here(folder.read(eight), eight, small_disk / "store", SETTINGS)
    assert content(small_disk / "store") == undisturbed
