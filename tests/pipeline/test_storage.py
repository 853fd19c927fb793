"""Stores elsewhere than on a local disk: in this process's memory, and on an S3 server that runs beside the tests."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import cv2
import numpy as np
import pytest
import zarr
from fsspec.implementations.memory import MemoryFileSystem

from pipeline import importers, storage
from pipeline.errors import Refusal, UsageError
from pipeline.existing import open_source
from pipeline.existing.bring import Existing, bring, manifest_of
from pipeline.extraction import job
from pipeline.extraction.journal import Journal, last_run
from pipeline.extraction.run import extract
from pipeline.storage import location, objects
from pipeline.store import VideoStore, layout, lock, open_store
from pipeline.store.lock import only_writer
from pipeline.store.settings import ExtractionSettings
from pipeline.store.verify import verify
from pipeline.store.writing import create_store
from tests.patience import PATIENCE
from tests.pipeline.reference import content, extract_here
from train.reader.shard import ShardReader


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an S3 server: moto, in a process of its own."""
    log = tmp_path_factory.mktemp("s3") / "log"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with open(log, "w") as file, subprocess.Popen(command, stdout=file, stderr=file) as server:
        try:
            _await(port, server, log)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.kill()


def _await(port: int, server: subprocess.Popen, log: Path) -> None:
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            assert server.poll() is None, log.read_text()
            time.sleep(0.05)


