"""Extraction: what is stored, what is refused, what a rerun does. Kills and full disks are in tests/faults."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline import flow, importers, storage, synthetic
from pipeline.errors import Refusal
from pipeline.extraction import job
from pipeline.extraction.journal import Summary
from pipeline.extraction.plan import file_stamp
from pipeline.extraction.run import cannot_go_on, extract
from pipeline.manifest import Manifest, Video
from pipeline.store import VideoStore, catalogue, layout, open_store
from pipeline.store.settings import ExtractionSettings
from pipeline.store.verify import verify
from pipeline.store.writing import create_store
from pipeline.video.decode import DecodeSettings, decode
from pipeline.views.flow import FlowSettings
from pipeline.views.rgb import RgbSettings
from tests.pipeline.reference import content, extract_here, run_here

GOOD = ("rgb", "c", "zarr.json", "a", "a/b", "a [1] (x)!", "#1 & ;2 été 動作 'q'", "flow/pose")
BROKEN = {
    "empty": (b"", "the file is empty (0 bytes)"),
    "page": (b"<html>404</html>", "it cannot be opened as a video: "),
    "__worse": (bytes(5000), "it cannot be opened as a video: "),
}


def mtimes(root: Path) -> dict[str, int]:
    return {str(path.relative_to(root)): path.stat().st_mtime_ns for path in root.rglob("*") if path.name != ".lock"}


@pytest.fixture(scope="module")
def messy_videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos with every kind of name, and files that are none."""
    folder = tmp_path_factory.mktemp("messy") / "videos"
    for index, name in enumerate(GOOD):
        path = folder / f"{name}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        synthetic.write_mp4(path, synthetic.video(synthetic.CLASSES[0], index, frames=index + 1, height=32, width=48))
    for name, (data, _) in BROKEN.items():
        (folder / f"{name}.mp4").write_bytes(data)
    os.symlink("nowhere", folder / "dangling.mp4")
    os.mkfifo(folder / "pipe.mp4")
    return folder


@pytest.fixture(scope="module")
def full_chroma(extraction_settings: ExtractionSettings) -> ExtractionSettings:
    """These videos have full chroma: what is stored can be compared with them only if the store keeps it."""
    views = {**extraction_settings.views, "rgb": RgbSettings(quality=90, chroma="4:4:4")}
    return replace(extraction_settings, views=views)


@pytest.fixture(scope="module")
def messy(messy_videos: Path, full_chroma: ExtractionSettings) -> tuple[Path, Summary]:
    """The store of those videos and what its extraction said."""
    store = messy_videos.parent / "store"
    return store, extract(importers.read("folder", messy_videos), messy_videos, store, full_chroma, workers=2)


def test_every_good_video_is_stored_and_every_other_one_has_its_reason(
    messy_videos: Path, messy: tuple[Path, Summary]
) -> None:
    store, summary = open_store(messy[0]), messy[1]
    assert store.videos == sorted(GOOD)
    assert (summary.stored, summary.frames) == (8, sum(range(1, 9)))
    assert set(store.quarantine) == {*BROKEN, "dangling", "pipe"}
    assert store.quarantine == summary.quarantined
    for name, (_, reason) in BROKEN.items():
        assert store.quarantine[name].startswith(reason)
    assert store.quarantine["dangling"] == "there is no such file"
    assert store.quarantine["pipe"] == "it is not a file"
    assert not any(found for _, _, found in verify(store))
    for index, name in enumerate(GOOD):
        info = store.info(name)
        assert info.shapes == {"rgb": (index + 1, 32, 48, 3), "flow": (index, 2, 32, 48)}
        frames = np.concatenate(list(decode(messy_videos / f"{name}.mp4")))
        assert np.abs(store.read(name, "rgb", slice(None)).astype(int) - frames).mean() < 6


def test_quarantine_tells_how_to_see_it_again(messy_videos: Path, messy: tuple[Path, Summary]) -> None:
    entry = next(one for one in open_store(messy[0]).quarantine_entries() if one["video_id"] == "empty")
    expected = {
        **{"video_id": "empty", "path": "empty.mp4", "label": "", "source": "empty", "split": ""},
        "reason": "the file is empty (0 bytes)",
        "stage": "open",
        "traceback": [],
        "reproduce": f"python -m pipeline probe --file={messy_videos}/empty.mp4",
        "stamp": list(file_stamp(messy_videos / "empty.mp4")),
    }
    assert entry == layout.seal(expected)


