"""Result records: validation, order, atomic writing; and the quoted numbers of the papers."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from rich.status import Status

from eval import evaluate, results
from eval.results import Record
from pipeline.errors import Refusal
from pipeline.terminal import Terminal

RECORD = Record(
    metric="R@1",
    value=0.5,
    protocol="clean",
    stream="rgb",
    network="trained",
    stage="infonce-rgb",
    split="test",
    data="demo",
    checkpoint="ab",
    annotations="extraction 01",
    chance=0.1,
)


def test_records_survive_a_file_and_are_sorted_by_meaning(tmp_path: Path) -> None:
    records = [
        dataclasses.replace(RECORD, metric=m, network=n)
        for n in ("untrained", "trained")
        for m in ("R@10", "linear_top1", "R@5", "R@1")
    ]
    path = tmp_path / "run" / "results.json"
    results.write(path, records)
    first = path.read_bytes()
    results.write(path, reversed(records))
    assert path.read_bytes() == first
    assert [(r.network, r.metric) for r in results.read(path)] == [
        (n, m) for n in ("trained", "untrained") for m in ("R@1", "R@5", "R@10", "linear_top1")
    ]
    assert [p.name for p in path.parent.iterdir()] == ["results.json"]
    assert set(json.loads(first)[0]) == {f.name for f in dataclasses.fields(Record)}


@pytest.mark.parametrize(
    "change",
    [
        {"value": 1.2},
        {"value": -0.1},
        {"value": float("nan")},
        {"value": True},
        {"value": "0.5"},
        {"chance": 10.0},
        {"published": 33.1},
        {"network": "best"},
        {"stream": ""},
        {"stage": None},
    ],
    ids=str,
)
def test_a_record_fails(change: dict) -> None:
    with pytest.raises(Refusal):
        dataclasses.replace(RECORD, **change)


def test_evaluations_that_end_at_once_write_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the reading to the writing of what all of them measured nobody else does either."""
    write, turns = results.write, []

    def in_turn(path: Path, records: Iterable[Record]) -> None:
        with open(tmp_path / results.TURN) as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        turns.append(path)
        write(path, records)

    sets = ("one 1", "two 2")
    write(tmp_path / "results.json", [dataclasses.replace(RECORD, annotations=name) for name in sets])
    monkeypatch.setattr(results, "write", in_turn)
    monkeypatch.setattr(evaluate, "data_of", lambda _: RECORD.data)
    evaluate.add_means(tmp_path, None, ["one", "two"])  # type: ignore[arg-type]  # of the store the name alone counts
    assert turns == [tmp_path / "results.json"]
    with open(tmp_path / results.TURN) as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_an_evaluation_says_that_it_waits_for_another(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with results.in_turn(tmp_path):
        pass
    assert not capsys.readouterr().err
    written, waiting, ended = threading.Event(), threading.Event(), []

    def other() -> None:
        with results.in_turn(tmp_path):
            waiting.set()
            assert written.wait(60)
            ended.append("other")

    with ThreadPoolExecutor(1) as pool, pytest.MonkeyPatch.context() as patch:
        holding = pool.submit(other)
        assert waiting.wait(60)
        told = Terminal.status

        def status(self: Terminal, *said: Any) -> Status:
            written.set()
            return told(self, *said)

        patch.setattr(Terminal, "status", status)
        with results.in_turn(tmp_path):
            ended.append("this one")
        holding.result()
    assert ended == ["other", "this one"]
    assert "waiting for another evaluation of this run" in capsys.readouterr().err


def test_two_results_for_one_measurement_fail_and_leave_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    results.write(path, [RECORD])
    before = path.read_bytes()
    with pytest.raises(Refusal, match="two results"):
        results.write(path, [RECORD, dataclasses.replace(RECORD, value=0.7)])
    assert path.read_bytes() == before


@pytest.mark.parametrize("text", ["", "{", "[]", "[1]", '[{"metric": "R@1"}]', '[{"colour": 1}]'])
def test_a_damaged_file_fails_with_its_path(tmp_path: Path, text: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(Refusal, match=r"results\.json"):
        results.read(path)


def test_a_value_out_of_range_in_a_file_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps([dataclasses.asdict(RECORD) | {"value": 50}]))
    with pytest.raises(Refusal, match=r"results\.json"):
        results.read(path)


def test_no_file_fails(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="no results"):
        results.read(tmp_path / "results.json")