@pytest.fixture
def s3(s3_server: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """The URL of an empty bucket, with what a client needs in the environment, as people have it."""
    for name, value in {
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    bucket = f"bucket-{abs(hash(request.node.name)) % 10**9}"
    boto3.client("s3").create_bucket(Bucket=bucket)
    return f"s3://{bucket}"


@pytest.fixture(params=["memory", "s3"])
def elsewhere(request: pytest.FixtureRequest) -> Iterator[Path]:
    """An empty place that is not local."""
    yield from _empty(request)


@pytest.fixture(params=["disk", "memory", "s3"])
def anywhere(request: pytest.FixtureRequest) -> Iterator[Path]:
    """An empty place of each kind."""
    yield from _empty(request)


def _empty(request: pytest.FixtureRequest) -> Iterator[Path]:
    if request.param == "disk":
        yield request.getfixturevalue("tmp_path")
    else:
        yield location(request.getfixturevalue("s3") if request.param == "s3" else "memory://costream-test")
        MemoryFileSystem.store.clear()


def test_a_path_is_local_and_a_url_is_not() -> None:
    assert storage.is_local(location("stores/mine"))
    assert location("file:///stores/mine") == Path("/stores/mine")
    assert location(Path("stores/mine")) == Path("stores/mine")
    there = location("memory://stores/mine")
    assert not storage.is_local(there)
    assert location(there) is there
    assert str(there / "videos") == "memory://stores/mine/videos"


@pytest.mark.parametrize("url", ["nowhere://bucket/store", "gs://bucket/store"])
def test_a_place_that_cannot_be_reached_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="cannot be reached"):
        location(url)


def test_files_come_and_go(anywhere: Path) -> None:
    path = anywhere / "a" / "b%20c~é" / "zarr.json"
    assert storage.read_if_there(path) is None
    assert not storage.entries(anywhere)
    storage.write(path, b"")
    for put in (storage.write, storage.write_atomically, storage.commit):
        put(path, b"0123456789")
    assert storage.read(path) == b"0123456789"
    assert abs(storage.changed(path) / 1e9 - time.time()) < 60
    file = storage.open_file(path)
    assert (file.tail(3), file.tail(99), file.read(2, 3), file.read(8, 9)) == (b"789", b"0123456789", b"234", b"89")
    assert storage.entries(anywhere) == [(anywhere / "a", True)]
    assert [(entry.path, entry.size) for entry in storage.files_below(anywhere)] == [(path, 10)]
    assert not list(storage.files_below(anywhere, skip=frozenset({"a"})))
    assert not list(storage.left_aside(anywhere))
    storage.write(anywhere / "c", b"stays")
    storage.remove(path)
    storage.remove(path)
    for _ in range(2):
        storage.remove_folder(anywhere / "a")
    assert storage.remove_empty(anywhere / "a")
    assert not storage.remove_empty(anywhere)
    with pytest.raises(FileNotFoundError):
        storage.read(path)


def test_a_folder_that_another_writer_fills_stays_and_one_that_it_removes_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    above, video, looked = tmp_path / "a", tmp_path / "a" / "b" / "zarr.json", os.scandir

    def filled_meanwhile(folder: Path) -> Any:
        entries = list(looked(folder))
        video.parent.mkdir(parents=True)
        return iter(entries)

    above.mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", filled_meanwhile)
        if storage.remove_empty(above):  # what it looked at, if it looked, is no longer so
            video.parent.mkdir(parents=True)
    assert not storage.remove_empty(above)
    make, removed = Path.mkdir, []

    def removed_at_once(folder: Path, *arguments: Any, **options: Any) -> None:
        make(folder, *arguments, **options)
        if folder == video.parent and len(removed) < 6:
            removed.append(folder)
            shutil.rmtree(above)

    monkeypatch.setattr(Path, "mkdir", removed_at_once)
    storage.write(video, b"1")
    assert (video.read_bytes(), len(removed)) == (b"1", 6)
    removed.clear()
    storage.commit(video, b"2")
    assert (video.read_bytes(), len(removed)) == (b"2", 6)


def test_of_two_that_write_the_same_file_exclusively_one_succeeds(elsewhere: Path) -> None:
    assert storage.create_exclusively(elsewhere / "lock", b"first")
    assert not storage.create_exclusively(elsewhere / "lock", b"second")
    assert storage.read(elsewhere / "lock") == b"first"


@pytest.fixture(scope="module")
def videos(synthetic_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two of the videos, below folders."""
    root = tmp_path_factory.mktemp("few")
    for path in sorted(synthetic_videos.rglob("*.mp4"))[:2]:
        target = root / path.relative_to(synthetic_videos)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    return root


@pytest.fixture(scope="module")
def local(videos: Path, extraction_settings: ExtractionSettings) -> VideoStore:
    return extract_here(videos, videos.parent / f"{videos.name}-store", extraction_settings)


@pytest.fixture
def stored(elsewhere: Path, videos: Path, extraction_settings: ExtractionSettings) -> VideoStore:
    return extract_here(videos, elsewhere / "store", extraction_settings)


def test_a_store_elsewhere_holds_the_same_bytes_and_gives_the_same_frames(
    stored: VideoStore, local: VideoStore
) -> None:
    assert content(stored.root) == content(local.root)
    assert stored.infos == local.infos
    assert stored.classes == local.classes
    video = stored.videos[1]
    for view in ("rgb", "flow"):
        expected = local.read(video, view, [4, 0, 2])
        np.testing.assert_array_equal(stored.read(video, view, [4, 0, 2]), expected)
        streams = ShardReader(stored).encoded(video, view, [1, 3])
        for number, stream in ShardReader(local).encoded(video, view, [1, 3]).items():
            np.testing.assert_array_equal(streams[number], stream)
    assert not any(found for _, _, found in verify(stored))


def test_other_zarr_clients_read_it(stored: VideoStore) -> None:
    video = stored.videos[0]
    array = zarr.open_array(str(stored.path(video, "rgb")), mode="r")
    np.testing.assert_array_equal(array[2], stored.read(video, "rgb", [2])[0])


def test_damage_elsewhere_is_found_by_verify_and_on_read(stored: VideoStore) -> None:
    video = stored.videos[1]
    path = stored.path(video, "flow") / "c/0/0/0/0"
    data = bytearray(storage.read(path))
    data[len(data) // 3] ^= 1
    storage.write(path, bytes(data))
    (damage,) = [one for _, _, found in verify(open_store(stored.root)) for one in found]
    assert (damage.video_id, damage.path) == (video, str(path))
    with pytest.raises(Refusal, match=f"video '{video}' is damaged"):
        stored.read(video, "flow", slice(None))
    storage.remove(path)
    with pytest.raises(Refusal, match=f"video '{video}' is damaged"):
        stored.read(video, "flow", slice(None))


def test_doing_a_video_again_elsewhere_sweeps_what_was_left(
    stored: VideoStore, videos: Path, extraction_settings: ExtractionSettings
) -> None:
    before = content(stored.root)
    (row, *_) = importers.read("folder", videos).rows
    stray = layout.video_folder(stored.root, row.video_id) / "rgb" / "c" / "7" / "0" / "0" / "0"
    storage.write(stray, b"left by a run that was killed")
    outcome = job.extract_video(str(videos), str(stored.root), row, extraction_settings.as_dict())
    assert outcome.status == "stored"
    assert content(stored.root) == before


def test_a_video_that_is_refused_elsewhere_is_told(
    elsewhere: Path, tmp_path: Path, extraction_settings: ExtractionSettings
) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    manifest = importers.read("folder", tmp_path)
    store = elsewhere / "store"
    create_store(store, extraction_settings)
    outcome = job.extract_video(str(tmp_path), str(store), manifest.rows[0], extraction_settings.as_dict())
    assert outcome.status == "quarantined"
    assert open_store(store).quarantine == {"broken": outcome.reason}


def test_a_run_on_dask_fills_a_store_on_s3_and_a_rerun_leaves_it_alone(
    s3: str, videos: Path, local: VideoStore, extraction_settings: ExtractionSettings
) -> None:
    store = location(f"{s3}/deep/store")
    manifest = importers.read("folder", videos)
    summary = extract(manifest, videos, store, extraction_settings, workers=1)
    assert summary.stored == len(manifest.rows)
    assert open_store(str(store)).infos == local.infos
    run = last_run(store)
    assert run and (run.todo, run.videos, run.frames) == (len(manifest.rows), len(manifest.rows), summary.frames)
    before = {entry.path: entry.changed for entry in storage.files_below(store)}
    assert layout.lock_path(store) not in before
    again = extract(manifest, videos, store, extraction_settings, workers=1)
    assert (again.stored, again.skipped) == (0, len(manifest.rows))
    assert {entry.path: entry.changed for entry in storage.files_below(store)} == before


def test_a_run_fills_a_store_in_memory_in_this_process(
    videos: Path, local: VideoStore, extraction_settings: ExtractionSettings
) -> None:
    store, manifest = location("memory://costream-run/store"), importers.read("folder", videos)
    try:
        assert extract(manifest, videos, store, extraction_settings, workers=2).stored == len(manifest.rows)
        assert open_store(store).infos == local.infos
    finally:
        MemoryFileSystem.store.clear()


def test_a_server_that_is_gone_stops_the_run(
    s3: str, videos: Path, extraction_settings: ExtractionSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = location(f"{s3}/store")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(objects.ObjectStore, "write_atomically", _refuse)
    with pytest.raises(Refusal, match="(?s)the store cannot be written: .*run the same command again"):
        extract(importers.read("folder", videos), videos, store, extraction_settings, workers=1)


def _refuse(place: objects.ObjectStore, path: Path, data: bytes) -> None:
    with objects._client(path):
        raise RuntimeError("503 Slow Down")


def test_a_second_writer_elsewhere_is_refused_and_told_who_the_first_is(elsewhere: Path) -> None:
    with (
        only_writer(elsewhere),
        pytest.raises(Refusal, match=f"another extraction.*pid {os.getpid()} on {socket.gethostname()}"),
        only_writer(elsewhere),
    ):
        pass
    with only_writer(elsewhere):
        pass
    assert not storage.entries(elsewhere)


@pytest.mark.remedy("wait for it, or stop it; if it was killed, try again in")
def test_a_lock_is_taken_over_when_its_holder_has_been_silent_for_long(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "SETTLING", 0.0)
    storage.write(layout.lock_path(elsewhere), b"pid 1 on elsewhere\nold")
    with pytest.raises(Refusal, match=r"(?s)\(pid 1 on elsewhere\).*again in 150 s"), only_writer(elsewhere):
        pass
    monkeypatch.setattr(lock, "SILENCE", -60.0)  # as if more than that had gone by
    with only_writer(elsewhere):
        assert storage.read(layout.lock_path(elsewhere)).startswith(b"pid %d on " % os.getpid())
    assert storage.read_if_there(layout.lock_path(elsewhere)) is None


def test_of_two_that_take_a_lock_over_the_last_to_write_has_it(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = layout.lock_path(elsewhere)
    storage.write(path, b"pid 1 on elsewhere\nold")
    monkeypatch.setattr(lock, "SILENCE", -60.0)
    monkeypatch.setattr(time, "sleep", lambda _: storage.write(path, b"pid 2 on elsewhere\nnew"))
    with pytest.raises(Refusal, match="pid 2 on elsewhere"), only_writer(elsewhere):
        pass
    assert storage.read(path) == b"pid 2 on elsewhere\nnew"


def test_a_writer_gives_signs_of_life_and_notices_that_its_lock_was_taken(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "BEAT", 0.01)
    path = layout.lock_path(elsewhere)
    write, beats, taken = storage.write, [], threading.Event()

    def beat_until_it_is_taken(path: Path, data: bytes) -> None:
        write(path, data)
        beats.append(data)
        if len(beats) == 3:
            write(path, b"pid 1 on elsewhere\nnew")
            taken.set()

    with pytest.raises(Refusal, match="another run took this store for abandoned"), only_writer(elsewhere):
        mine = storage.read(path)
        monkeypatch.setattr(storage, "write", beat_until_it_is_taken)
        assert taken.wait(PATIENCE)
    assert beats == [mine] * 3
    assert storage.read(path) == b"pid 1 on elsewhere\nnew"


def test_the_journal_elsewhere_is_written_in_parts(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.extraction.journal.SECONDS_A_PART", 0.0)
    assert last_run(elsewhere) is None
    kept = Journal(elsewhere, videos=3)
    for name in ("a", "b"):
        kept.add(job.Outcome(name, "stored", frames=5))
    run = last_run(elsewhere)
    assert run and (run.todo, run.videos, run.frames) == (3, 2, 10)
    assert len(storage.entries(elsewhere / "journal")) == 2


def test_existing_data_is_brought_to_s3(s3: str, tmp_path: Path) -> None:
    for number in range(1, 4):
        (tmp_path / "video").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / "video" / f"img_{number:05d}.jpg"), np.full((32, 48, 3), 60 * number, np.uint8))
    with open_source(tmp_path) as source:
        existing = Existing(source, None)
        brought = bring(manifest_of(existing), existing, location(f"{s3}/store"), workers=2, reproduce="bring")
    assert (brought.summary.stored, brought.summary.quarantined) == (1, {})
    store = open_store(f"{s3}/store")
    assert store.info("video").length == 3
    assert not any(found for _, _, found in verify(store))
