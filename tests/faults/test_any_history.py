"""Whatever happens to a store, in whatever order: readers see what a plain model says, and verify what was damaged."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pipeline.errors import Refusal
from pipeline.manifest import Manifest, Video
from pipeline.store import catalogue, layout, open_store
from pipeline.store.verify import GONE, NAMELESS, verify
from tests.faults import small
from tests.faults.disk import the_disk
from tests.faults.small import OTHER, SMALL
from tests.pipeline.reference import run_here

NAMES = ("a", "b", "b/c", "b/rgb")  # one lies in the folder of another, one has the name of an array
SETTINGS = {"small": SMALL, "other": OTHER}


@dataclass(frozen=True)
class File:
    """A source file; without frames it is broken."""

    seed: int
    frames: int

    @functools.cached_property
    def content(self) -> bytes:
        return _content(self)


@functools.cache
def _content(file: File) -> bytes:
    if not file.frames:
        return b"no video" * (1 + file.seed)
    with tempfile.TemporaryDirectory() as folder:
        small.write(Path(folder) / "video.mp4", file.seed, file.frames)
        return (Path(folder) / "video.mp4").read_bytes()


@functools.cache
def streams(file: File, chosen: str) -> tuple[bytes, ...]:
    """What a store of these settings holds of the file."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "v.mp4").write_bytes(file.content)
        run_here(Manifest([Video("v", "v.mp4")], []), Path(folder), Path(folder) / "store", SETTINGS[chosen])
        return tuple(one.tobytes() for one in open_store(Path(folder) / "store").encoded("v", "rgb", slice(None)))


