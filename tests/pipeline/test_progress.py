"""What a run tells while it works."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from pipeline.extraction import progress
from pipeline.extraction.job import Outcome
from pipeline.extraction.progress import ExtractionBar


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(progress.time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_time_left_goes_by_bytes_not_by_videos(clock: Clock) -> None:
    bar = ExtractionBar({"long": 900, "broken": 50, "short": 50}, 0)
    assert bar.seconds_left(5) is None
    clock.now += 18
    bar.advance(Outcome("long", "stored", frames=90))
    assert bar.seconds_left(18) == pytest.approx(18 * 100 / 900)
    bar.advance(Outcome("broken", "quarantined", "empty"))
    assert bar.seconds_left(18) == pytest.approx(18 * 50 / 900)  # a broken file says nothing about speed
    bar.advance(Outcome("short", "stored", frames=5))
    assert bar.seconds_left(20) == 0


def test_frames_of_videos_that_are_not_through_count(clock: Clock) -> None:
    bar = ExtractionBar({"long": 800, "short": 200, "unknown": 100}, 0)
    bar.console = Console(file=(told := io.StringIO()), width=200)
    clock.now += 8
    bar.see({"long": (300, 600), "unknown": (20, 0)})
    assert bar.seconds_left(8) == pytest.approx(8 * 700 / 400)
    clock.now += 3
    bar.see({"long": (660, 600)})  # there are more than the file says
    assert bar.seconds_left(11) == pytest.approx(11 * 300 / 800)
    bar.advance(Outcome("long", "stored", frames=660))
    assert bar.seconds_left(11) == pytest.approx(11 * 300 / 800)
    assert told.getvalue() == "extract  4 s left  0/3 videos  60 frames/s\n"


def test_a_line_comes_every_ten_seconds_and_at_the_end(clock: Clock) -> None:
    bar = ExtractionBar({name: 10 for name in "abcd"}, 3)
    told = io.StringIO()
    bar.console = Console(file=told, width=200)
    with bar:
        for name, seconds, status in (
            ("a", 4, "stored"),
            ("b", 4, "stored"),
            ("c", 4, "quarantined"),
            ("d", 4, "stored"),
        ):
            clock.now += seconds
            bar.advance(Outcome(name, status, frames=24 if status == "stored" else 0))
    assert told.getvalue().splitlines() == [
        "extract  6 s left  3/4 videos  4 in quarantine  4 frames/s",
        "extract  0 s left  4/4 videos  4 in quarantine  4 frames/s",
    ]


@pytest.mark.parametrize("width", [60, 120])
def test_the_bar_is_one_line_that_a_narrow_terminal_cuts_at_its_end(clock: Clock, width: int) -> None:
    bar = ExtractionBar({f"{number:03}": 10 for number in range(450)}, 12)
    for number in range(150):
        clock.now += 100
        bar.advance(Outcome(f"{number:03}", "stored", frames=2000))
    console = Console(file=(told := io.StringIO()), width=width)
    console.print(bar.progress.get_renderable())
    [line] = told.getvalue().splitlines()
    assert "8:20:00 left  150/450 videos  12 in quarantine  20" in line
    assert line.startswith("extract ━━━") and line.rstrip().endswith("20 frames/s") or width == 60


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.4, "59 s"), (60, "1:00"), (3599, "59:59"), (11045, "3:04:05")]
)
def test_durations_are_told_briefly(seconds: float, text: str) -> None:
    assert progress._duration(seconds) == text
