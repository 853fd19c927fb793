"""Progress bars: counts, rates, time left; that of what writes stores also tells what is in quarantine."""

from __future__ import annotations

import time
from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.status import Status
from rich.table import Column

from pipeline.extraction.job import Outcome
from pipeline.terminal import Terminal

PREPARING = "preparing; the first time on a machine takes half a minute"
LINE_SECONDS = 10  # between two lines where the line cannot be redrawn


def counting_bar(unit: str, console: Console) -> Progress:
    """A line with count, rate (the task's field `rate`) and time left; nothing where the console is no terminal."""
    return Progress(
        TextColumn("{task.description}", style="bold", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(f"{unit}  {{task.fields[rate]}}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(compact=True),
        console=console,
        disable=not console.is_terminal,
    )


class ExtractionBar:
    """One live line, what is asked for most in front, as a narrow terminal cuts off its end; where a line cannot be
    redrawn, one every ten seconds.

    sizes: bytes of each video's file that is to do (or 1, where sizes tell nothing), by its id. The bar and the time
    left go by them, and within a video by its frames: the largest come first, so that a count of videos would promise
    an end that is far too late.
    quarantined: how many are in quarantine already.
    """

    def __init__(self, sizes: Mapping[str, int], quarantined: int, doing: str = "extract") -> None:
        self.console = Terminal(stderr=True)
        self.sizes, self.quarantined, self.doing = sizes, quarantined, doing
        self.videos = self.frames = 0
        self.through = self.stored = 0  # bytes
        self.running: dict[str, tuple[int, float]] = {}  # video -> frames that are through, and which share that is
        self.total = sum(sizes.values())
        self.progress = Progress(
            TextColumn(doing, style="bold", table_column=Column(no_wrap=True, min_width=len(doing))),
            BarColumn(bar_width=10),
            TextColumn("{task.fields[told]}", table_column=Column(no_wrap=True, overflow="crop")),
            console=self.console,
        )
        self.task = self.progress.add_task("", total=self.total, told=f"0/{len(sizes)} videos  starting")
        self.began = self.printed = time.monotonic()

    def __enter__(self) -> ExtractionBar:
        if self.console.is_terminal:
            self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.console.is_terminal:
            self.progress.stop()

    def say(self, line: str) -> None:
        """A line above the bar."""
        self.console.print(line)

    def advance(self, outcome: Outcome) -> None:
        """Count one video that is through."""
        self.running.pop(outcome.video_id, None)
        self.videos += 1
        self.frames += outcome.frames
        self.through += self.sizes[outcome.video_id]
        if outcome.status == "stored":
            self.stored += self.sizes[outcome.video_id]
        else:
            self.quarantined += 1
        self._show()

    def see(self, running: Mapping[str, tuple[int, int]]) -> None:
        """Of the videos that are being worked on how many frames are through, and how many there seem to be."""
        self.running = {
            name: (frames, min(1.0, frames / expected) if expected else 0.0)
            for name, (frames, expected) in running.items()
        }
        self._show()

    def _show(self) -> None:
        now = time.monotonic()
        told = self._told(max(now - self.began, 1e-3))
        self.progress.update(self.task, completed=self.through + self._of_running(), told=told)
        if not self.console.is_terminal and (now - self.printed > LINE_SECONDS or self.videos == len(self.sizes)):
            self.printed = now
            self.say(f"{self.doing}  {told}")

    def _of_running(self) -> float:
        """Bytes."""
        return sum(share * self.sizes[name] for name, (_, share) in self.running.items())

    def seconds_left(self, spent: float) -> float | None:
        """That the rest will take after so many seconds, at the rate of what was stored; None before there is one."""
        rest, done = self.total - self.through - self._of_running(), self.stored + self._of_running()
        if not rest:
            return 0.0
        return spent * rest / done if done else None

    def _told(self, spent: float) -> str:
        left = self.seconds_left(spent)
        frames = self.frames + sum(frames for frames, _ in self.running.values())
        parts = [] if left is None else [f"{_duration(left)} left"]
        parts.append(f"{self.videos}/{len(self.sizes)} videos")
        if self.quarantined:
            parts.append(f"{self.quarantined} in quarantine")
        return "  ".join([*parts, f"{frames / spent:.0f} frames/s"])


def _duration(seconds: float) -> str:
    """As 45 s, 12:30 or 3:04:05."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def preparing() -> Status:
    """A line shown while the views prepare themselves: a first use on a machine may compile for half a minute."""
    return Terminal(stderr=True).status(PREPARING)


def comparing() -> Status:
    """A line that is there while source files are compared with what is stored of them."""
    return Terminal(stderr=True).status("comparing the videos with the store")