class Histories(RuleBasedStateMachine):
    """The model: which files there are, which of them are stored as they were at which time, refused, or damaged."""

    def __init__(self) -> None:
        super().__init__()
        self.top = Path(tempfile.mkdtemp())
        self.videos, self.root = self.top / "videos", self.top / "store"
        self.files: dict[str, File] = {}
        self.chosen = ""  # settings of the store; "" where there is none
        self.stored: dict[str, File] = {}
        self.refused: set[str] = set()
        self.tried: dict[str, int] = {}  # when what was refused was written, by the number of the writing
        self.writings: dict[str, int] = {}
        self.damaged: set[str] = set()
        self.unreadable: set[str] = set()  # damaged in their records: listing the store is refused
        self.listed: set[str] = set()  # certainly in the catalogue, so that they are missed
        self.deleted: set[str] = set()  # behind the store's back

    def teardown(self) -> None:
        shutil.rmtree(self.top)

    @initialize()
    def begin(self) -> None:
        self.put("a", File(0, 2))
        self.put("b", File(0, 0))

    def put(self, name: str, file: File) -> None:
        path = self.videos / f"{name}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.content)
        self.writings[name] = self.writings.get(name, 0) + 1
        os.utime(path, (0, self.writings[name]))  # of another time, whatever the steps of the clock
        self.files[name] = file

    @rule(name=st.sampled_from(NAMES), seed=st.integers(0, 2), frames=st.sampled_from((0, 1, 3)))
    def a_file_comes_or_changes(self, name: str, seed: int, frames: int) -> None:
        self.put(name, File(seed, frames))

    @rule(
        chosen=st.sampled_from(("small", "small", "small", "other")),
        retry=st.booleans(),
        overwrite=st.booleans(),
        kill=st.none() | st.integers(0, 70),
    )
    def extract(self, chosen: str, retry: bool, overwrite: bool, kill: int | None) -> None:
        redo = self.chosen not in ("", chosen)
        changed = {name for name, file in self.stored.items() if self.files[name] != file}
        settle = functools.partial(run_here, self.manifest, self.videos, self.root, SETTINGS[chosen], retry, overwrite)
        if self.unreadable or ((redo and self.held or changed) and not overwrite):
            with pytest.raises(Refusal):
                settle()
            return
        kept = {} if redo else {name: file for name, file in self.stored.items() if name not in changed}
        again = {name for name in self.refused if self.tried[name] != self.writings[name]}
        waiting = set() if redo or retry else self.refused - again
        todo = self.files.keys() - kept.keys() - waiting
        after = kept | {name: self.files[name] for name in todo if self.files[name].frames}
        broken = waiting | {name for name in todo if not self.files[name].frames}
        if kill is None:
            summary = settle()
            assert (summary.stored, summary.skipped) == (len(after) - len(kept), len(kept))
            self.become(chosen, after, broken)
            self.listed = set(after)
        else:
            with the_disk().killed_at(self.root, kill):
                settle()
            self.find_what_a_kill_left(chosen, after, broken)
            self.listed = set() if redo else self.listed - todo

    @property
    def manifest(self) -> Manifest:
        return Manifest([Video(name, f"{name}.mp4") for name in sorted(self.files)], [])

    @property
    def held(self) -> bool:
        """Whether videos have been stored or refused; a store that never held any takes other settings."""
        return bool(self.stored or self.refused) or layout.inventory_path(self.root).exists()

    def become(self, chosen: str, stored: dict[str, File], refused: set[str]) -> None:
        redone = {name for name, file in stored.items() if self.chosen != chosen or self.stored.get(name) != file}
        self.damaged = (self.damaged & stored.keys()) - redone
        self.deleted = set() if self.chosen != chosen else self.deleted - stored.keys() - refused
        for name in refused - (self.refused if self.chosen == chosen else set()):
            self.tried[name] = self.writings[name]
        self.chosen, self.stored, self.refused = chosen, stored, refused

    def find_what_a_kill_left(self, chosen: str, after: dict[str, File], broken: set[str]) -> None:
        """Each video as it was, or as it was to be, or gone; and the store of the old settings or of the new."""
        if not (self.root / layout.RECORD).exists():
            return
        opened = open_store(self.root)
        found = next(name for name, one in SETTINGS.items() if one.as_dict() == opened.settings)
        assert found in (self.chosen, chosen)
        before = self.stored if found == self.chosen else {}
        to_come = after if found == chosen else {}
        stored = {}
        for name, info in opened.infos.items():
            either = [group[name] for group in (before, to_come) if name in group]
            (stored[name],) = {file for file in either if file.frames == info.length and self.holds(name, file, found)}
        refused = set(opened.quarantine)
        assert refused <= (self.refused | broken) - stored.keys()
        self.become(found, stored, refused)

    def holds(self, name: str, file: File, chosen: str) -> bool:
        """A damaged video cannot tell; it is what it was."""
        with contextlib.suppress(Refusal):
            return self.read(name) == streams(file, chosen)
        return self.stored[name] == file

    def read(self, name: str) -> tuple[bytes, ...]:
        return tuple(one.tobytes() for one in open_store(self.root).encoded(name, "rgb", slice(None)))

    @precondition(lambda self: self.stored)
    @rule(data=st.data(), bit=st.integers(0, 7))
    def a_byte_flips(self, data: st.DataObject, bit: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.stored)))
        part = data.draw(st.sampled_from(("rgb/c/0/0/0/0", "rgb/zarr.json", layout.RECORD)))
        path = layout.video_folder(self.root, name) / part
        content = bytearray(path.read_bytes())
        if name in self.damaged:
            return  # the same bit again would be the cure
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << bit
        path.write_bytes(content)
        self.damaged.add(name)
        if part == layout.RECORD:
            try:
                catalogue.read_record(path)
            except Refusal:
                self.unreadable.add(name)

    @precondition(lambda self: self.damaged)
    @rule(data=st.data())
    def what_is_damaged_is_mended_as_the_message_says(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.damaged)))
        layout.record_path(self.root, name).unlink()
        self.gone({name})

    @precondition(lambda self: self.chosen)
    @rule(name=st.sampled_from(NAMES))
    def a_folder_is_deleted(self, name: str) -> None:
        shutil.rmtree(layout.video_folder(self.root, name), ignore_errors=True)
        self.gone({one for one in self.stored if one == name or one.startswith(f"{name}/")})

    def gone(self, names: set[str]) -> None:
        self.stored = {name: file for name, file in self.stored.items() if name not in names}
        self.damaged -= names
        self.unreadable -= names
        self.deleted |= names

    @precondition(lambda self: self.chosen)
    @rule()
    def the_catalogue_is_deleted(self) -> None:
        layout.catalogue_path(self.root).unlink(missing_ok=True)
        self.listed = set()

    @precondition(lambda self: self.chosen)
    @invariant()
    def readers_see_the_model(self) -> None:
        store = open_store(self.root)
        assert store.settings == SETTINGS[self.chosen].as_dict()
        assert set(store.quarantine) == self.refused
        if self.unreadable:
            with pytest.raises(Refusal, match="the commit record of video"):
                store.videos
            return
        assert {name: info.length for name, info in store.infos.items()} == {
            name: file.frames for name, file in self.stored.items()
        }
        for name, file in self.stored.items():
            if name in self.damaged:
                with contextlib.suppress(Refusal):  # what is damaged may be what this reader does not need
                    assert self.read(name) == streams(file, self.chosen)
            else:
                assert self.read(name) == streams(file, self.chosen)

    @precondition(lambda self: self.chosen)
    @invariant()
    def verify_finds_what_was_damaged(self) -> None:
        items = [item for _, _, found in verify(open_store(self.root)) for item in found]
        gone = {item.video_id for item in items if item.what == GONE}
        nameless = {item for item in items if item.what.endswith(NAMELESS)}
        assert bool(nameless) <= bool(self.deleted - gone)
        assert {item.video_id for item in items if item.what != GONE and item not in nameless} == self.damaged
        assert self.deleted & self.listed <= gone <= self.deleted


# Shrinking a history takes minutes; without it the failing one is printed as it is, within seconds.
QUICK = tuple(phase for phase in Phase if phase not in (Phase.shrink, Phase.explain))


class TestHistories(Histories.TestCase):
    settings = settings(max_examples=20, stateful_step_count=25, phases=QUICK)


@pytest.mark.slow
@pytest.mark.timeout(1200)
class TestManyHistories(Histories.TestCase):
    settings = settings(max_examples=50, stateful_step_count=40, phases=QUICK)
