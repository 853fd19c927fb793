"""The class list of a store: `classes.txt`, one class a line, in the data set's official order, and its digest beside it.

A label's index is its place in the list, so one wrong byte could give every video behind it another index.
"""

from __future__ import annotations

from pathlib import Path

from pipeline import layout
from pipeline.errors import Refusal


def load(root: Path) -> list[str] | None:
    """The classes, or None where none are listed. Raises Refusal when the file is not what was written."""
    path = layout.classes_path(root)
    if not path.is_file():
        return None
    content, known = path.read_bytes(), _digests(root)
    if known and layout.digest(content) not in known:
        raise Refusal(
            "the store's class list does not match its digest",
            where=str(path),
            remedy=f"restore it from a copy; or delete it and {layout.classes_digest_path(root).name}, and run the extraction"
            " again with the same manifest",
        )
    return content.decode().splitlines()


def add(root: Path, classes: list[str]) -> None:
    """Keep the order of the classes that are there (their indices stay what they were); append what is new."""
    present = load(root) or []
    merged = present + [name for name in classes if name not in present]
    if not merged:
        return
    content = "".join(f"{name}\n" for name in merged).encode()
    digest = layout.digest(content)
    if merged != present:
        # Both lists are right until the new one is there, so that a kill in between is no damage.
        _save_digests(root, [*filter(None, _digests(root)), digest])
        layout.write_atomically(layout.classes_path(root), content)
    _save_digests(root, [digest])


def _digests(root: Path) -> list[str]:
    path = layout.classes_digest_path(root)
    return path.read_bytes().decode("ascii", "replace").split("\n") if path.is_file() else []


def _save_digests(root: Path, digests: list[str]) -> None:
    lines = [*digests, ""]
    if lines != _digests(root):
        layout.write_atomically(layout.classes_digest_path(root), "\n".join(lines).encode())
