"""The class list of a store of schema 1: `classes.txt`, in the data set's official order, and its digest beside it.

A label's index is its place in the list, so one wrong byte could give every video behind it another index.
"""

from __future__ import annotations

from pathlib import Path

from pipeline import storage
from pipeline.errors import Refusal
from pipeline.store import layout


def load(root: Path) -> list[str] | None:
    """The classes, or None where none are listed. Raises Refusal when the file is not what was written."""
    path = layout.classes_path(root)
    content, known = storage.read_if_there(path), _digests(root)
    if content is None:
        return None
    if known and storage.digest(content) not in known:
        raise Refusal(
            "the store's class list does not match its digest",
            where=str(path),
            remedy=f"restore it from a copy; or delete it and {layout.classes_digest_path(root).name}, and write the annotations"
            " again: `make annotate STORE= MANIFEST=`",
        )
    return content.decode().splitlines()


def _digests(root: Path) -> list[str]:
    content = storage.read_if_there(layout.classes_digest_path(root))
    return [] if content is None else content.decode("ascii", "replace").split("\n")
