"""What commands say: names and paths as they are, whatever letters they hold, and nothing in them that steers a
terminal."""

from __future__ import annotations

import io
import re
import sys
import threading
import time
from typing import Any

from rich.console import Console, RenderableType
from rich.status import Status
from rich.text import Text

# Control characters but line feed and tab, those that turn the direction of writing, and what stands for the bytes of
# names that are not UTF-8: a file's name may hold them.
STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

PAUSE = 2.5  # seconds: nothing is silent for longer than 3


class Terminal(Console):
    """A console that takes every string for data, in lines and in table cells; styles come as `marked` text alone."""

    def __init__(self, *, stderr: bool = False, quiet: bool = False) -> None:
        super().__init__(stderr=stderr, quiet=quiet, highlight=False, markup=False, emoji=False, soft_wrap=True)

    def status(self, status: RenderableType, **options: Any) -> Status:
        """A line that is there meanwhile; where no line can be taken back, as in a log, one that stays, and others that
        say for how long."""
        if self.is_terminal and not self.is_dumb_terminal:
            return super().status(status, **options)
        self.print(status)
        return Logged(status, console=self, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(visible(text), **options)


class Logged(Status):
    """Says of what takes long that it still goes on: after PAUSE seconds, and more and more rarely from there."""

    _began = 0.0
    _saying: threading.Thread | None = None

    def start(self) -> None:
        self._began = self._began or time.monotonic()  # of what goes on after a pause, the first time
        if self._saying is None:  # started once, however often it is asked for, as rich's is
            self._over = threading.Event()
            self._saying = threading.Thread(target=self._say, args=(self._over,), daemon=True)
            self._saying.start()

    def stop(self) -> None:
        if self._saying is not None:
            self._over.set()
            self._saying.join()
            self._saying = None

    def _say(self, over: threading.Event) -> None:
        passed = 0.0
        while not over.wait(max(PAUSE, passed / 10)):
            passed = time.monotonic() - self._began
            self.console.print(f"{self.status}: {passed:.0f} s so far")


def visible(text: str) -> str:
    """The text with escapes, as \\x1b, for what would steer a terminal."""
    return STEERING.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def in_line(name: str) -> str:
    """A name, or a reason, as a part of a line, or a column of it."""
    return visible(name).replace("\n", "\\n").replace("\t", "\\t")


def marked(word: str, style: str, text: str = "") -> Text:
    """A word in a style of rich, as "yellow", and data behind it."""
    return Text.assemble((visible(word), style), f" {visible(text)}" if text else "")


def escape_unknown_letters() -> None:
    """From now on, letters the terminal's encoding lacks are written as escapes; by default they end the command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
