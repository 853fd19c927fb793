"""The class list of a store of schema 1: `classes.txt`, in the data set's official order, and its digest beside it.

A label's index is its place in the list, so one wrong byte could give every video behind it another index.
"""

from __future__ import annotations

from pathlib import Path

from pipeline import called, storage
from pipeline.errors import Refusal
from pipeline.store import layout


def load(root: Path) -> list[str] | None:
    """The classes, or None where none are listed. Raises Refusal when the file is not what was written."""
    path = layout.classes_path(root)
    try:
        content, known = storage.read_if_there(path, storage.LARGEST_RECORD), _digests(root)
        if content is None and known:
            raise ValueError("is gone, but its digest is there")
        if content is None:
            return None
        if known and storage.digest(content) not in known:
            raise ValueError("does not match its digest")
        return content.decode().splitlines()
    except (ValueError, OSError) as error:
        how = f"cannot be read: {error}" if isinstance(error, OSError | UnicodeDecodeError) else str(error)
        raise Refusal(
            f"the store's class list {how}",
            where=str(path),
            remedy=f"restore it from a copy; or delete it and {layout.classes_digest_path(root).name}, and write what"
            f" it says again: `{called.command('annotate', store='', manifest='')}`",
        ) from error


def _digests(root: Path) -> list[str]:
    content = storage.read_if_there(layout.classes_digest_path(root), storage.LARGEST_RECORD)
    return [] if content is None else content.decode("ascii", "replace").split("\n")
