"""A store of schema version 1, made once by `make.py`, stays readable: its listing, streams, pixels and flow; verify passes."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr

from pipeline import environment, storage
from pipeline.errors import Refusal
from pipeline.extraction.run import extract
from pipeline.importers import folder
from pipeline.store import VideoInfo, VideoStore, layout, open_store
from pipeline.store.settings import ExtractionSettings
from pipeline.store.verify import verify
from tests.pipeline.reference import content

GOLDEN = Path(__file__).with_name("schema1")
INFOS = {
    "jump/b": VideoInfo(
        length=3,
        height=24,
        width=32,
        fps=25.0,
        label="jump",
        source="jump/b",
        split="",
        shapes={"rgb": (3, 24, 32, 3), "flow": (2, 2, 24, 32)},
        cuts=(),
        digest="692b4d3eeba240486da5a9722938ba9f684a14553671ab7cb50cba7fb202062f",
    ),
    "walk/a [1]": VideoInfo(
        length=4,
        height=24,
        width=32,
        fps=25.0,
        label="walk",
        source="walk/a [1]",
        split="",
        shapes={"rgb": (4, 24, 32, 3), "flow": (3, 2, 24, 32)},
        cuts=(),
        digest="0cd582fae74ad61c5ed584bf7905ba3b79dd9cd2fd5031e7bb619cb227a13b2a",
    ),
}
STREAMS = {
    ("jump/b", "rgb"): ["3a4ee1bae5ffecd5", "6eee9800dd2e6cda", "219395f84c1ce3f9"],
    ("jump/b", "flow"): ["8903a64f32a04649", "7e9a7c0db9fef5f6"],
    ("walk/a [1]", "rgb"): ["9e29447fabaaa468", "d3add082c02c3177", "8f02056481cd225b", "280be40028f5398f"],
    ("walk/a [1]", "flow"): ["05f2419afba8bfbd", "508ee8d240b61e1f", "b442c11dc8b22f15"],
}


@pytest.fixture(scope="module")
def store() -> VideoStore:
    return open_store(GOLDEN / "store")


def test_the_listing_is_what_was_written(store: VideoStore) -> None:
    assert store.infos == INFOS
    assert store.classes == ["walk", "jump", "of no video"]
    assert list(store.quarantine) == ["jump/broken"]
    assert store.quarantine["jump/broken"].startswith("it cannot be opened as a video")
    assert store.settings["flow"]["estimator"] == "dis"
    assert store.software["costream"]
    assert not any(found for _, _, found in verify(store))


def test_the_listing_does_not_need_the_catalogue(store: VideoStore, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(store.root, tmp_path / "store"))
    layout.catalogue_path(copied).unlink()
    assert open_store(copied).infos == INFOS


@pytest.mark.parametrize(("video_id", "view"), STREAMS)
def test_streams_are_what_was_written_and_decode_to_the_same_pixels(
    store: VideoStore, video_id: str, view: str
) -> None:
    streams = store.encoded(video_id, view, slice(None))
    assert [storage.digest(stream.tobytes())[:16] for stream in streams] == STREAMS[video_id, view]
    with np.load(GOLDEN / "expected.npz") as expected:
        pixels = expected[f"{video_id}:{view}"].astype(int)
    found = store.read(video_id, view, slice(None)).astype(int)
    assert np.abs(found - pixels).max() <= 1  # decoders of JPEG may round in other ways
    anybody = zarr.open_array(store.path(video_id, view), mode="r")
    assert np.array_equal(anybody[:], found)
    if view == "flow":
        assert np.allclose(store.flow(video_id, slice(None)), found * (40 / 255) - 20, atol=1e-5)


def test_extraction_of_today_is_refused_only_for_its_software(
    store: VideoStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = Path(shutil.copytree(store.root, tmp_path / "store"))
    settings = ExtractionSettings.from_dict(store.settings)
    listed = folder.read(GOLDEN / "videos")
    try:
        extract(listed, GOLDEN / "videos", copied, settings, workers=1)
    except Refusal as refusal:
        for line in refusal.what.splitlines()[1:]:
            assert line.strip().startswith("software.")
    monkeypatch.setattr(environment, "versions", lambda: store.software)
    summary = extract(listed, GOLDEN / "videos", copied, settings, workers=1)
    assert (summary.stored, summary.skipped, summary.in_quarantine) == (0, 2, 1)
    assert (
        content(copied).items()
        >= {name: data for name, data in content(store.root).items() if name != "catalogue.parquet"}.items()
    )
