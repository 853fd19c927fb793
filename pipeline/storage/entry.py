"""What a listing tells of a file."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple


class Entry(NamedTuple):
    """A file below a folder. name: its path below that, with slashes. changed: when, in nanoseconds since 1970. tag:
    what an object store calls this content of the file."""

    folder: Path
    name: str
    size: int
    changed: int
    tag: str = ""

    @property
    def path(self) -> Path:
        return self.folder / self.name  # made when it is asked for: it costs more than finding the file

    @property
    def stamp(self) -> int:
        """Another number, of 63 bits, where the file was written again; copied with its time or not, older or newer."""
        facts = f"{self.size} {self.changed} {self.tag}".encode()
        return int.from_bytes(hashlib.blake2b(facts, digest_size=8).digest()) >> 1
