"""Refused videos are told by reason."""

from __future__ import annotations

from pipeline.extraction import quarantine


def test_reasons_that_differ_in_their_numbers_are_told_together() -> None:
    reasons = {f"v{number}": f"damaged after {number} readable frames" for number in range(7)} | {
        "w": "it is [empty] 3"
    }
    assert quarantine.by_reason(reasons) == [
        ("damaged after N readable frames", [f"v{number}" for number in range(7)]),
        ("it is [empty] 3", ["w"]),
    ]
    assert list(map(str, quarantine.lines(reasons, {"v1": "probe v1", "w": "probe w"}))) == [
        "  7 x damaged after N readable frames",
        "    v0: damaged after 0 readable frames",
        "    v1: damaged after 1 readable frames",
        "      probe v1",
        "    v2: damaged after 2 readable frames",
        "    v3: damaged after 3 readable frames",
        "    v4: damaged after 4 readable frames",
        "    and 2 more; the store's folder quarantine has a file for each",
        "  1 x it is [empty] 3",
        "    w",
        "      probe w",
    ]


def test_nothing_refused_is_nothing_told() -> None:
    assert not list(quarantine.lines({}, {}))
