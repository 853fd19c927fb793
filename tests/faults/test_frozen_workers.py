"""Workers that stand still are told and ended from outside, and their videos are done by others or blamed."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import dask
import pytest

from pipeline.errors import Refusal
from pipeline.extraction.journal import Summary
from pipeline.extraction.run import extract
from pipeline.extraction.workers.silence import Limits, Silence
from pipeline.importers import folder
from pipeline.store import open_store
from tests.faults import small
from tests.faults.processes import SETTINGS, running, wait_for
from tests.pipeline.reference import content

BRIEF = Limits(told=1.0, ended=2.0)


@pytest.fixture
def gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    path = tmp_path / "gate"
    path.mkdir()
    monkeypatch.setenv("GATE", str(path))
    preload = {"distributed.worker.preload": [str(Path(__file__).with_name("gate.py"))]}
    monkeypatch.setenv("DASK_DISTRIBUTED__WORKER__PRELOAD", json.dumps(list(preload.values())[0]))
    with dask.config.set(preload):
        yield path


@pytest.mark.slow
def test_a_frozen_worker_is_told_and_ended_and_its_video_done_by_another(
    eight: Path,
    undisturbed: dict[str, bytes],
    tmp_path: Path,
    gate: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.setenv("GATE_VIDEO", "long")
    frozen = []

    def freeze() -> None:
        wait_for(lambda: list(gate.glob("held.*")), "a worker at the gate")
        frozen.append(int(next(gate.glob("held.*")).suffix[1:]))
        os.kill(frozen[0], signal.SIGSTOP)
        (gate / "open").touch()

    freezing = threading.Thread(target=freeze)
    freezing.start()
    summary = extract(folder.read(eight), eight, tmp_path / "store", SETTINGS, workers=2, limits=BRIEF)
    freezing.join()
    assert summary.stored == 8
    assert content(tmp_path / "store") == undisturbed
    assert not running(frozen[0])
    told = capsys.readouterr().err.replace("\n", " ")
    assert "s: its process stands still, or a disk that it waits for; after 2 s it is ended" in told
    assert "it is ended, and its video done again" in told


@pytest.mark.slow
def test_a_worker_that_should_have_ended_itself_is_ended_and_its_video_blamed(
    tmp_path: Path, gate: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("HANGING_VIDEOS", "a")
    monkeypatch.setenv("DEAF", "1")
    videos = small.make(tmp_path / "videos")
    (videos / "jump" / "broken.mp4").unlink()

    def extracted() -> Summary:
        manifest = folder.read(videos)
        return extract(manifest, videos, tmp_path / "store", small.SMALL, workers=2, time_limit=1, limits=BRIEF)

    summary = extracted()
    assert summary.stored == 2
    assert "the worker process died, twice" in summary.quarantined["walk/a"]
    assert open_store(tmp_path / "store").videos == ["jump/c", "walk/b"]
    told = capsys.readouterr().err.replace("\n", " ")
    assert "s for the next frame of its video; after 1 s the video lands in quarantine" in told


def test_what_stands_still_is_told_once_and_ended_once() -> None:
    now = 0.0
    silence = Silence(Limits(10, 60), 600, lambda: now)

    def found(**workers: tuple[float, float]) -> list[tuple[str, bool]]:
        shown = {
            name: {"name": name, "last_seen": sign, "metrics": {"reads": waits}}
            for name, (sign, waits) in workers.items()
        }
        return [(one.address, one.ends) for one in silence.of(shown)]

    assert found(a=(1e9, 0), b=(-5, 0)) == []
    now = 11
    assert found(a=(1e9, 0), b=(-4, 0)) == [("a", False)]
    now = 12
    assert found(a=(1e9, 0), b=(-4, 0)) == []
    now = 61
    assert found(a=(1e9, 0), b=(-3, 0)) == [("a", True)]
    assert found(a=(1e9, 0), b=(-3, 0)) == []
    assert found(a=(1, 0), b=(-2, 0)) == []  # whichever way a clock was set
    now = 72
    assert found(a=(1, 0), b=(-1, 0)) == [("a", False)]
    assert found(b=(0, 11)) == [("b", False)]  # it lives, and waits for a frame
    assert found(b=(1, 599)) == []
    assert found(b=(2, 731)) == [("b", True)]
    assert found(b=(3, 0)) == []
    assert found(b=(4, 12)) == [("b", False)]


def test_a_store_that_takes_nothing_is_told_and_its_worker_ended_after_the_time_limit() -> None:
    silence = Silence(Limits(10, 60), 600, lambda: 0.0)

    def found(sign: int, writes: float) -> list[tuple[str, bool, float]]:
        worker = {"name": "a", "last_seen": sign, "metrics": {"reads": 1.0, "writes": writes}}
        return [(one.says.partition(") ")[2], one.ends, one.writes) for one in silence.of({"a": worker})]

    waited = "has waited {} s for the store to take what it writes; {}"
    assert found(0, 9) == []
    assert found(1, 11) == [(waited.format(11, "after 730 s it is ended, and its video done again"), False, 11)]
    assert found(2, 700) == []  # flushing takes as long as others write
    assert found(3, 731) == [(waited.format(731, "it is ended, and its video done again"), True, 731)]


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 2])
def test_a_write_that_hangs_is_done_by_another_worker_or_ends_the_run(
    eight: Path,
    undisturbed: dict[str, bytes],
    tmp_path: Path,
    gate: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    times: int,
) -> None:
    monkeypatch.setenv("HANGING_WRITES", f"long {times}")

    def extracted() -> Summary:
        return extract(folder.read(eight), eight, tmp_path / "store", SETTINGS, 2, time_limit=1, limits=BRIEF)

    if times == 1:
        extracted()
    else:
        with pytest.raises(Refusal, match="stopped at video '.*long': the store took nothing that was written for"):
            extracted()
        monkeypatch.delenv("HANGING_WRITES")
        extracted()
    assert content(tmp_path / "store") == undisturbed
    told = capsys.readouterr().err.replace("\n", " ")
    assert "s for the store to take what it writes; after 2.2 s it is ended, and its video done again" in told
