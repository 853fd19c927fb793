"""Which commit records a catalogue was made of: the stamp of each as the file system tells it, in `catalogue.stamps`.

Apart from the catalogue, so that equal stores have equal ones. Derived as that is: what does not match its digest, or
is of another catalogue, is taken for nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

import numpy as np

from pipeline import storage
from pipeline.store import layout

DIGEST_SIZE = 32
UNKNOWN = -1  # the stamp of no file


def save(root: Path, catalogue: bytes, stamps: np.ndarray) -> None:
    """catalogue: its own digest. stamps: of the record of each of its rows, int64 (N,). Raises OSError."""
    content = stamps.astype("<i8").tobytes()
    storage.write_atomically(layout.stamps_path(root), _digest(catalogue, content) + content)


def load(root: Path, catalogue: bytes, count: int) -> np.ndarray:
    """Of the `count` rows of the catalogue with that digest, int64 (N,); UNKNOWN where they are not here."""
    found = b""
    with contextlib.suppress(OSError):
        found = storage.read_if_there(layout.stamps_path(root)) or b""
    content = memoryview(found)[DIGEST_SIZE:]
    if len(content) != 8 * count or found[:DIGEST_SIZE] != _digest(catalogue, content):
        return np.broadcast_to(np.int64(UNKNOWN), count)
    return np.frombuffer(content, "<i8")


def _digest(catalogue: bytes, content: bytes | memoryview) -> bytes:
    hashed = hashlib.sha256(catalogue)
    hashed.update(content)
    return hashed.digest()
