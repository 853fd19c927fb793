"""Bringing what others extracted keeps extraction's promises: kills, full disks, reruns, and what changed meanwhile."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.errors import Refusal
from pipeline.existing import open_source
from pipeline.existing.bring import Existing, bring, manifest_of
from pipeline.extraction.journal import Summary
from pipeline.store import layout, open_store
from pipeline.store.verify import verify
from tests.faults.disk import Disk
from tests.pipeline.existing import coclr_flow, flow_planes, frame_jpegs, pack, write_folder
from tests.pipeline.reference import content

FRAMES = {"Walk/a": frame_jpegs(3, 1), "Walk/b": frame_jpegs(2, 2), "Run/c": frame_jpegs(1, 3), "Run/empty": []}
PLANES = {
    "Walk/a": flow_planes(2, 1),
    "Walk/b": flow_planes(1, 2),
    "Run/c": flow_planes(0),
    "Run/empty": flow_planes(0),
}

Sources = tuple[Path, Path]


def folders(top: Path) -> Sources:
    root = write_folder(top / "raw", FRAMES, PLANES)
    return root, root


def lmdbs(top: Path) -> Sources:
    flow = {name: coclr_flow(planes) for name, planes in PLANES.items()}
    return pack(top / "frame.lmdb", FRAMES), pack(top / "flow.lmdb", flow)


both_kinds = pytest.mark.parametrize("kind", [folders, lmdbs])


def bring_all(sources: Sources, store: Path, bound: float = 20.0, **options: bool) -> Summary:
    with open_source(sources[0]) as frames:
        if sources[0] == sources[1]:
            existing = Existing(frames, frames, bound)
            return bring(manifest_of(existing), existing, store, 2, "again", **options).summary
        with open_source(sources[1]) as flow:
            existing = Existing(frames, flow, bound)
            return bring(manifest_of(existing), existing, store, 2, "again", **options).summary


def times(store: Path) -> dict[Path, tuple[int, int]]:
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in store.rglob("*") if path.name != ".lock"}


def assert_whole(store: Path) -> None:
    opened = open_store(store)
    assert not any(found for _, _, found in verify(opened))
    assert set(opened.videos) <= {"Walk/a", "Walk/b", "Run/c"}
    assert set(opened.quarantine) <= {"Run/empty"}


@both_kinds
@pytest.mark.parametrize("stride", [41, pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_run_that_dies_at_any_step_leaves_a_whole_store_and_a_rerun_completes_it(
    tmp_path: Path, disk: Disk, kind: Callable[[Path], Sources], overwrite: bool, stride: int
) -> None:
    """overwrite: over a store whose flow was brought with another bound."""
    sources = kind(tmp_path)
    assert bring_all(sources, tmp_path / "fresh").stored == 3
    expected = content(tmp_path / "fresh")
    if overwrite:
        bring_all(sources, tmp_path / "other", bound=15.0)
    for step in itertools.count(0, stride):
        store = tmp_path / "store"
        if overwrite:
            shutil.copytree(tmp_path / "other", store)
        with disk.killed_at(store, step):
            bring_all(sources, store, overwrite=overwrite)
        if (store / layout.RECORD).exists():
            assert_whole(store)
        if not disk.died:
            break
        bring_all(sources, store, retry_quarantined=True, overwrite=overwrite)
        assert content(store) == expected
        assert list(open_store(store).quarantine) == ["Run/empty"]
        assert not list(store.rglob("*.partial"))
        shutil.rmtree(store)
    assert step > 30
    assert content(store) == expected


@both_kinds
@pytest.mark.parametrize("stride", [19, pytest.param(2, marks=pytest.mark.slow)])
def test_a_disk_that_fills_at_any_step_is_told_and_a_rerun_completes_the_store(
    tmp_path: Path, disk: Disk, kind: Callable[[Path], Sources], stride: int
) -> None:
    sources = kind(tmp_path)
    bring_all(sources, tmp_path / "fresh")
    for step in itertools.count(0, stride):
        store = tmp_path / "store"
        disk.fill(store, step)
        try:
            bring_all(sources, store)
        except Refusal as refusal:
            assert "No space left on device" in refusal.what
            assert str(store) in refusal.where
            assert "run the same command again" in refusal.remedy
        else:
            break
        finally:
            disk.folder = None
        if (store / layout.RECORD).exists():
            assert_whole(store)
        bring_all(sources, store)
        assert content(store) == content(tmp_path / "fresh")
        shutil.rmtree(store)
    assert step > 20


@both_kinds
def test_changed_pictures_are_noticed_and_only_their_video_is_redone(
    tmp_path: Path, kind: Callable[[Path], Sources]
) -> None:
    sources, store = kind(tmp_path), tmp_path / "store"
    bring_all(sources, store)
    before = times(store)
    assert bring_all(sources, store).skipped == 3
    for path in {*sources, *tmp_path.rglob("*.jpg")}:
        os.utime(path)  # all are newer now, and the same
    assert bring_all(sources, store).skipped == 3  # and what was refused is tried again, as it may be whole now
    tried_again = {path for path, facts in times(store).items() if before.get(path) != facts}
    assert {path.relative_to(store).parts[0] for path in tried_again} <= {"quarantine", "journal", "inventory.json"}
    before = times(store)
    assert bring_all(sources, store).skipped == 3
    assert times(store) == before

    changed = FRAMES | {"Walk/b": frame_jpegs(2, 9)}
    if kind is folders:
        for number, jpeg in enumerate(changed["Walk/b"], 1):
            (sources[0] / "Walk" / "b" / f"img_{number:05d}.jpg").write_bytes(jpeg)
    else:
        sources[0].unlink()
        pack(sources[0], changed)
    with pytest.raises(Refusal, match="1 stored videos are not what the manifest lists:\n    Walk/b: .*sha256 "):
        bring_all(sources, store)
    assert times(store) == before
    summary = bring_all(sources, store, overwrite=True)
    assert (summary.stored, summary.skipped) == (1, 2)
    bring_all(sources, tmp_path / "fresh")
    assert content(store) == content(tmp_path / "fresh")


@both_kinds
def test_another_bound_is_noticed_and_the_store_is_redone_when_asked(
    tmp_path: Path, kind: Callable[[Path], Sources]
) -> None:
    sources, store = kind(tmp_path), tmp_path / "store"
    bring_all(sources, store)
    before = times(store)
    with pytest.raises(Refusal, match=r"flow.bound: stored 20.0, asked 15.0"):
        bring_all(sources, store, bound=15.0)
    assert times(store) == before
    assert bring_all(sources, store, bound=15.0, overwrite=True).stored == 3
    assert open_store(store).settings["flow"]["bound"] == 15.0
