"""Whether training helped, stream by stream and measure by measure, is told with its error."""

from __future__ import annotations

import math

import pytest

from eval.report.verdicts import Verdict, disagreements, headline, sentences, sheet, standard_error, verdicts
from eval.results import Record

ORDER = ["flow", "rgb", "coclr-rgb"]


def record(stream: str, stage: str, network: str, metric: str, value: float) -> Record:
    return Record(metric, value, "clean", stream, network, stage, "test", "tiny", "c", "a", 0.1)


def both(stream: str, stage: str, metric: str, before: float, after: float) -> list[Record]:
    return [record(stream, stage, "untrained", metric, before), record(stream, stage, "trained", metric, after)]


MEASURED = [
    *both("flow", "flow", "R@1", 0.9, 0.7),
    *both("flow", "flow", "linear_top1", 0.9, 0.92),
    *both("rgb", "rgb", "R@1", 0.16, 0.18),
    *both("rgb", "coclr-rgb", "R@1", 0.16, 0.45),
    *both("rgb", "coclr-rgb", "linear_top1", 0.3, 0.5),
    *both("two-stream", "coclr-rgb+flow", "R@1", 0.6, 0.8),
]


def test_each_stream_is_judged_by_its_last_stage_and_both_measures() -> None:
    made = verdicts(MEASURED, ORDER, 300)
    told = [(one.stream, one.stage, one.measure, one.direction) for one in made]
    assert told == [
        ("flow", "flow", "R@1", -1),
        ("flow", "flow", "linear_top1", 0),
        ("rgb", "coclr-rgb", "R@1", 1),
        ("rgb", "coclr-rgb", "linear_top1", 1),
        ("two-stream", "coclr-rgb+flow", "R@1", 1),
    ]
    rgb = made[2]
    assert rgb.gain == pytest.approx(0.29)
    assert rgb.error == pytest.approx(math.sqrt(0.45 * 0.55 / 300 + 0.16 * 0.84 / 300))
    assert standard_error(0.5, 100) == 0.05


def test_verdicts_are_told_in_sentences() -> None:
    told = sentences(verdicts(MEASURED, ORDER, 300))
    assert told[2] == "rgb, R@1: gained, +29.0 ± 3.6 points (16.0 % untrained, 45.0 % trained)"


def test_few_videos_tell_nothing() -> None:
    assert {one.direction for one in verdicts(MEASURED, ORDER, 4)} == {0}


def test_the_headline_is_the_stage_that_was_trained_last() -> None:
    assert headline(verdicts(MEASURED, ORDER, 300), ORDER).stage == "coclr-rgb"
    two = [*both("flow", "both", "R@1", 0.1, 0.5), *both("rgb", "both", "R@1", 0.1, 0.2)]
    assert headline(verdicts(two, ["both"], 300), ["both"]).stream == "flow"


def test_measures_that_say_different_things_are_named() -> None:
    (said,) = disagreements(verdicts(MEASURED, ORDER, 300))
    assert said == (
        "By motion (optical flow) the measures say different things: R@1 lost, linear shows no sure difference."
    )


def test_the_table_says_gain_and_error_in_points() -> None:
    made = sheet([Verdict("rgb", "rgb", "R@1", 0.5, 0.25, 0.03, 1)])
    assert made.table.rows == [["rgb", "rgb", "R@1", 25.0, 50.0, "+25.0 ± 3.0", "gained"]]
