"""A view that only this test knows goes the whole way: extract, verify, preview, export; and it is added to a store
later."""

from __future__ import annotations

import itertools
import os
import shutil
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import cv2
import dask
import numpy as np
import pytest

from pipeline.commands import console, stores
from pipeline.commands import export as export_command
from pipeline.commands import extract as extract_command
from pipeline.errors import Refusal
from pipeline.extraction import opening
from pipeline.extraction.run import extract
from pipeline.importers import folder
from pipeline.store import catalogue, layout, open_store
from pipeline.store.settings import ExtractionSettings
from pipeline.store.verify import verify
from pipeline.video.decode import decode
from pipeline.views import VIEWS
from pipeline.views.flow import FlowSettings
from pipeline.views.rgb import RgbSettings
from tests.faults import small
from tests.faults.disk import Disk, the_disk
from tests.pipeline.reference import content, run_here
from tests.toy_view import TOY, ToyExtractor, ToySettings, toy_frame

BOTH = ExtractionSettings({"rgb": RgbSettings(short_side=0), "flow": FlowSettings("dis", short_side=0)}).resolved()
ALL = replace(BOTH, views={**BOTH.views, "toy": ToySettings(shrunk=1)})
ONLY_TOY = ALL.only({"toy"})
OPTIONS = ["--rgb.short_side", "0", "--flow.short_side", "0", "--flow.estimator", "dis", "--toy.shrunk", "1"]


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(VIEWS, "toy", TOY)


@pytest.fixture
def begun(videos: Path, tmp_path: Path) -> Path:
    """A store of rgb and flow."""
    assert run_here(folder.read(videos), videos, tmp_path / "begun", BOTH).stored == 3
    return tmp_path / "begun"


@pytest.fixture
def fresh(videos: Path, tmp_path: Path) -> Path:
    """A store that has all three from the beginning."""
    assert run_here(folder.read(videos), videos, tmp_path / "fresh", ALL).stored == 3
    return tmp_path / "fresh"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """`python -m pipeline` with the toy registered, in its workers too."""

    def command(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["pipeline", *map(str, arguments)])
        commands = {
            "extract": extract_command.with_view_options(extract_command.extract),
            "verify": stores.verify,
            "status": stores.status,
            "preview": stores.preview,
            "export": export_command.export,
        }
        with dask.config.set({"distributed.worker.preload": ["tests.toy_view"]}):
            return console.main(commands, "", "pipeline")

    return command


def shards(store: Path, *views: str) -> dict[str, bytes]:
    """All files of these views, and of the store's other arrays none."""
    return {name: data for name, data in content(store).items() if set(views) & set(name.split("/"))}


def damage(store: Path) -> list[str]:
    return [one.what for _, _, found in verify(open_store(store)) for one in found]


def test_it_goes_from_videos_to_pictures(videos: Path, tmp_path: Path, run: Callable[..., int], capsys) -> None:
    store = tmp_path / "store"
    asked = ("extract", "--videos", videos, "--store", store, "--workers", 1, "--views", "rgb,toy", *OPTIONS)
    assert run(*asked) == 3  # one of the files is no video
    told = capsys.readouterr()
    assert "extracting 4 videos: rgb and toy 1/1" in told.err
    assert "stored 3 videos" in told.out
    assert run("verify", "--store", store) == 0
    opened = open_store(store)
    assert opened.views == ("rgb", "toy")
    assert opened.info("walk/a").shapes == {"rgb": (3, 16, 24, 3), "toy": (3, 17, 16, 24)}
    frames = np.concatenate(list(decode(videos / "walk" / "a.mp4")))
    expected = np.stack([toy_frame(frame, ToySettings(shrunk=1)) for frame in frames])
    found = opened.read("walk/a", "toy", slice(None))
    assert np.abs(found.astype(int) - expected).mean() < 2  # JPEG
    assert catalogue.read_record(layout.record_path(store, "walk/a"))["toy_of"] == "walk/a"  # type: ignore[index]

    assert run("preview", "--store", store, "--videos", "[walk/a]", "--clip", "true", "--out", tmp_path / "seen") == 0
    sheet = cv2.imread(str(tmp_path / "seen" / "walk" / "a.png"))
    assert sheet is not None and sheet.shape[0] == 2 * (20 + 4) + 2 * (133 + 4)
    assert (tmp_path / "seen" / "walk" / "a.mp4").is_file()
    for out, message in (
        ("t.npy", "uint8 (3, 17, 16, 24)"),
        ("t.mp4", "H.264"),
        ("t", "the stored images as toy_00001.jpg"),
    ):
        assert run("export", store, "walk/a", "--view", "toy", "--out", tmp_path / out) == 0
        assert message in capsys.readouterr().out
    assert np.array_equal(np.load(tmp_path / "t.npy"), found)
    encoded = opened.encoded("walk/a", "toy", slice(None))
    written = [(tmp_path / "t" / f"toy_{number:05d}.jpg").read_bytes() for number in (1, 2, 3)]
    assert written == [one.tobytes() for one in encoded]


