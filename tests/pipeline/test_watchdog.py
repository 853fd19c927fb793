"""The watchdog acts on a call that takes too long, and on nothing else."""

from __future__ import annotations

import threading

from pipeline.video.watchdog import watching
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


def test_no_limit_is_no_thread() -> None:
    before = threading.active_count()
    with watching(0, lambda: None) as guard, guard:
        assert threading.active_count() == before
    with watching(30, lambda: None) as guard, guard:
        assert threading.active_count() == before + 1
    assert threading.active_count() == before
