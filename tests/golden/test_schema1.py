"""A store of schema version 1, made once by `make.py`, stays readable: its listing, streams, pixels and flow; verify
passes."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr

from pipeline import environment, storage
from pipeline.errors import Refusal
from pipeline.extraction.run import extract
from pipeline.importers import folder
from pipeline.store import VideoInfo, VideoStore, annotation, layout, open_store
from pipeline.store.annotation import AnnotationSet, Said
from pipeline.store.settings import ExtractionSettings
from pipeline.store.verify import verify
from tests.pipeline.reference import content, run_here

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
        digest="692b4d3eeba240486da5a9722938ba9f",
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
        digest="0cd582fae74ad61c5ed584bf7905ba3b",
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


def test_a_label_that_is_not_in_its_class_list_is_found(store: VideoStore, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(store.root, tmp_path / "store"))
    layout.classes_path(copied).write_text("jump\n")
    layout.classes_digest_path(copied).unlink()
    assert [item.what for _, _, found in verify(open_store(copied)) for item in found] == [
        "its label 'walk' is not in classes.txt"
    ]


@pytest.fixture
def own(store: VideoStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy to write into, with the software that it was made with."""
    monkeypatch.setattr(environment, "versions", lambda: store.software)
    return Path(shutil.copytree(store.root, tmp_path / "store"))


def test_a_changed_label_is_written_beside_what_is_there(store: VideoStore, own: Path) -> None:
    """And then the store is one of the present schema: what its records say of labels counts no longer."""
    listed, settings = folder.read(GOLDEN / "videos"), ExtractionSettings.from_dict(store.settings)
    rows = [replace(row, label="jump", split="test") if row.video_id == "walk/a [1]" else row for row in listed.rows]
    run_here(replace(listed, rows=rows), GOLDEN / "videos", own, settings)
    opened = open_store(own)
    assert opened.infos == {
        **INFOS,
        "walk/a [1]": replace(INFOS["walk/a [1]"], label="jump", split="test"),
    }
    assert opened.classes == ["walk", "jump", "of no video"]
    assert opened.schema == layout.SCHEMA
    assert not any(found for _, _, found in verify(opened))


def test_a_set_beside_the_one_in_its_records_is_used_where_it_is_named(own: Path) -> None:
    annotation.save(own, "others", AnnotationSet(["x"], {"jump/b": Said("x", "r", "train"), "gone": Said()}))
    assert open_store(own).infos == INFOS
    named = open_store(own, "others")
    assert (named.info("jump/b").label, named.info("jump/b").source, named.info("jump/b").split) == ("x", "r", "train")
    assert (named.info("walk/a [1]").label, named.info("walk/a [1]").source) == ("", "walk/a [1]")
    assert (named.annotated.absent, named.annotated.left_out) == (1, 1)
