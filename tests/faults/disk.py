"""A disk that fills up, and a process that dies, at a chosen change of the file system; both without leaving this
process."""

from __future__ import annotations

import contextlib
import errno
import functools
import itertools
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

CHANGES = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree"}
GROWTH = {"open", "os.mkdir"}


class Killed(BaseException):
    """Nothing may handle it, as nothing handles kill -9."""


@functools.cache
def the_disk() -> Disk:
    """The only one: its hook stays until Python ends."""
    return Disk()


class Disk:
    """Fails, below one folder, every change of the file system from a chosen one on."""

    def __init__(self) -> None:
        self.folder: str | None = None
        self.events = CHANGES
        self.after = 0
        self.steps = itertools.count()
        self.fail: Callable[[str, tuple], None] = _full
        sys.addaudithook(self.watch)  # switched by `folder`

    def watch(self, event: str, arguments: tuple) -> None:
        if self.folder is None or event not in self.events or not self._below(event, arguments):
            return
        if event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR):
            return
        step = next(self.steps)
        if step >= self.after:
            folder, self.folder = self.folder, None
            try:
                if step == self.after and self.fail is _dead and event == "open" and not arguments[2] & os.O_APPEND:
                    Path(arguments[0]).write_bytes(b"half")  # a process that dies in the middle of writing
                self.fail(event, arguments)
            finally:
                self.folder = folder

    def fill(self, folder: Path, after: int) -> None:
        """No space is left below `folder` from the `after`th access on that needs some."""
        self.folder, self.events, self.after, self.steps, self.fail = (
            str(folder),
            GROWTH,
            after,
            itertools.count(),
            _full,
        )

    @contextlib.contextmanager
    def killed_at(self, folder: Path, step: int) -> Iterator[None]:
        """The block dies at its `step`th change below `folder`: nothing that it still does reaches the disk."""
        self.folder, self.events, self.after, self.steps, self.fail = (
            str(folder),
            CHANGES,
            step,
            itertools.count(),
            _dead,
        )
        try:
            with contextlib.suppress(Killed):
                yield
        finally:
            self.folder = None

    @property
    def died(self) -> bool:
        """Whether it came to that."""
        return next(self.steps) > self.after

    def _below(self, event: str, arguments: tuple) -> bool:
        inside_rmtree = event in ("os.remove", "os.rmdir") and arguments[1] != -1  # names relative to an open folder
        return inside_rmtree or str(arguments[0]).startswith(str(self.folder))


def _full(event: str, arguments: tuple) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(arguments[0]))


def _dead(event: str, arguments: tuple) -> None:
    raise Killed(event)
