"""The watchdog acts on a call that takes too long, and on nothing else."""

from __future__ import annotations

import threading

import pytest

from pipeline.video import watchdog
from pipeline.video.watchdog import WRITES, longest_wait, watching
from tests.patience import PATIENCE


def test_a_call_that_does_not_return_is_acted_on() -> None:
    acted = threading.Event()
    with watching(0.05, acted.set) as guard:
        for _ in range(1000):  # calls that return
            with guard:
                pass
        with guard:
            assert acted.wait(PATIENCE)


def test_time_between_calls_does_not_count() -> None:
    acted = threading.Event()
    with watching(0.2, acted.set) as guard:
        with guard:
            pass
        assert not acted.wait(0.5)


def test_a_long_call_is_told_once_and_then_acted_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "QUIET", 0.05)
    acted = threading.Event()
    told: list[bool] = []
    with watching(0.3, acted.set, tell=lambda: told.append(acted.is_set())) as guard, guard:
        assert acted.wait(PATIENCE)
    assert told == [False]


def test_the_outermost_call_counts_and_each_kind_for_itself() -> None:
    with watching(0, lambda: None, WRITES) as writes:
        assert longest_wait(WRITES) == 0
        with writes:
            with writes:
                began = longest_wait(WRITES)
            assert longest_wait(WRITES) >= began > 0
            assert longest_wait() == 0
        assert longest_wait(WRITES) == 0


def test_no_limit_is_no_thread() -> None:
    before = threading.active_count()
    with watching(0, lambda: None) as guard, guard:
        assert threading.active_count() == before
    with watching(30, lambda: None) as guard, guard:
        assert threading.active_count() == before + 1
    assert threading.active_count() == before
