"""What refusals and notes about a store, what is said of it and what lies in it say is to be done helps: each is done
here to the letter."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.importers import folder
from pipeline.manifest import Manifest
from pipeline.store import layout, open_store
from pipeline.store.settings import ExtractionSettings
from pipeline.views.flow import FlowSettings
from tests import remedies
from tests.faults import small
from tests.faults.disk import the_disk
from tests.golden.test_schema1 import GOLDEN
from tests.pipeline.reference import content, run_here
from tests.pipeline.test_remedies import refused, spoil, whole

Run = Callable[..., tuple[int, str, str]]


def annotated(run: Run, store: Path, *options: object) -> str:
    code, out, err = run("annotate", "--store", store, *options)
    assert code == 0, err
    return out


@pytest.mark.remedy(
    "give a manifest, or TEST_SHARE=.2 to make a split",
    "leave TEST_SHARE= out, or give a manifest without splits",
    "take letters, digits, and the signs . _ - in a name",
    "say which of them is meant: --annotations NAME",
)
@pytest.mark.remedy("(`annotate` gives or makes a split)", told=True)
def test_a_set_is_given_or_made_and_called_and_meant_by_a_name(run: Run, videos: Path, store: Path) -> None:
    listed, split = store.parent / "list.csv", store.parent / "split.csv"
    manifest = folder.read(videos)
    manifest.save(listed)
    Manifest([replace(row, split="test") for row in manifest.rows], manifest.classes).save(split)
    assert "no video has a split" in run("status", "--store", store)[1]
    refused(run, "annotate", "--store", store, "--name", "a")
    annotated(run, store, "--name", "a", "--manifest", split)
    assert "no video has a split" not in run("status", "--store", store, "--annotations", "a")[1]
    again = ("--name", "b", "--test_share", ".2")
    refused(run, "annotate", "--store", store, *again, "--manifest", split)
    assert "no split" in annotated(run, store, *again[:2], "--manifest", listed)
    assert "1 test" in annotated(run, store, *again, "--manifest", listed)
    assert "no video has a split" not in run("status", "--store", store, "--annotations", "b")[1]
    refused(run, "annotate", "--store", store, "--name", "c d/e", "--manifest", split)
    annotated(run, store, "--name", "C.1_d-e", "--manifest", split)
    for name in ("extraction", "C.1_d-e"):
        layout.annotations_path(store, name).unlink()
    layout.annotations_list_path(store).unlink()  # a store of somebody else's, without the set that extraction keeps
    said = refused(run, "status", "--store", store)
    assert "the store has several annotation sets: a, b" in said
    assert run("status", "--store", store, "--annotations", "b")[0] == 0


@pytest.mark.remedy("run `make extract-flow` first", "make one with `make extract-flow VIDEOS=folder STORE=path`")
def test_a_store_is_made_and_filled(run: Run, tmp_path: Path) -> None:
    videos, store = tmp_path / "videos", tmp_path / "store"
    videos.mkdir()
    (videos / "broken.mp4").write_bytes(b"no video")
    shown = ("preview", "--store", store, "--out", tmp_path / "out")
    refused(run, *shown)
    run_here(folder.read(videos), videos, store, small.SMALL)
    assert "the store holds no videos" in refused(run, *shown)
    small.write(videos / "a.mp4", 0)
    run_here(folder.read(videos), videos, store, small.SMALL)
    assert run(*shown)[0] == 0


@pytest.mark.remedy(
    "give a name that ends in .mp4 or .npy, or one without ending for a folder of images",
    "export its view ",
    "export another video",
)
def test_another_ending_view_or_video_is_exported(run: Run, tmp_path: Path) -> None:
    videos, flow = tmp_path / "videos", FlowSettings("dis", short_side=0)
    small.write(videos / "still.mp4", 0, frames=1)
    small.write(videos / "moves.mp4", 1)
    both = {**small.SMALL.views, "flow": flow}
    for name, views in (("both", both), ("flow", {"flow": flow})):
        stored(tmp_path, name, ExtractionSettings(views).resolved())

    def export(store: str, video: str, out: str, *options: str) -> tuple[object, ...]:
        return ("export", tmp_path / store, video, "--out", tmp_path / out, *options)

    refused(run, *export("both", "moves", "a.avi"))
    for out in ("a.mp4", "a.npy", "a"):
        assert run(*export("both", "moves", out))[0] == 0
    told = refused(run, *export("both", "still", "b.npy", "--view", "flow"))
    assert run(*export("both", "still", "b.npy", "--view", re.findall(r"export its view (\w+)", told)[0]))[0] == 0
    refused(run, *export("flow", "still", "c.npy"))
    assert run(*export("flow", "moves", "c.npy"))[0] == 0


@pytest.mark.remedy("mend the disk or its permissions; where a file lies in a folder's place, put the folder back")
def test_a_folder_is_put_back(run: Run, store: Path) -> None:
    place, aside = store / "videos", store.parent / "aside"
    place.rename(aside)
    place.touch()
    refused(run, "status", "--store", store)
    place.unlink()
    aside.rename(place)
    assert run("status", "--store", store)[0] == 0


@pytest.mark.remedy("delete this file and run the extraction again: it redoes this video only")
def test_a_damaged_record_is_deleted(run: Run, videos: Path, store: Path) -> None:
    before = content(store)
    spoil(layout.record_path(store, "walk/a"))
    Path(re.findall(r"where: (\S+)", refused(run, "status", "--store", store))[0]).unlink()
    assert run_here(folder.read(videos), videos, store, small.SMALL).stored == 1
    assert content(store) == before


@pytest.mark.remedy("restore it from a copy; or delete it and ")
def test_a_class_list_is_restored_or_said_again(run: Run, tmp_path: Path) -> None:
    store = Path(shutil.copytree(GOLDEN / "store", tmp_path / "store"))
    classes, listed = open_store(store).classes, tmp_path / "list.csv"
    path = layout.classes_path(store)
    kept, manifest = path.read_bytes(), folder.read(GOLDEN / "videos")
    manifest.save(listed)
    for damaged in (lambda: path.write_bytes(b"run\nwalk\n"), path.unlink):
        damaged()
        told = refused(run, "status", "--store", store)
        assert "`make annotate STORE= MANIFEST=`" in told
        path.write_bytes(kept)
        assert open_store(store).classes == classes
    path.write_bytes(b"run\nwalk\n")
    path.unlink()
    (path.parent / re.findall(r"delete it and (\S+),", told)[0]).unlink()
    annotated(run, store, "--manifest", listed)
    assert open_store(store).classes == manifest.classes
    assert run("verify", "--store", store)[0] == 0


@pytest.mark.remedy("it may be deleted; it only tells how fast the run was")
def test_a_journal_that_cannot_be_read_is_deleted(run: Run, store: Path) -> None:
    journal = store / "journal" / "2026-1"
    journal.parent.mkdir()
    journal.write_text("no journal\n")
    code, out, _ = run("status", "--store", store)
    assert code == 0 and "it may be deleted; it only tells how fast the run was" in out
    Path(re.findall(r"\((\S+/journal/\S+)\)", out)[0]).unlink()
    assert "its journal is not here" in run("status", "--store", store)[1]


@pytest.mark.remedy("(`verify` lists them; extraction brings them back, `remove` says that it was meant)", told=True)
def test_videos_that_are_gone_are_listed_and_brought_back_or_removed(run: Run, videos: Path, store: Path) -> None:
    for gone in ("walk/a", "walk/b"):
        shutil.rmtree(layout.video_folder(store, gone))
    assert "missing      2 stored videos gone" in run("status", "--store", store)[1]
    code, out, _ = run("verify", "--store", store)
    assert code == 1 and "walk/a: " in out and "walk/b: " in out
    assert run("remove", "--store", store, "--videos+", "walk/b")[0] == 0
    assert "missing      1 stored video" in run("status", "--store", store)[1]
    whole(run, videos, store)
    assert "missing" not in run("status", "--store", store)[1]


@pytest.mark.remedy("python -m pipeline probe --file={}", told=True)
def test_what_is_in_quarantine_is_seen_again(run: Run, videos: Path, store: Path) -> None:
    out = run("status", "--store", store)[1]
    command = re.findall(r"python -m pipeline (probe --file=\S+)", out)[0].split()
    reason = open_store(store).quarantine["jump/broken"]
    assert reason in refused(run, *command)
    small.write(videos / "jump" / "broken.mp4", 3)
    assert "decoded 3 frames" in run(*command)[1]


def stored(parent: Path, name: str, settings: ExtractionSettings = small.SMALL) -> None:
    run_here(folder.read(parent / "videos"), parent / "videos", parent / name, settings)


def path_of_a_file(parent: Path) -> None:
    (parent / "file").touch()
    stored(parent, "file")


def group(parent: Path) -> None:
    (parent / "group").mkdir()
    (parent / "group" / layout.RECORD).write_bytes(layout.group())
    open_store(parent / "group")


def filled_disk(parent: Path) -> None:
    the_disk().fill(parent / "store", 0)
    try:
        stored(parent, "store")
    finally:
        the_disk().folder = None


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        remedies.case("give a folder that does not exist yet", path_of_a_file, lambda parent: stored(parent, "store")),
        remedies.case("give another STORE=", group, lambda parent: (stored(parent, "s"), open_store(parent / "s"))),
        remedies.case(
            "make room (or mend the disk, or its permissions) and run the same command again",
            filled_disk,
            lambda parent: stored(parent, "store"),
        ),
    ],
)
def test_of_places(wrong: Callable, right: Callable, videos: Path, tmp_path: Path) -> None:
    remedies.helps(wrong, right, tmp_path)
