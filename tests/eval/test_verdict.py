"""The sentences at the end of an evaluation."""

from __future__ import annotations

from eval.results import Record
from eval.verdict import verdicts


def record(metric: str, value: float, network: str, stage: str = "flow", stream: str = "flow") -> Record:
    return Record(metric, value, "clean", stream, network, stage, "test", "mine", "abc", "extraction 0")


def test_a_gain_is_told_with_its_error() -> None:
    records = [record("R@1", 0.5, "untrained"), record("R@1", 0.9, "trained")]
    # sqrt((.9 * .1 + .5 * .5) / 100) = .0583
    told = "gains +40.0 ± 5.8 points of R@1 (90.0 % against 50.0 % untrained)"
    assert verdicts(records, 100) == [f"motion (optical flow): {told}"]


def test_a_loss_is_told_and_what_is_within_two_errors_is_called_so() -> None:
    losing = [record("R@1", 0.9, "untrained"), record("R@1", 0.5, "trained")]
    assert "loses -40.0 ± 5.8 points" in verdicts(losing, 100)[0]
    [told] = verdicts([record("linear_top1", 0.5, "untrained"), record("linear_top1", 0.55, "trained")], 100)
    assert "no clear difference, +5.0 ± 7.1 points of the linear probe" in told


def test_the_last_stage_of_a_stream_counts_against_its_own_untrained_network() -> None:
    records = [
        record("R@1", 0.1, "untrained", "first"),
        record("R@1", 0.2, "trained", "first"),
        record("R@1", 0.3, "untrained", "second"),
        record("R@1", 0.9, "trained", "second"),
    ]
    [told] = verdicts(records, 1000)
    assert "+60.0" in told


def test_without_an_untrained_network_or_tested_videos_there_is_no_verdict() -> None:
    assert verdicts([record("R@1", 0.9, "trained")], 100) == []
    assert verdicts([record("R@1", 0.9, "trained"), record("R@1", 0.1, "untrained")], 0) == []
