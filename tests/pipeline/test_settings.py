"""Extraction settings: checked, spelled out, told apart."""

from __future__ import annotations

import json

import pytest

from pipeline.errors import UsageError
from pipeline.flow import create
from pipeline.store.settings import ExtractionSettings, differences, settings_hash
from pipeline.video.decode import DecodeSettings
from pipeline.views.flow import FlowSettings
from pipeline.views.rgb import RgbSettings


def settings(**flow: object) -> ExtractionSettings:
    return ExtractionSettings({"rgb": RgbSettings(), "flow": FlowSettings(**flow)})  # type: ignore[arg-type]


def test_resolving_spells_every_choice_out() -> None:
    resolved = settings(estimator="tvl1").resolved().as_dict()
    assert resolved["flow"]["estimator"] == create("tvl1").name != "tvl1"
    assert resolved["flow"]["parameters"]["warps"] == 5
    assert settings(estimator="tvl1").resolved() == settings(estimator=create("tvl1").name).resolved()
    assert settings(estimator="dis").resolved().resolved() == settings(estimator="dis").resolved()


def test_settings_survive_their_file() -> None:
    resolved = settings(estimator="dis", parameters={"preset": "fast"}, bound=15.0).resolved()
    stored = json.loads(json.dumps(resolved.as_dict()))
    assert ExtractionSettings.from_dict(stored) == resolved
    assert settings_hash(stored) == settings_hash(resolved.as_dict())


def test_the_hash_does_not_depend_on_the_order_of_keys() -> None:
    resolved = settings(estimator="dis").resolved().as_dict()
    shuffled = {name: dict(reversed(list(values.items()))) for name, values in reversed(list(resolved.items()))}
    assert settings_hash(shuffled) == settings_hash(resolved)
    assert settings_hash({**resolved, "rgb": {**resolved["rgb"], "quality": 94}}) != settings_hash(resolved)


def test_choices_that_came_later_leave_older_stores_as_they_are() -> None:
    older = {
        "rgb": {"short_side": 256, "quality": 95, "chroma": "4:2:0"},
        "flow": {"estimator": "dis", "parameters": {"preset": "medium"}, "short_side": 256, "bound": 20.0}
        | {"mapping": "linear", "codec": "jpeg", "quality": 95},
    }
    assert settings(estimator="dis").resolved().as_dict() == older
    assert ExtractionSettings.from_dict(older) == settings(estimator="dis").resolved()
    assert settings_hash(older) == "4fc87f5729fefe25"  # as computed before there were such choices


@pytest.mark.parametrize(
    ("estimator", "hashed"),
    [
        ("tvl1-cpu", "d3f67292caf6150e"),
        ("tvl1-opencv", "41f9b67a28002627"),
        ("farneback", "e251ac6b56c61ef1"),
        ("dis", "4fc87f5729fefe25"),
    ],
)
def test_stores_from_before_settings_were_told_from_ways_to_run_are_continued(estimator: str, hashed: str) -> None:
    resolved = settings(estimator=estimator).resolved()
    assert settings_hash(resolved.as_dict()) == hashed
    assert create(estimator).running == {}


def test_where_and_how_flow_is_computed_is_no_part_of_a_store() -> None:
    here, elsewhere = (settings(estimator="tvl1-torch", parameters={"device": name}) for name in ("cpu", "cpu:0"))
    assert here.resolved().as_dict() == elsewhere.resolved().as_dict()
    assert "device" not in here.resolved().as_dict()["flow"]["parameters"]
    sent = json.loads(json.dumps(elsewhere.resolved().as_dict(running=True)))  # as a worker gets it
    assert ExtractionSettings.from_dict(sent) == elsewhere.resolved() == elsewhere.resolved().resolved()
    assert sent["flow"]["running"] == {"device": "cpu:0"}


def test_chosen_frames_and_sizes_are_recorded() -> None:
    views = {"rgb": RgbSettings(size=(128, 171)), "flow": FlowSettings(estimator="dis", size=(64, 86))}
    chosen = ExtractionSettings(views, DecodeSettings(fps=25, max_frames=300)).resolved()
    stored = json.loads(json.dumps(chosen.as_dict()))
    assert stored["decode"] == {"fps": 25.0, "max_frames": 300}
    assert (stored["rgb"]["size"], stored["rgb"]["short_side"]) == ([128, 171], 0)
    assert stored == chosen.as_dict()
    assert ExtractionSettings.from_dict(stored) == chosen == chosen.resolved()
    assert "decode" in ExtractionSettings(views, DecodeSettings(accept_partial=True)).as_dict()


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (DecodeSettings(fps=0.0), "fps 0.0"),
        (DecodeSettings(fps=-1.0), "fps -1.0"),
        (DecodeSettings(fps=1e308), "0.001 to 1,000"),
        (DecodeSettings(fps=float("nan")), "fps nan"),
        (DecodeSettings(fps=float("inf")), "fps inf"),
        (DecodeSettings(max_frames=0), "max_frames 0"),
    ],
)
def test_frames_that_cannot_be_meant_are_refused(chosen: DecodeSettings, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ExtractionSettings({"rgb": RgbSettings()}, chosen).resolved()


def test_differences_are_told_field_by_field() -> None:
    stored = settings(estimator="dis").resolved().as_dict()
    asked = ExtractionSettings({"rgb": RgbSettings(quality=80)}).resolved().as_dict()
    assert differences(stored, stored) == []
    found = differences(stored, asked)
    assert "rgb.quality: stored 95, asked 80" in found
    assert any(line.startswith("flow: stored {") and line.endswith("asked nothing") for line in found)
    finer = settings(estimator="dis", parameters={"preset": "fast"}).resolved().as_dict()
    assert differences(stored, finer) == ['flow.parameters.preset: stored "medium", asked "fast"']


@pytest.mark.parametrize(
    ("views", "message"),
    [
        ({}, "no view is to be stored"),
        ({"rgb": RgbSettings(quality=0)}, "quality 0"),
        ({"rgb": RgbSettings(quality=101)}, "quality 101"),
        ({"rgb": RgbSettings(chroma="4:1:1")}, "'4:1:1' is unknown"),  # type: ignore[arg-type]
        ({"rgb": RgbSettings(short_side=15)}, "short_side 15"),
        ({"rgb": RgbSettings(short_side=-1)}, "short_side -1"),
        ({"rgb": RgbSettings(size=(15, 20))}, "size 15 is out of range"),
        ({"rgb": RgbSettings(size=(-1, 20))}, "size -1 is out of range"),
        ({"rgb": RgbSettings(size=(64, 64), short_side=64)}, "rgb size 64 x 64 and rgb short side 64 contradict"),
        ({"rgb": RgbSettings(), "flow": FlowSettings(size=(64, 64), short_side=64)}, "flow short side 64 contradict"),
        ({"rgb": RgbSettings(), "flow": FlowSettings(bound=0.0)}, "bound 0.0"),
        ({"rgb": RgbSettings(), "flow": FlowSettings(bound=float("nan"))}, "bound nan"),
        ({"rgb": RgbSettings(), "flow": FlowSettings(estimator="tvl2")}, 'did you mean "tvl1"'),
        ({"rgb": RgbSettings(), "flow": FlowSettings(parameters={"wraps": 3})}, "wraps"),
        ({"rgb": RgbSettings(), "flow": FlowSettings(estimator="dis", parameters={"preset": "best"})}, "'best'"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(views: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ExtractionSettings(views).resolved()
