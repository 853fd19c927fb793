"""The class list of a store: `classes.txt`, one class a line, in the data set's official order, and its digest beside it.

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
            remedy=f"restore it from a copy; or delete it and {layout.classes_digest_path(root).name}, and run the extraction"
            " again with the same manifest",
        )
    return content.decode().splitlines()


def missing(root: Path, classes: list[str]) -> bool:
    """Whether some of these classes are not listed yet, or the list is not as `add` leaves it."""
    present = load(root) or []
    digest = storage.digest("".join(f"{name}\n" for name in present).encode())
    return not set(classes) <= set(present) or (bool(present) and _digests(root) != [digest, ""])


def add(root: Path, classes: list[str]) -> None:
    """Keep the order of the classes that are there (their indices stay what they were); append what is new."""
    present = load(root) or []
    merged = present + [name for name in classes if name not in present]
    if not merged:
        return
    content = "".join(f"{name}\n" for name in merged).encode()
    digest = storage.digest(content)
    if merged != present:
        # Both lists are right until the new one is there, so that a kill in between is no damage.
        _save_digests(root, [*filter(None, _digests(root)), digest])
        storage.write_atomically(layout.classes_path(root), content)
    _save_digests(root, [digest])


def _digests(root: Path) -> list[str]:
    content = storage.read_if_there(layout.classes_digest_path(root))
    return [] if content is None else content.decode("ascii", "replace").split("\n")


def _save_digests(root: Path, digests: list[str]) -> None:
    lines = [*digests, ""]
    if lines != _digests(root):
        storage.write_atomically(layout.classes_digest_path(root), "\n".join(lines).encode())
