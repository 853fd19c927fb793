"""What refusals of runs, of their workers and of synthetic videos say is to be done helps: each is done here."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import dask
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from pipeline import storage, synthetic
from pipeline.errors import Refusal
from pipeline.extraction import estimate, job
from pipeline.extraction.run import extract
from pipeline.extraction.workers import admission
from pipeline.importers import folder
from pipeline.manifest import Manifest
from pipeline.storage import objects
from pipeline.store import layout, open_store
from pipeline.store.lock import only_writer
from pipeline.store.verify import verify
from pipeline.synthetic import writing
from tests import remedies
from tests.faults import small
from tests.faults.disk import the_disk
from tests.pipeline.fake_gpu import FakeGPU, fake_gpus, settings
from tests.pipeline.reference import run_here


@pytest.fixture
def memory() -> Iterator[Path]:
    """Where a store lies that threads of this process fill."""
    yield storage.location("memory://costream-remedies/store")
    MemoryFileSystem.store.clear()


def full(place: objects.ObjectStore, path: Path, data: bytes) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def incapable(*arguments: object, **options: object) -> None:
    raise ModuleNotFoundError("No module named 'av'")


@pytest.mark.remedy(
    "give a manifest with a row for each video",
    "give the manifest's root as VIDEOS=",
    "leave them out, or take another place for the store",
    "mend that (where a disk is full, make room) and run the same command again",
    "give its machine this environment, and run the same command again",
)
def test_a_run_that_is_refused_is_mended_and_begun_again(
    videos: Path, memory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = folder.read(videos)

    def refused(reason: str, manifest: Manifest = listed, root: Path = videos, **options: Any) -> None:
        with pytest.raises(Refusal, match=reason):
            extract(manifest, root, memory, small.SMALL, workers=1, **options)

    refused("lists no video", Manifest([], []))
    refused("no such folder of videos", root=videos / "walk" / "a")
    for options in ({"time_limit": 9.0}, {"scheduler": "tcp://127.0.0.1:1"}):
        refused("neither a time limit nor a scheduler", **options)
    assert run_here(listed, videos, tmp_path / "another", small.SMALL).stored == 3
    with monkeypatch.context() as faulty:
        faulty.setattr(objects.ObjectStore, "write", full)
        refused("the run stopped at video '.*': No space left on device")
    with monkeypatch.context() as faulty:
        faulty.setattr(job, "extract_video", incapable)
        refused("a worker cannot run extraction: ModuleNotFoundError")
    assert extract(listed, videos, memory, small.SMALL, workers=1).stored == 3


@pytest.mark.remedy("run the same command again when both have ended, then `make verify`")
def test_two_writers_of_a_store_end_and_one_goes_on(videos: Path, memory: Path) -> None:
    listed = folder.read(videos)
    run_here(listed, videos, memory, small.SMALL)
    small.write(videos / "walk" / "new.mp4", 4)
    with pytest.raises(Refusal, match="took this store for abandoned"), only_writer(memory):
        storage.write(layout.lock_path(memory), b"pid 1 on elsewhere\nanother")
    storage.remove(layout.lock_path(memory))
    assert run_here(folder.read(videos), videos, memory, small.SMALL).stored == 1
    assert not any(damage for _, _, damage in verify(open_store(memory)))


@pytest.mark.remedy("make room for temporary files, or set TMPDIR")
@pytest.mark.usefixtures("sampled_here")
def test_temporary_files_get_room(videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (videos / "jump" / "broken.mp4").unlink()
    full, other = tmp_path / "full", tmp_path / "other"
    for path in (full, other):
        path.mkdir()

    def estimated(place: Path) -> estimate.Estimate:
        monkeypatch.setenv("TMPDIR", str(place))
        monkeypatch.setattr(tempfile, "tempdir", None)
        with dask.config.set({"temporary-directory": str(tmp_path)}):
            return estimate.estimate(folder.read(videos), videos, tmp_path / "store", small.SMALL)

    the_disk().fill(full, 3)
    try:
        with pytest.raises(Refusal):
            estimated(full)
        assert estimated(other).frames
    finally:
        the_disk().folder = None
    assert estimated(full).frames


@pytest.mark.remedy("see what the error says of the installation, or take another FLOW=")
def test_another_flow_is_taken_or_the_installation_mended(videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeGPU, "device", "cpu")
    with fake_gpus("0") as patch:
        asked = [json.dumps(settings(name).as_dict(running=True)) for name in ("fake-gpu", "dis")]
        patch.setenv("FAKE_GPU_FAULT", "error")
        with pytest.raises(Refusal, match="computes no flow here, not even of black frames: RuntimeError: Command"):
            admission.require_able(asked[0])
        admission.require_able(asked[1])
        patch.delenv("FAKE_GPU_FAULT")
        admission.require_able(asked[0])
    admission.require_able.cache_clear()


class Here(ThreadPoolExecutor):
    """A pool of processes that are threads of this one."""

    def __init__(self, workers: int, **options: object) -> None:
        super().__init__(workers)


class Dying(Here):
    """One whose processes die of their second video."""

    made = 0

    def submit(self, *work: Any, **options: Any) -> Future:
        Dying.made += 1
        if Dying.made == 1:
            return super().submit(*work, **options)
        died: Future = Future()
        died.set_exception(BrokenProcessPool())
        return died


def made(parent: Path, name: str = "made", frames: int = 1, seed: int = 0, each: tuple[int, int] = (1, 1)) -> None:
    synthetic.generate(parent / name, *each, seed, workers=1, frames=frames, height=16, width=16)


def half(parent: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "ProcessPoolExecutor", Dying)
        synthetic.generate(parent / "made", 1, 0, 0, workers=2, frames=1, height=16, width=16)


def repeated(parent: Path) -> None:
    (finished,) = (parent / "made").rglob("*.mp4")
    before = finished.stat().st_mtime_ns
    made(parent, each=(1, 0))
    assert finished.stat().st_mtime_ns == before


def emptied(parent: Path) -> None:
    for path in (parent / "made").rglob("*.mp4"):
        path.unlink()
    made(parent, frames=2)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        remedies.case(
            "give an empty folder, or the settings that this one was made with, or delete it",
            lambda parent: (made(parent), made(parent, frames=2)),
            lambda parent: (made(parent, "other", frames=2), made(parent), emptied(parent)),
        ),
        remedies.case(
            "give an empty folder, or the number of videos that this one was made with",
            lambda parent: (made(parent), made(parent, each=(1, 0))),
            lambda parent: (made(parent, "other", each=(1, 0)), made(parent)),
        ),
        remedies.case(
            "give train_per_class or test_per_class above 0",
            lambda parent: made(parent, each=(0, 0)),
            lambda parent: [made(parent, str(each), each=each) for each in ((1, 0), (0, 1))],
        ),
        remedies.case(
            "see whether memory ran out; repeat the command, with fewer workers: finished videos are kept",
            half,
            repeated,
        ),
    ],
)
def test_of_synthetic_videos(wrong: Callable, right: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "ProcessPoolExecutor", Here)
    remedies.helps(wrong, right, tmp_path)
