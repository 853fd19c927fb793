"""Any byte of any file of a store may flip: verify finds it and names the video, and readers never get what was not
stored."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import Refusal
from pipeline.extraction.job import Outcome
from pipeline.extraction.journal import journal
from pipeline.importers import folder
from pipeline.store import layout, open_store
from pipeline.store.settings import ExtractionSettings
from pipeline.store.verify import Damage, verify
from pipeline.views.flow import FlowSettings
from pipeline.views.rgb import RgbSettings
from tests.faults import small
from tests.pipeline.reference import run_here

SETTINGS = ExtractionSettings({"rgb": RgbSettings(short_side=0), "flow": FlowSettings("dis", short_side=0)}).resolved()
# Derived, and believed only where it matches its own digest; a log that nothing is read from; who held the lock last.
HARMLESS = {"catalogue.parquet", "catalogue.stamps", "journal", ".lock", ".fence"}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three videos in two folders, one in quarantine, and every other file that a store can have."""
    root = tmp_path_factory.mktemp("flips")
    videos = small.make(root / "videos")
    run_here(folder.read(videos), videos, root / "store", SETTINGS)
    with journal(root / "store", videos=1) as kept:
        kept.add(Outcome("walk/a", "stored"))
    return root / "store"


def damage(root: Path) -> list[Damage]:
    try:
        return [item for _, _, found in verify(open_store(root)) for item in found]
    except Refusal as refusal:
        assert refusal.where in (
            str(root),
            str(root / layout.RECORD),
        )  # without its own record nothing can be told of it
        return [Damage("", str(root / layout.RECORD), refusal.what)]


def read(root: Path) -> object:
    """All that a reader can ask."""
    store = open_store(root)
    streams = {
        (name, view): [one.tobytes() for one in store.encoded(name, view, slice(None))]
        for name, info in store.infos.items()
        for view in info.views
    }
    return store.settings, store.software, store.classes, store.infos, store.quarantine, streams


def owner(root: Path, path: Path) -> str:
    """The video that a file belongs to, or the class; "" where it is the store's own."""
    parts = path.relative_to(root).parts
    if parts[0] == "quarantine":
        return "jump/broken"
    above = "/".join(part for part in parts[1:3] if part != layout.RECORD)
    return layout.unquoted(above) if parts[0] == "videos" else ""


def flip(path: Path, place: int, bit: int, rot: bool) -> None:
    """rot: a disk that forgets, which changes no time; otherwise somebody wrote."""
    status = path.stat()
    changed = bytearray(path.read_bytes())
    changed[place % len(changed)] ^= 1 << bit
    path.write_bytes(changed)
    if rot:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def check(root: Path, path: Path, place: int, bit: int, rot: bool) -> None:
    whole, original, status = read(root), path.read_bytes(), path.stat()
    flip(path, place, bit, rot)
    try:
        found = damage(root)
        try:
            seen: object = read(root)
        except Refusal as refusal:
            name = owner(root, path)
            assert str(path) in refusal.where or (repr(name) if name else str(root)) in str(refusal)
        else:
            assert seen == whole
    finally:
        path.write_bytes(original)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    if path.relative_to(root).parts[0] in HARMLESS:
        assert found == []
    else:
        assert str(path) in {item.path for item in found}
        assert {item.video_id for item in found} == {owner(root, path)}


@settings(max_examples=250)
@given(data=st.data())
def test_any_flipped_byte_is_found(store: Path, data: st.DataObject) -> None:
    files = sorted(path for path in store.rglob("*") if path.is_file() and path.name != ".fence")
    path = data.draw(st.sampled_from(files))
    place = data.draw(st.integers(0, path.stat().st_size - 1))
    check(store, path, place, data.draw(st.integers(0, 7)), data.draw(st.booleans()))


def test_every_kind_of_file_is_flipped(store: Path) -> None:
    assert damage(store) == []
    assert {path.name for path in store.iterdir()} == {
        *HARMLESS,
        *("zarr.json", "annotations", "annotations.json", "inventory.json", "videos", "quarantine"),
    }
    for path in sorted(path for path in store.rglob("*") if path.is_file() and path.name != ".fence"):
        check(store, path, path.stat().st_size // 2, 0, rot=True)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_bytes_everywhere_are_flipped(store: Path) -> None:
    """One in seven: everything is read twice for each. (All of them pass, in a quarter of an hour.)"""
    twins = {store / "videos" / "walk" / "b", store / "videos" / "jump" / "%63"}  # as walk/a
    for path in sorted(path for path in store.rglob("*") if path.is_file() and not twins & set(path.parents)):
        for place in range(0, path.stat().st_size, 7):
            check(store, path, place, place % 8, rot=place % 3 == 0)