def test_the_record_tells_where_a_video_comes_from(messy_videos: Path, messy: tuple[Path, Summary]) -> None:
    record = catalogue.read_record(layout.record_path(messy[0], "a/b"))
    assert record is not None
    file = messy_videos / "a" / "b.mp4"
    assert record["file"] == {"path": "a/b.mp4", "bytes": file.stat().st_size, "sha256": storage.file_digest(file)}
    assert record["length"] == 5
    assert not {"label", "source", "split"} & set(record)
    assert set(record["files"]) == {f"{view}/{name}" for view in ("rgb", "flow") for name in ("zarr.json", "c/0/0/0/0")}


def test_the_journal_tells_what_was_spent(messy: tuple[Path, Summary]) -> None:
    (file,) = (messy[0] / "journal").iterdir()
    head, *lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert head["videos"] == len(lines)
    assert {line["video_id"] for line in lines} == {*GOOD, *BROKEN, "dangling", "pipe"}
    for line in lines:
        if line["status"] == "stored":
            assert set(line["seconds"]) == {"decode", "flow", "encode", "write", "total"}
            assert sum(line["seconds"].values()) <= 2 * line["seconds"]["total"]


def test_the_same_bytes_come_from_any_number_of_processes(
    synthetic_store: VideoStore, synthetic_videos: Path, extraction_settings: ExtractionSettings, tmp_path: Path
) -> None:
    manifest = importers.read("folder", synthetic_videos)
    extract(manifest, synthetic_videos, tmp_path / "store", extraction_settings, workers=1)
    assert content(tmp_path / "store") == content(synthetic_store.root)  # which this process made


def test_a_missing_catalogue_is_written_again(
    synthetic_store: VideoStore, synthetic_videos: Path, extraction_settings: ExtractionSettings, tmp_path: Path
) -> None:
    store = Path(shutil.copytree(synthetic_store.root, tmp_path / "store"))
    path = layout.catalogue_path(store)
    expected = path.read_bytes()
    manifest = importers.read("folder", synthetic_videos)
    for damage in (path.unlink, lambda: path.write_bytes(b"")):
        damage()
        assert extract(manifest, synthetic_videos, store, extraction_settings, workers=1).skipped == 12
        assert path.read_bytes() == expected


def refuse(manifest: Manifest, root: Path, store: Path, settings: ExtractionSettings) -> Refusal:
    with pytest.raises(Refusal) as refused:
        extract(manifest, root, store, settings, workers=1)
    assert refused.value.where
    assert refused.value.remedy
    return refused.value


def test_what_cannot_be_done_is_refused_before_anything_is_written(
    extraction_settings: ExtractionSettings, tmp_path: Path
) -> None:
    one = Manifest([Video("a", "a.mp4")], [])
    (tmp_path / "file").write_bytes(b"mine")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep me")
    before = mtimes(tmp_path)
    store = tmp_path / "store"
    assert "no such folder of videos" in refuse(one, tmp_path / "none", store, extraction_settings).what
    assert "lists no video" in refuse(Manifest([], []), tmp_path, store, extraction_settings).what
    assert "path is a file" in refuse(one, tmp_path, tmp_path / "file", extraction_settings).what
    assert "not empty and not a store" in refuse(one, tmp_path, tmp_path / "mine", extraction_settings).what
    assert mtimes(tmp_path) == before


def test_new_classes_come_after_those_that_are_there(
    synthetic_store: VideoStore, synthetic_videos: Path, extraction_settings: ExtractionSettings, tmp_path: Path
) -> None:
    store = Path(shutil.copytree(synthetic_store.root, tmp_path / "store"))
    manifest = importers.read("folder", synthetic_videos)
    more = replace(manifest, classes=["aaa", *reversed(manifest.classes), "zzz"])
    extract(more, synthetic_videos, store, extraction_settings, workers=1)
    assert open_store(store).classes == [*synthetic_store.classes, "aaa", "zzz"]


