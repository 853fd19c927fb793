"""What refusals and notes say is to be done helps: each is done here to the letter."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline import called
from pipeline.errors import Refusal
from pipeline.importers import folder
from pipeline.manifest import Manifest
from pipeline.store import VideoStore, fence, layout, open_store
from pipeline.store.verify import verify
from tests import printed, test_make
from tests.faults import small
from tests.faults.processes import wait_for
from tests.pipeline.reference import run_here

COPY = test_make.folder  # a fixture: where make runs, with a Python that writes down what it would be run with
Run = Callable[..., tuple[int, str, str]]


def refused(run: Run, *command: object) -> str:
    code, _, err = run(*command)
    assert code in (1, 2), err
    assert "to do: " in err
    return err


def test_archives_are_unpacked(run: Run, videos: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    packed.mkdir()
    with tarfile.open(packed / "videos.tar", "w") as archive:
        archive.add(videos, "videos")
    command = ("manifest", "--videos", packed, "--out", tmp_path / "list.csv")
    assert "unpack them into folders to have their videos" in refused(run, *command)
    with tarfile.open(packed / "videos.tar") as archive:
        archive.extractall(packed, filter="data")
    assert run(*command)[0] == 0
    assert len(Manifest.load(tmp_path / "list.csv").rows) == 4


def test_a_manifest_takes_files_that_have_another_name(run: Run, tmp_path: Path) -> None:
    videos, listed = tmp_path / "videos", tmp_path / "list.csv"
    small.write(videos / "walk" / "a.mp4", 0)
    (videos / "walk" / "b.mp4").symlink_to("a.mp4")
    _, _, err = run("manifest", "--videos", videos, "--out", listed)
    assert "walk/b.mp4 is walk/a.mp4; a manifest that lists them takes them" in err
    with open(listed, "a") as file:
        file.write("walk/b,walk/b.mp4,walk,walk/b,\n")
    assert run_here(Manifest.load(listed), videos, tmp_path / "store", small.SMALL).stored == 2


@pytest.mark.remedy("or end it:")
def test_who_stands_still_inside_a_store_is_ended(
    videos: Path, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small.write(videos / "walk" / "new.mp4", 5)
    monkeypatch.setattr(fence, "PATIENCE", 0.0)
    code = (
        "import sys, time; from pathlib import Path; from pipeline.store import fence; s = Path(sys.argv[1])\n"
        "with fence.inside(s, fence.holder(s)): Path(sys.argv[2]).touch(); time.sleep(1000)"
    )
    inside = subprocess.Popen([sys.executable, "-c", code, store, tmp_path / "inside"])
    try:
        wait_for((tmp_path / "inside").exists, "a process inside")
        with pytest.raises(Refusal, match="stands still in the middle of storing a video") as told:
            run_here(folder.read(videos), videos, store, small.SMALL)
        command = re.findall(r"`(kill -KILL [\d ]+)`", told.value.remedy)[0].split()
        assert command[2:] == [str(inside.pid)]
        subprocess.run(command, check=True)
        assert inside.wait() == -signal.SIGKILL
        assert run_here(folder.read(videos), videos, store, small.SMALL).stored == 1
    finally:
        inside.kill()
        inside.wait()


@pytest.mark.parametrize("typed", ["make", "costream"])
@pytest.mark.remedy("make one with `make manifest VIDEOS=FOLDER OUT=FILE`", told=True)
def test_a_manifest_that_cannot_be_read_is_made(
    run: Run, videos: Path, store: Path, tmp_path: Path, COPY: Path, monkeypatch: pytest.MonkeyPatch, typed: str
) -> None:
    monkeypatch.setattr(called, "by_costream", lambda: typed == "costream")
    command = ("annotate", "--store", store, "--manifest", tmp_path / "list.csv", "--name", "mine")
    made = re.findall(rf"make one with `({typed} manifest .*?)`", refused(run, *command))[0]
    places = {"FOLDER": shlex.quote(str(videos)), "FILE": shlex.quote(str(tmp_path / "list.csv"))}
    line = re.sub("FOLDER|FILE", lambda found: places[found[0]], made)
    assert printed.run(printed.argv_of(line, COPY), monkeypatch) == 0
    assert run(*command)[0] == 0


@pytest.mark.remedy("give VIDEOS=, or FRAMES=", "remove it, or give another --out")
def test_options_that_are_asked_for_are_given(run: Run, store: Path, videos: Path, tmp_path: Path) -> None:
    assert "give VIDEOS=, or FRAMES=" in refused(run, "manifest", "--out", tmp_path / "a.csv")
    assert run("manifest", "--out", tmp_path / "a.csv", "--videos", videos)[0] == 0
    split = ("manifest", "--out", tmp_path / "a.csv", "--videos", videos, "--split", 1)
    assert "leave it out" in refused(run, *split)
    assert run(*split[:-2])[0] == 0
    assert "name what is meant" in refused(run, "remove", "--store", store, "--videos", "[]")
    assert run("remove", "--store", store, "--videos+", "walk/a")[0] == 0
    taken = ("export", store, "walk/b", "--out", tmp_path / "out")
    assert run(*taken)[0] == 0
    assert "remove it, or give another --out" in refused(run, *taken)
    assert run(*taken[:-1], tmp_path / "other")[0] == 0
    shutil.rmtree(tmp_path / "out")
    assert run(*taken)[0] == 0


@pytest.mark.remedy("or write it again: `make annotate STORE= MANIFEST= NAME=`")
def test_an_annotation_set_that_is_gone_is_written_again(run: Run, store: Path, videos: Path) -> None:
    layout.annotations_path(store, "extraction").unlink()
    assert "or write it again: `make annotate STORE= MANIFEST= NAME=`" in refused(run, "status", "--store", store)
    folder.read(videos).save(store.parent / "list.csv")
    listed = ("--manifest", store.parent / "list.csv", "--name", "extraction")
    assert run("annotate", "--store", store, *listed)[0] == 0
    assert run("status", "--store", store)[0] == 0


def whole(run: Run, videos: Path, store: Path) -> None:
    """The store is as it was, after another run."""
    run_here(folder.read(videos), videos, store, small.SMALL)
    assert open_store(store).videos == ["jump/c", "walk/a", "walk/b"]
    assert not any(damage for _, _, damage in verify(open_store(store)))
    assert run("status", "--store", store)[0] == 0


def spoil(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9] + b"otherwise")


@pytest.mark.remedy("delete it; the next extraction tries its video again")
def test_a_damaged_quarantine_file_is_deleted(run: Run, videos: Path, store: Path) -> None:
    spoil(layout.quarantine_path(store, "jump/broken"))
    err = refused(run, "status", "--store", store)
    assert "delete it; the next extraction tries its video again" in err
    Path(re.findall(r"where: (\S+)", err)[0]).unlink()
    whole(run, videos, store)
    assert list(open_store(store).quarantine) == ["jump/broken"]


@pytest.mark.remedy("and run the extraction again: it redoes this video only; `make verify STORE=")
def test_the_record_of_a_damaged_video_is_deleted(run: Run, videos: Path, store: Path) -> None:
    for path in layout.video_folder(store, "walk/a").rglob("0"):
        if path.is_file():
            path.write_bytes(b"damaged")
    err = refused(run, "export", store, "walk/a", "--out", store.parent / "a.npy")
    Path(re.findall(r"delete (\S+) and run the extraction again", err)[0]).unlink()
    whole(run, videos, store)


@pytest.mark.remedy("run the extraction again with `--overwrite true`: it redoes these videos only")
def test_videos_of_other_settings_are_done_again(run: Run, videos: Path, store: Path, tmp_path: Path) -> None:
    other = run_here(folder.read(videos), videos, tmp_path / "other", small.OTHER)
    assert other.stored == 3
    moved = layout.video_folder(store, "walk/a")
    shutil.rmtree(moved)
    shutil.copytree(layout.video_folder(tmp_path / "other", "walk/a"), moved)
    err = refused(run, "status", "--store", store)
    assert "`--overwrite true`: it redoes these videos only" in err
    assert run_here(folder.read(videos), videos, store, small.SMALL, overwrite=True).stored == 1
    whole(run, videos, store)


def test_a_damaged_annotation_set_is_written_again(run: Run, videos: Path, store: Path, tmp_path: Path) -> None:
    folder.read(videos).save(tmp_path / "list.csv")
    command = ("annotate", "--store", store, "--manifest", tmp_path / "list.csv", "--name", "mine")
    assert run(*command)[0] == 0
    spoil(layout.annotations_path(store, "mine"))
    status = ("status", "--store", store, "--annotations", "mine")
    assert "write it again: `make annotate STORE= MANIFEST= NAME=`" in refused(run, *status)
    assert run(*command)[0] == 0
    assert run(*status)[0] == 0


@pytest.mark.remedy("give an empty or a new folder as STORE=")
def test_a_folder_that_is_taken_is_replaced_by_a_new_one(videos: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "notes.txt").touch()
    with pytest.raises(Refusal) as told:
        run_here(folder.read(videos), videos, tmp_path / "taken", small.SMALL)
    assert told.value.remedy == "give an empty or a new folder as STORE=; nothing was written"
    os.mkdir(tmp_path / "empty")
    for name in ("empty", "new"):
        assert run_here(folder.read(videos), videos, tmp_path / name, small.SMALL).stored == 3


@pytest.mark.remedy("SHOW=videos` lists what is there")
def test_a_video_that_is_not_there_is_looked_up(run: Run, synthetic_store: VideoStore, tmp_path: Path) -> None:
    root, name = synthetic_store.root, synthetic_store.videos[0]
    err = refused(run, "export", root, f"{name}x", "--out", tmp_path / "a.npy")
    [listing] = re.findall("`(make status .*)` lists what is there", err)
    assert run("status", *shlex.split(listing.replace("STORE=", "--store ").replace("SHOW=", "--show "))[2:])[1]
    nearest = re.findall(r"nearest is '(.*?)'", err)[0]
    assert run("export", root, nearest, "--out", tmp_path / "a.npy")[0] == 0
