"""What a listing tells of a file."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Entry(NamedTuple):
    """A file below a folder. name: its path below that, with slashes. changed: when, in nanoseconds since 1970."""

    folder: Path
    name: str
    size: int
    changed: int

    @property
    def path(self) -> Path:
        return self.folder / self.name  # made when it is asked for: it costs more than finding the file