@pytest.mark.usefixtures("in_this_process")
def test_it_is_added_and_all_else_stays_byte_for_byte(
    videos: Path, begun: Path, fresh: Path, run: Callable[..., int], capsys
) -> None:
    before, record = shards(begun, "rgb", "flow"), open_store(begun).info("walk/a")
    asked = ("extract", "--videos", videos, "--store", begun, "--workers", 1)
    assert run(*asked, "--views", "toy", *OPTIONS) == 3
    assert "stored 3 videos" in capsys.readouterr().out
    assert shards(begun, "rgb", "flow") == before
    assert content(begun) == content(fresh)  # as if all had been extracted together
    assert damage(begun) == []
    assert open_store(begun).info("walk/a").digest != record.digest
    assert run(*asked, "--views", "toy", *OPTIONS) == 3
    assert "stored 0 videos (0 frames), 3 were there already" in capsys.readouterr().out
    assert run(*asked, *OPTIONS) == 3  # rgb and flow alone: the store has them
    assert content(begun) == content(fresh)
    small.write(videos / "walk" / "new.mp4", seed=5)
    assert run(*asked, "--views", "rgb", *OPTIONS[:2]) == 3  # new videos get every view that the store has
    assert open_store(begun).info("walk/new").views == ("rgb", "flow", "toy")


@pytest.mark.remedy(", with the videos and this store, adds it")
@pytest.mark.remedy(" goes on without; nothing was written")
@pytest.mark.usefixtures("in_this_process")
def test_a_store_without_a_view_says_how_to_go_on(
    videos: Path, fresh: Path, tmp_path: Path, run: Callable[..., int], capsys
) -> None:
    store = tmp_path / "frames"
    run_here(folder.read(videos), videos, store, BOTH.only({"rgb"}))
    before, asked = content(store), ("extract", "--videos", videos, "--store", store, "--workers", 1, *OPTIONS)
    assert run(*asked) == 1
    told = capsys.readouterr().err
    assert "the store has no flow" in told
    assert "`--views flow` adds that to its videos, `--views rgb` goes on without; nothing was written" in told
    assert content(store) == before
    assert run(*asked, "--views", "rgb") == 3
    assert content(store) == before
    with pytest.raises(Refusal, match="has no view 'flow'") as refused:
        open_store(store).read("walk/a", "flow", [0])
    assert "make extract-flow VIEWS=flow`, with the videos and this store, adds it" in str(refused.value)
    assert run(*asked, "--views", "flow") == 3
    assert open_store(store).read("walk/a", "flow", [0]).shape == (1, 2, 16, 24)
    assert shards(store, "flow") == shards(fresh, "flow")
    assert run(*asked, "--views", "rgb,flwo") == 2
    assert 'did you mean "flow"' in capsys.readouterr().err


def test_other_settings_of_a_view_that_is_there_are_refused(videos: Path, fresh: Path) -> None:
    before = content(fresh)
    for other in (ToySettings(shrunk=2), ToySettings(planes=5)):
        with pytest.raises(Refusal, match=r"toy\.(shrunk|planes): stored"):
            run_here(folder.read(videos), videos, fresh, replace(ALL, views={"toy": other}), add_views=True)
    assert content(fresh) == before


@pytest.fixture
def disk() -> Disk:
    return the_disk()


