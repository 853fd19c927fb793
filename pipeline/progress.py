"""Progress bars: counts, rates, time left; that of what writes stores also tells what is in quarantine."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.status import Status

from pipeline.job import Outcome


def counting_bar(unit: str, console: Console) -> Progress:
    """A line with count, rate (the task's field `rate`) and time left; nothing where the console is no terminal."""
    return Progress(
        TextColumn("[bold]{task.description}"),
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
    """One live line; on a terminal that cannot redraw, a line every ten seconds."""

    def __init__(self, videos: int, quarantined: int, doing: str = "extract") -> None:
        self.console = Console(stderr=True)
        self.progress = Progress(
            TextColumn(f"[bold]{doing}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("videos  {task.fields[rates]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(compact=True),
            console=self.console,
        )
        self.task = self.progress.add_task("", total=videos, rates="starting")
        self.doing = doing
        self.videos = self.frames = 0
        self.quarantined = quarantined
        self.total = videos
        self.began = self.printed = time.monotonic()

    def __enter__(self) -> ExtractionBar:
        if self.console.is_terminal:
            self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.console.is_terminal:
            self.progress.stop()

    def advance(self, outcome: Outcome) -> None:
        self.videos += 1
        self.frames += outcome.frames
        self.quarantined += outcome.status != "stored"
        now = time.monotonic()
        spent = max(now - self.began, 1e-3)
        rates = f"{self.videos / spent:.1f} videos/s  {self.frames / spent:.0f} frames/s"
        if self.quarantined:
            rates += f"  {self.quarantined} in quarantine"
        self.progress.update(self.task, advance=1, rates=rates)
        if not self.console.is_terminal and (now - self.printed > 10 or self.videos == self.total):
            self.printed = now
            left = spent / self.videos * (self.total - self.videos)
            self.console.print(f"{self.doing}  {self.videos}/{self.total} videos  {rates}  {left:.0f} s left")


def preparing() -> Status:
    """A line that is there while the views prepare themselves: a first use on a machine may compile for half a minute."""
    return Console(stderr=True).status("preparing; the first time on a machine takes half a minute")


def comparing() -> Status:
    """A line that is there while source files are compared with what is stored of them."""
    return Console(stderr=True).status("comparing the videos with the store")
