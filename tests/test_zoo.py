"""Odd and broken videos as people have them: each is stored whole, or refused with a reason, and nothing hangs."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from pipeline import importers
from pipeline.extraction.run import extract
from pipeline.manifest import Manifest
from pipeline.store import VideoStore, open_store
from pipeline.store.settings import ExtractionSettings
from pipeline.store.verify import verify
from pipeline.video.decode import Undecodable, decode
from pipeline.views.flow import FlowSettings
from pipeline.views.rgb import RgbSettings
from tests.pipeline import ffmpeg

pytestmark = pytest.mark.slow

# Whole for a player, but not for us: files that end before the duration that they declare.
CUT_OFF = {"made/truncated.mkv"}
SHORT = 48  # pixels of the shorter side, so that it takes seconds


@pytest.fixture(scope="module")
def zoo(shared: Path) -> list[dict[str, str]]:
    """The files, with what another reader makes of each."""
    with open(shared / "data" / "zoo" / "manifest.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def listed(shared: Path) -> Manifest:
    return importers.read("folder", shared / "data" / "zoo")


@pytest.fixture(scope="module")
def store(shared: Path, listed: Manifest, tmp_path_factory: pytest.TempPathFactory) -> VideoStore:
    """All of them, small."""
    path = tmp_path_factory.mktemp("zoo") / "store"
    views = {"rgb": RgbSettings(short_side=SHORT), "flow": FlowSettings(estimator="dis", short_side=SHORT)}
    extract(listed, shared / "data" / "zoo", path, ExtractionSettings(views), workers=2)
    return open_store(path)


def test_every_file_is_stored_with_all_its_frames_or_refused(
    store: VideoStore, zoo: list[dict[str, str]], listed: Manifest
) -> None:
    ids = {row.path: row.video_id for row in listed.rows}
    found = {row["path"]: store.infos[i].length if (i := ids.get(row["path"])) in store.infos else 0 for row in zoo}
    refused = {row["path"] for row in zoo if row["pyav_error"] or row["path"] in CUT_OFF}
    assert found == {row["path"]: 0 if row["path"] in refused else int(row["pyav_frames"]) for row in zoo}
    assert {path for path, frames in found.items() if not frames} == refused
    no_videos = {path for path in refused if path not in ids}
    assert all(any(Path(path).suffix in note for note in listed.notes) for path in no_videos)  # left out, and told
    assert {ids[path] for path in refused - no_videos} <= set(store.quarantine)
    assert set(store.videos) | set(store.quarantine) == {row.video_id for row in listed.rows}
    assert not any(damage for _, _, damage in verify(store))


def test_every_reason_is_a_sentence_for_people(store: VideoStore) -> None:
    for reason in store.quarantine.values():
        assert reason.startswith(("it ", "the file ", "cut off: ", "damaged after ")), reason


def test_rotated_videos_stand_upright(store: VideoStore, zoo: list[dict[str, str]], listed: Manifest) -> None:
    ids = {row.path: row.video_id for row in listed.rows}
    for row in zoo:
        if ids.get(row["path"]) in store.infos:
            width, height = int(row["width"]), int(row["height"])
            if row["rotation"] in ("90", "-90"):
                width, height = height, width
            scale = min(1.0, SHORT / min(width, height))
            info = store.info(ids[row["path"]])
            assert (info.width, info.height) == (round(width * scale), round(height * scale)), row["path"]


def test_turned_videos_show_what_the_unturned_ones_show(store: VideoStore) -> None:
    upright = store.read("made/bframes_open_gop", "rgb", slice(None)).astype(int)
    for name, turns in (("made/rot_90", 1), ("made/rot_180", 2)):  # quarters, counterclockwise
        turned = store.read(name, "rgb", slice(None)).astype(int)
        assert np.abs(np.rot90(turned, -turns, axes=(1, 2)) - upright).mean() < 5, name


def test_every_frame_is_what_ffmpeg_gives(shared: Path, zoo: list[dict[str, str]]) -> None:
    compared = 0
    for row in zoo:
        path = shared / "data" / "zoo" / row["path"]
        try:
            frames = np.concatenate(list(decode(path)))
        except Undecodable:
            continue  # which ones may be refused is the business of the first test
        reference = ffmpeg.frames(path)
        assert len(frames) == len(reference), path
        assert all(np.array_equal(ours, theirs) for ours, theirs in zip(frames, reference, strict=True)), path
        compared += 1
    assert compared > 50
