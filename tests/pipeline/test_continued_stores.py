"""A store is continued with the settings that it has; what contradicts them is refused."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.commands import console
from pipeline.store import VideoStore
from pipeline.store.settings import ExtractionSettings
from pipeline.video.decode import DecodeSettings
from pipeline.views.flow import IMPORTED, FlowSettings
from pipeline.views.rgb import RgbSettings

Run = Callable[..., tuple[int, str, str]]
STORED = ExtractionSettings(
    {"rgb": RgbSettings(short_side=48, quality=80), "flow": FlowSettings(estimator="dis", bound=15.0)},
    DecodeSettings(max_frames=9),
).resolved()
USUAL = {"rgb": RgbSettings(), "flow": FlowSettings()}


def continuing(given: dict, **options: RgbSettings | FlowSettings) -> ExtractionSettings:
    return ExtractionSettings({**USUAL, **options}).continuing(STORED.as_dict(), given).resolved()


def test_what_is_not_given_is_the_stores() -> None:
    assert continuing({}).as_dict() == STORED.as_dict()
    assert continuing({"store": 1, "workers": 1}).as_dict() == STORED.as_dict()


def test_what_is_given_is_meant_also_where_it_is_the_default() -> None:
    found = continuing({"rgb.quality", "flow.bound"}).as_dict()
    assert (found["rgb"]["quality"], found["flow"]["bound"]) == (RgbSettings().quality, 20.0)
    assert (found["rgb"]["short_side"], found["flow"]["estimator"]) == (48, "dis")


def test_an_exact_size_takes_the_place_of_a_short_side() -> None:
    found = continuing({"rgb.size"}, rgb=RgbSettings(size=(40, 60))).as_dict()["rgb"]
    assert (found["size"], found["short_side"]) == ([40, 60], 0)


def test_another_estimator_brings_its_own_parameters() -> None:
    same = continuing({"flow.estimator"}, flow=FlowSettings(estimator="dis")).as_dict()
    assert same == STORED.as_dict()
    found = continuing({"flow.estimator"}, flow=FlowSettings(estimator="farneback")).as_dict()["flow"]
    assert found["parameters"] == FlowSettings(estimator="farneback").resolved().parameters
    assert found["bound"] == 15.0


def test_what_was_brought_is_not_continued_by_extraction() -> None:
    brought = STORED.as_dict() | {"flow": STORED.as_dict()["flow"] | {"estimator": IMPORTED, "parameters": {}}}
    found = ExtractionSettings(dict(USUAL)).continuing(brought, set())
    assert found.views["flow"] == USUAL["flow"]


def test_a_command_is_told_which_options_its_line_has(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[frozenset[str]] = []

    def command(rgb: RgbSettings = RgbSettings(), count: int = 1, given: frozenset[str] = frozenset()) -> None:  # noqa: B008
        taken.append(given)

    vars(command)[console.TOLD_GIVEN] = True
    for words in ([], ["--rgb.quality", "95", "--count=1"]):
        monkeypatch.setattr(sys, "argv", ["pipeline", "extract", *words])
        assert console.main({"extract": command}, "", "pipeline") == 0
    assert taken == [frozenset(), {"rgb.quality", "count"}]


def test_the_command_goes_on_with_a_stores_own_settings(
    run: Run, synthetic_videos: Path, synthetic_store: VideoStore, tmp_path: Path
) -> None:
    store = shutil.copytree(synthetic_store.root, tmp_path / "store")
    again = ("extract", "--videos", synthetic_videos, "--dataset", "synthetic", "--store", store)
    code, out, err = run(*again)
    assert (code, "12 were there already" in out) == (0, True), err
    code, _, err = run(*again, "--rgb.quality", "95")
    assert code == 1
    assert "rgb.quality: stored 90, asked 95" in err and "flow." not in err


@pytest.mark.parametrize(
    ("what", "lines"),
    [
        ("splits", ["test\t3", "train\t9"]),
        ("classes", ["{0}\t4", "{1}\t4", "{2}\t4"]),
        ("quarantine", []),
    ],
)
def test_status_lists_what_is_asked_for(run: Run, synthetic_store: VideoStore, what: str, lines: list[str]) -> None:
    code, out, _ = run("status", "--store", synthetic_store.root, "--show", what)
    assert (code, out.split()) == (0, " ".join(lines).format(*synthetic_store.classes).split())


def test_status_lists_every_video(run: Run, synthetic_store: VideoStore) -> None:
    _, out, _ = run("status", "--store", synthetic_store.root, "--show", "videos")
    infos = {video: synthetic_store.info(video) for video in synthetic_store.videos}
    wanted = "".join(f"{video}\t{one.length}\t{one.label}\t{one.split} " for video, one in infos.items())
    assert out == wanted
    assert run("status", "--store", synthetic_store.root, "--show", "vidoes")[0] == 2