@pytest.mark.parametrize("stride", [13, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_at_any_step_it_leaves_what_was_there_and_is_resumed(
    videos: Path, begun: Path, fresh: Path, tmp_path: Path, disk: Disk, stride: int
) -> None:
    before, expected = shards(begun, "rgb", "flow"), content(fresh)
    for step in itertools.count(0, stride):
        store = Path(shutil.copytree(begun, tmp_path / "store"))
        with disk.killed_at(store, step):
            run_here(folder.read(videos), videos, store, ONLY_TOY, add_views=True)
        opened = open_store(store)
        assert opened.videos == ["jump/c", "walk/a", "walk/b"]
        assert damage(store) == []
        assert shards(store, "rgb", "flow") == before
        has = sum("toy" in info.views for info in opened.infos.values())
        assert opened.views == (("rgb", "flow", "toy") if has == 3 else ("rgb", "flow"))
        for video, info in opened.infos.items():
            for view in info.views:  # what a reader is told is there is whole
                assert len(opened.read(video, view, slice(None))) == VIEWS[view].stored_frames(3)
        if not disk.died:
            break
        summary = run_here(folder.read(videos), videos, store, ONLY_TOY, add_views=True)
        assert summary.skipped == has
        assert content(store) == expected
        shutil.rmtree(store)
    assert step > 20
    assert content(store) == expected


def test_a_video_whose_file_is_another_now_keeps_what_it_has(videos: Path, begun: Path) -> None:
    before, file = shards(begun, "rgb", "flow"), videos / "walk" / "a.mp4"
    status, data = file.stat(), file.read_bytes()
    small.write(file, seed=7)
    file.write_bytes(file.read_bytes().ljust(len(data), b"\0")[: len(data)])
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(Refusal, match=r"(?s)walk/a: sha256 .*--overwrite true"):
        run_here(folder.read(videos), videos, begun, ONLY_TOY, add_views=True)
    assert open_store(begun).info("walk/a").views == ("rgb", "flow")
    assert shards(begun, "rgb", "flow") == before
    assert damage(begun) == []
    file.write_bytes(data)
    assert run_here(folder.read(videos), videos, begun, ONLY_TOY, add_views=True).stored == 3
    assert open_store(begun).views == ("rgb", "flow", "toy")


def test_an_extractor_that_fails_blames_the_video_and_leaves_its_other_views(
    videos: Path, begun: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = content(begun)

    def broken(self: ToyExtractor, frames: np.ndarray) -> NoReturn:
        raise ZeroDivisionError("no such luck")

    with monkeypatch.context() as patch:
        patch.setattr(ToyExtractor, "add", broken)
        summary = run_here(folder.read(videos), videos, begun, ONLY_TOY, add_views=True)
    assert set(summary.quarantined.values()) == {"ZeroDivisionError: no such luck"}
    assert shards(begun, "rgb", "flow", "walk", "jump") == {
        name: data for name, data in before.items() if name.startswith("videos/") and name.count("/") > 1
    }
    assert damage(begun) == []


@pytest.mark.remedy("in {} of {} videos; `extract --views {}` goes on", told=True)
def test_status_tells_what_is_still_to_be_added(videos: Path, begun: Path, run: Callable[..., int], capsys) -> None:
    listed = folder.read(videos)
    run_here(replace(listed, rows=listed.rows[:2]), videos, begun, ONLY_TOY, add_views=True)
    assert run("status", "--store", begun) == 0
    assert "in 1 of 3 videos; `extract --views toy` goes on" in capsys.readouterr().out
    run_here(listed, videos, begun, ONLY_TOY, add_views=True)
    assert run("status", "--store", begun) == 0
    assert "goes on" not in capsys.readouterr().out


def test_a_store_whose_view_is_not_known_is_refused_by_name(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(VIEWS, "toy")
    with pytest.raises(Refusal, match="the store has a view 'toy', which this costream does not know"):
        open_store(fresh)


@pytest.mark.usefixtures("in_this_process")
def test_a_run_lists_and_compares_once(videos: Path, begun: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, plan = [], opening.plan
    monkeypatch.setattr(opening, "plan", lambda *given: calls.append(given) or plan(*given))
    small.write(videos / "walk" / "new.mp4", seed=5)
    assert extract(folder.read(videos), videos, begun, BOTH, workers=1).stored == 1
    assert len(calls) == 1
    assert extract(folder.read(videos), videos, begun, BOTH, workers=1).stored == 0
    assert len(calls) == 2


@pytest.mark.usefixtures("in_this_process")
def test_what_another_run_did_between_plan_and_lock_is_not_done_again(
    videos: Path, begun: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small.write(videos / "walk" / "new.mp4", seed=5)
    only_writer = opening.only_writer

    def after_another(store: Path) -> AbstractContextManager[None]:
        monkeypatch.setattr(opening, "only_writer", only_writer)
        assert extract(folder.read(videos), videos, store, BOTH, workers=1).stored == 1
        return only_writer(store)

    monkeypatch.setattr(opening, "only_writer", after_another)
    summary = extract(folder.read(videos), videos, begun, BOTH, workers=1)
    assert (summary.stored, summary.skipped) == (0, 4)
