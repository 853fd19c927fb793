"""Streams in words and in order, with one that no module of the product names; any number of them is fused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from eval import filmstrips, streams
from pipeline.importers import folder
from pipeline.store import open_store
from pipeline.store.settings import ExtractionSettings
from pipeline.views import VIEWS
from pipeline.views.rgb import RgbSettings
from tests.faults import small
from tests.pipeline.reference import run_here
from tests.toy_view import TOY, ToySettings


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(VIEWS, "toy", TOY)


def test_words_are_those_of_the_views() -> None:
    names = ["rgb", "two-stream", "toy", "flow", "mixed"]
    assert streams.in_order(names) == ["flow", "mixed", "rgb", "toy", "two-stream"]
    assert streams.fused_in_order(["toy", "mixed", "flow", "rgb"]) == ["rgb", "flow", "toy", "mixed"]
    assert [streams.in_words(name) for name in names] == [
        "RGB frames",
        "both streams together",
        "toy planes",
        "motion (optical flow)",
        "mixed",
    ]
    assert (streams.together(2), streams.together(3)) == ("two-stream", "all streams")


def test_a_picture_shows_the_view_of_its_stream_below_the_frames(tmp_path: Path) -> None:
    videos = small.make(tmp_path / "videos")
    settings = ExtractionSettings({"rgb": RgbSettings(short_side=0), "toy": ToySettings()}).resolved()
    listed = folder.read(videos)
    run_here(
        replace(listed, rows=[row for row in listed.rows if row.video_id == "walk/a"]), videos, tmp_path / "s", settings
    )
    store = open_store(tmp_path / "s")
    heights = [filmstrips.picture(store, "walk/a", stream, 2).height for stream in ("rgb", "toy", "mixed")]
    assert heights == [16, 32, 16]
