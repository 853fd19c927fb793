"""While a store is written to, whoever reads sees of each video the old or the new one, at every moment."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from pipeline import storage
from pipeline.commands import stores
from pipeline.errors import Refusal
from pipeline.importers import folder
from pipeline.manifest import Manifest, Video
from pipeline.store import layout, open_store, removal
from pipeline.store.verify import verify
from tests.faults import small
from tests.faults.disk import CHANGES, GROWTH
from tests.faults.small import SMALL
from tests.pipeline.reference import run_here
from train.reader.shard import ShardReader
from train.training_set import of_splits


class Between:
    """Calls `look` before changes below a folder: each that renames or removes, and of what is made each `stride`-th.
    Only one of them may be, as a hook stays until Python ends."""

    def __init__(self) -> None:
        self.folder, self.look, self.stride, self.made = "", lambda: None, 1, 0
        sys.addaudithook(self.hook)

    def hook(self, event: str, arguments: tuple) -> None:
        if self.folder and event in CHANGES and str(arguments[0]).startswith(self.folder):
            if event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR):
                return
            self.made += event in GROWTH
            if event in GROWTH and self.made % self.stride:
                return
            folder, self.folder = self.folder, ""  # what it does itself is no step
            try:
                self.look()
            finally:
                self.folder = folder

    @contextmanager
    def looking(self, folder: Path, look: Callable[[], None], stride: int) -> Iterator[None]:
        self.folder, self.look, self.stride, self.made = str(folder), look, stride, 0
        try:
            yield
        finally:
            self.folder = ""


BETWEEN = Between()
strides = pytest.mark.parametrize("stride", [5, pytest.param(1, marks=pytest.mark.slow)])


def seen(root: Path) -> dict[str, tuple[bytes, ...]]:
    """What status, verify, a training set and the reader of a loader make of a store: the videos with their frames."""
    stores.status(str(root))
    assert [found for _, _, found in verify(open_store(root)) if found] == []
    store = open_store(root)
    assert store.table.missing == ()
    videos, reader = of_splits(store, [""]), ShardReader(store)
    assert videos.ids == store.videos
    frames = {name: np.arange(store.shape(name, "rgb")[0]) for name in videos.ids}
    found = {
        name: tuple(one.tobytes() for one in reader.encoded(name, "rgb", frames[name]).values()) for name in frames
    }
    assert found == {name: tuple(one.tobytes() for one in store.encoded(name, "rgb", slice(None))) for name in frames}
    return found


@strides
def test_each_moment_of_an_overwriting_run_shows_the_old_or_the_new_video(
    videos: Path, store: Path, capsys: pytest.CaptureFixture, stride: int
) -> None:
    small.write(videos / "walk" / "a.mp4", 7, frames=5)
    small.write(videos / "jump" / "broken.mp4", 8)
    before, states = seen(store), []
    with BETWEEN.looking(store, lambda: states.append(seen(store)), stride):
        assert run_here(folder.read(videos), videos, store, SMALL, overwrite=True).stored == 2
    after = seen(store)
    assert len(states) > 20 / stride
    assert after["walk/a"] != before["walk/a"]
    assert all(state["walk/a"] in (before["walk/a"], after["walk/a"]) for state in states)
    assert states[0] == before
    assert {name for state in states for name in state} == after.keys()
    capsys.readouterr()


@strides
@pytest.mark.parametrize("nested", [False, True])
def test_where_folders_cannot_take_each_others_place_the_video_is_away_for_a_moment(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nested: bool, stride: int
) -> None:
    """On some network file systems, and where other videos lie in its folder; nothing else is ever seen."""
    names = ["walk/a", "walk/a/b"] if nested else ["walk/a"]
    if not nested:
        monkeypatch.setattr(storage, "exchange", lambda one, other: False)
    listed = Manifest([*(Video(name, "walk/a.mp4") for name in names), Video("stays", "walk/b.mp4")], [])
    run_here(listed, videos, tmp_path / "store", SMALL)
    before = seen(tmp_path / "store")
    small.write(videos / "walk" / "a.mp4", 7, frames=5)
    states = []
    with BETWEEN.looking(tmp_path / "store", lambda: states.append(seen(tmp_path / "store")), stride):
        assert run_here(listed, videos, tmp_path / "store", SMALL, overwrite=True).stored == len(names)
    after = seen(tmp_path / "store")
    assert [name for name in names if before[name] == after[name]] == []
    assert all(frames in (before[name], after[name]) for state in states for name, frames in state.items())


@strides
def test_each_moment_of_a_removal_is_a_whole_store(videos: Path, store: Path, stride: int) -> None:
    before, states = seen(store), []
    with BETWEEN.looking(store, lambda: states.append(seen(store)), stride):
        removal.remove(store, ["walk/a", "jump/broken"])
    assert seen(store) == {name: frames for name, frames in before.items() if name != "walk/a"}
    assert states and all(before.items() >= state.items() for state in states)


def test_verify_reads_a_video_again_that_is_replaced_while_it_is_read(
    videos: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small.write(videos / "walk" / "a.mp4", 7, frames=5)
    read, done = storage.read, []

    def meanwhile(path: Path, *most: int) -> bytes:
        if "walk/a/rgb" in str(path) and not done:
            done.append(path)
            run_here(folder.read(videos), videos, store, SMALL, overwrite=True)
        return read(path, *most)

    monkeypatch.setattr(storage, "read", meanwhile)
    assert [found for _, _, found in verify(open_store(store), threads=1) if found] == []
    assert done


@pytest.mark.remedy("run the same command again; to go on with the old videos put them back")
def test_a_reader_that_opened_the_store_before_is_told_that_a_video_is_another_now(videos: Path, store: Path) -> None:
    opened = open_store(store)
    assert len(opened.encoded("walk/a", "rgb", slice(None))) == 3
    video, old = layout.video_folder(store, "walk/a"), store.parent / "old"
    shutil.copytree(video, old)
    small.write(videos / "walk" / "a.mp4", 7, frames=5)
    run_here(folder.read(videos), videos, store, SMALL, overwrite=True)
    with pytest.raises(Refusal, match="'walk/a' was extracted anew, or removed, after the store was opened"):
        opened.encoded("walk/a", "rgb", [0])
    assert len(open_store(store).encoded("walk/a", "rgb", slice(None))) == 5
    new = video.rename(store.parent / "new")
    old.rename(video)
    assert len(opened.encoded("walk/a", "rgb", slice(None))) == 3
    shutil.rmtree(video)
    new.rename(video)
    removal.remove(store, ["walk/a"])
    with pytest.raises(Refusal, match="'walk/a' was extracted anew, or removed, after the store was opened"):
        opened.encoded("walk/a", "rgb", [0])


def test_what_vanishes_from_quarantine_while_it_is_listed_is_no_error(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files_below = storage.files_below

    def vanishing(path: Path, **options: frozenset[str]) -> Iterator[storage.Entry]:
        for file in list(files_below(path, **options)):
            if path.name == "quarantine":
                file.path.unlink(missing_ok=True)
            yield file

    monkeypatch.setattr(storage, "files_below", vanishing)
    assert open_store(store).quarantine == {}


def test_a_damaged_video_is_not_taken_for_a_replaced_one_fails(store: Path) -> None:
    path = open_store(store).path("walk/a", "rgb") / "c" / "0" / "0" / "0" / "0"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises((AssertionError, Refusal)):
        seen(store)