@pytest.fixture
def one_video(tmp_path: Path, extraction_settings: ExtractionSettings) -> Callable[[], job.Outcome]:
    """A store, and the extraction of one video of 20 frames into it, in this process."""
    frames = synthetic.video(synthetic.CLASSES[0], 0, frames=20, height=32, width=48)
    synthetic.write_mp4(tmp_path / "v.mp4", frames)
    create_store(tmp_path / "store", extraction_settings)
    settings = extraction_settings.as_dict()
    return lambda: job.extract_video(str(tmp_path), str(tmp_path / "store"), Video("v", "v.mp4"), settings)


def test_an_estimator_that_fails_blames_the_video(
    one_video: Callable[[], job.Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("no such luck")

    assert one_video().status == "stored"
    with monkeypatch.context() as patch:
        patch.setattr(flow.FlowEstimator, "estimate", broken)
        outcome = one_video()
    assert (outcome.status, outcome.reason) == ("quarantined", "ZeroDivisionError: no such luck")
    store = open_store(tmp_path / "store")
    assert store.videos == []
    (entry,) = store.quarantine_entries()
    assert re.search(r"test_extract\.py", "\n".join(entry["traceback"]))
    assert not layout.video_folder(store.root, "v").exists()
    assert one_video().status == "stored"
    assert open_store(tmp_path / "store").quarantine == {}


def test_an_estimator_that_cannot_be_made_ends_the_run_and_blames_no_video(
    one_video: Callable[[], job.Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(self: ExtractionSettings, video_id: str) -> None:
        raise Refusal("the GPU is gone", remedy="plug it in")

    monkeypatch.setattr(ExtractionSettings, "extractors", gone)
    outcome = one_video()
    assert (outcome.status, outcome.stage) == ("failed", "prepare")
    assert open_store(tmp_path / "store").quarantine == {}
    told = str(cannot_go_on(outcome, tmp_path))
    assert "stopped at video 'v': the GPU is gone\n  to do: plug it in" in told


def damage(path: Path) -> None:
    """Zero a part of the frames' data."""
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 4
    data[start + 3000 : start + 6000] = bytes(3000)
    path.write_bytes(data)


def test_a_video_that_breaks_off_leaves_nothing(one_video: Callable[[], job.Outcome], tmp_path: Path) -> None:
    damage(tmp_path / "v.mp4")
    outcome = one_video()
    assert (outcome.status, outcome.stage) == ("quarantined", "decode")
    assert re.match(r"damaged after \d+ readable frames: ", outcome.reason)
    assert not layout.video_folder(tmp_path / "store", "v").exists()


def test_a_video_that_breaks_off_is_stored_in_part_where_that_is_welcome(
    one_video: Callable[[], job.Outcome], extraction_settings: ExtractionSettings, tmp_path: Path
) -> None:
    damage(tmp_path / "v.mp4")
    shutil.copy(tmp_path / "v.mp4", tmp_path / "w.mp4")
    synthetic.write_mp4(tmp_path / "whole.mp4", synthetic.video(synthetic.CLASSES[0], 0, 5, 32, 48))
    (tmp_path / "x.mp4").write_bytes(b"")
    refused = one_video().reason
    readable = int(refused.split()[2])
    welcome = replace(extraction_settings, decode=DecodeSettings(accept_partial=True))
    rows = [Video(name, f"{name}.mp4") for name in ("v", "w", "x", "whole")]
    summary = run_here(Manifest(rows, []), tmp_path, tmp_path / "parts", welcome)
    assert (summary.stored, summary.frames) == (3, 2 * readable + 5)
    assert summary.partial == {"v": refused, "w": refused}
    store = open_store(tmp_path / "parts")
    assert store.quarantine == {"x": BROKEN["empty"][1]}
    assert {name: info.partial for name, info in store.infos.items()} == {"v": refused, "w": refused, "whole": ""}
    assert store.info("v").shapes == {"rgb": (readable, 32, 48, 3), "flow": (readable - 1, 2, 32, 48)}
    record = catalogue.read_record(layout.record_path(store.root, "v"))
    assert record is not None
    assert record["partial"] == {"reason": refused, "readable": readable}
    assert not any(found for _, _, found in verify(store))


def test_chosen_frames_and_sizes_are_what_is_stored(
    synthetic_videos: Path, extraction_settings: ExtractionSettings, tmp_path: Path
) -> None:
    views = {"rgb": RgbSettings(size=(32, 80)), "flow": FlowSettings(estimator="dis", size=(96, 64))}
    chosen = ExtractionSettings(views, DecodeSettings(fps=12.5, max_frames=8)).resolved()
    store = extract_here(synthetic_videos, tmp_path / "store", chosen)
    frames = np.concatenate(list(decode(next(synthetic_videos.rglob("*.mp4")))))[:16:2]
    for info in store.infos.values():
        assert info.shapes == {"rgb": (8, 32, 80, 3), "flow": (7, 2, 96, 64)}
        assert (info.fps, info.partial) == (12.5, "")
    assert not any(found for _, _, found in verify(store))
    name = str(next(synthetic_videos.rglob("*.mp4")).relative_to(synthetic_videos).with_suffix(""))
    stored = store.read(next(one for one in store.videos if name.endswith(one)), "rgb", slice(None)).astype(int)
    expected = np.stack([cv2.resize(frame, (80, 32)) for frame in frames])
    assert np.abs(stored - expected).mean() < 6
    again = extract(importers.read("folder", synthetic_videos), synthetic_videos, store.root, chosen, workers=1)
    assert (again.stored, again.skipped) == (0, 12)
    with pytest.raises(Refusal, match="decode.fps: stored 12.5, asked nothing"):
        create_store(store.root, replace(chosen, decode=DecodeSettings(max_frames=8)))


def test_a_file_that_vanishes_meanwhile_is_the_videos_fault(
    one_video: Callable[[], job.Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def vanish(path: Path, guard: object = None) -> None:
        raise FileNotFoundError(2, "No such file or directory", str(path))

    monkeypatch.setattr(storage, "file_digest", vanish)
    outcome = one_video()
    assert (outcome.status, outcome.stage) == ("quarantined", "end")
    assert outcome.reason == "it could not be read to its end: No such file or directory"


def test_doing_a_video_again_sweeps_what_was_left(one_video: Callable[[], job.Outcome], tmp_path: Path) -> None:
    assert one_video().status == "stored"
    before = content(tmp_path / "store")
    folder = layout.video_folder(tmp_path / "store", "v")
    (folder / "zarr.json.partial").write_bytes(b"half")
    (folder / "rgb" / "c" / "0" / "0" / "0" / "0.partial").write_bytes(b"half")
    (folder / "flow" / "c" / "7").mkdir()
    layout.record_path(tmp_path / "store", "v").unlink()
    assert open_store(tmp_path / "store").videos == []
    assert one_video().status == "stored"
    assert content(tmp_path / "store") == before


def test_files_that_are_missing_are_found_before_any_worker_starts(
    tmp_path: Path, extraction_settings: ExtractionSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.extraction import run as running

    monkeypatch.setattr(running, "dispatch", None)
    monkeypatch.setattr(running, "workers_for_extraction", lambda *_: None)
    (tmp_path / "videos").mkdir()
    rows = [Video(f"c/{number}", f"c/{number}.mp4") for number in range(200)]
    summary = extract(Manifest(rows, []), tmp_path / "videos", tmp_path / "store", extraction_settings, workers=1)
    assert summary.quarantined == {row.video_id: "there is no such file" for row in rows}
    assert len(open_store(tmp_path / "store").quarantine) == 200


def test_a_store_with_links_that_lead_nowhere_and_a_very_deep_id_is_listed(
    tmp_path: Path, extraction_settings: ExtractionSettings
) -> None:
    video_id = "/".join(["a"] * 101)
    with pytest.raises(Refusal, match="more than 100 folders"):
        Manifest([Video(f"a/{video_id}", "a.mp4")], [])
    (tmp_path / "videos").mkdir()
    manifest = Manifest([Video(video_id, "a.mp4")], [])
    extract(manifest, tmp_path / "videos", tmp_path / "store", extraction_settings, workers=1)
    (tmp_path / "store" / "videos").mkdir(exist_ok=True)
    (tmp_path / "store" / "videos" / "dangling").symlink_to(tmp_path / "nowhere")
    opened = open_store(tmp_path / "store")
    assert list(opened.quarantine) == [video_id]
    assert len(opened.videos) == 0
