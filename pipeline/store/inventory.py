"""What must be in a store: `inventory.json` and `annotations.json`, which no reader needs and `verify` asks.

Videos are listed by the catalogue, as it was when a run last ended well. Beside it, the inventory says how many they
are, names what is to be in quarantine, and videos that were found missing when a catalogue forgot them. What a run is
going to redo or to remove it names before it touches it, as `in_hand`; nobody misses that until a run has ended well.
So whatever is missing otherwise was taken by somebody else, at whatever moment runs were killed.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TypeVar

from pipeline import storage
from pipeline.errors import Refusal
from pipeline.store import layout, records
from pipeline.store.records import AnnotationNames, Inventory
from pipeline.validation import Facts

Kind = TypeVar("Kind", Inventory, AnnotationNames)


def read(root: Path) -> Inventory:
    """Of a store; empty where it has none. Raises Refusal."""
    return _read(layout.inventory_path(root), Inventory)


def annotation_sets(root: Path) -> list[str]:
    """Names of the sets that were written. Raises Refusal."""
    return _read(layout.annotations_list_path(root), AnnotationNames).names


def add_annotation_sets(root: Path, names: Iterable[str]) -> None:
    """After they are written. Raises OSError."""
    known = annotation_sets(root)
    if after := set(names).difference(known):
        content = _file(AnnotationNames(names=sorted(after.union(known))))
        storage.write_atomically(layout.annotations_list_path(root), content)


def take_in_hand(root: Path, video_ids: Collection[str]) -> None:
    """Before a run touches these videos, of which it may make nothing. Raises OSError."""
    before = read(root)
    if not set(video_ids) <= set(before.in_hand):
        after = before.model_copy(update={"in_hand": sorted({*before.in_hand, *video_ids})})
        storage.write_atomically(layout.inventory_path(root), _file(after))


def lose(root: Path, video_ids: Iterable[str]) -> None:
    """Before a new catalogue forgets videos that the old one lists and whose records are gone. Raises OSError."""
    before = read(root)
    if found := missing(root, before, video_ids):
        storage.write_atomically(layout.inventory_path(root), _file(before.model_copy(update={"lost": found})))


def settle(root: Path, videos: int) -> None:
    """After a run has ended well. videos: how many the catalogue lists, which is written. Raises OSError."""
    add_annotation_sets(root, layout.annotations_written(root))
    content = storage.read_if_there(layout.inventory_path(root))
    after = Inventory(videos=videos, quarantine=in_quarantine(root), lost=missing(root, read(root), ()))
    if content != (written := _file(after)):
        storage.write_atomically(layout.inventory_path(root), written)


def is_settled(root: Path) -> bool:
    """Whether that would change nothing; also of a store that is older than inventories. Raises Refusal."""
    listed, unlisted = read(root), set(layout.annotations_written(root)).difference(annotation_sets(root))
    if storage.read_if_there(layout.inventory_path(root)) is None:
        return True
    return not unlisted and not listed.in_hand and listed.quarantine == in_quarantine(root)


def missing(root: Path, listed: Inventory, vanished: Iterable[str]) -> list[str]:
    """Which videos should be there and are not, sorted. vanished: those that the catalogue lists and a scan has not
    found."""
    asked = {*vanished, *listed.lost} - set(listed.in_hand)
    return sorted(name for name in asked if not _is_there(root, layout.quoted(name)))


def missing_from_quarantine(root: Path, listed: Inventory) -> list[str]:
    """The same of refused videos, as their ids are quoted."""
    asked = set(listed.quarantine) - {layout.quoted(name) for name in listed.in_hand}
    return sorted(name for name in asked if not _is_there(root, name))


def _is_there(root: Path, quoted: str) -> bool:
    """Whether a video is stored or refused. One whose record is damaged is no missing one."""
    try:
        if storage.read_if_there(root / "quarantine" / f"{quoted}.json", storage.LARGEST_RECORD) is not None:
            return True
        return storage.read_if_there(root / "videos" / quoted / layout.RECORD, storage.LARGEST_RECORD) not in (
            None,
            layout.group(),
        )
    except OSError:  # what is no file, such as a folder of that name
        return False


def in_quarantine(root: Path) -> list[str]:
    """Quoted ids of all refused videos, sorted."""
    names = (file.name for file in storage.files_below(root / "quarantine"))
    return sorted(name.removesuffix(".json") for name in names if name.endswith(".json"))


def _read(path: Path, kind: type[Kind]) -> Kind:
    try:
        content = storage.read_if_there(path)
        if content is None:
            return kind()
        found = records.parse_json(content)
        records.check(kind, found)
        listed = kind.model_validate({name: found[name] for name in found if name != "digest"})
        if _file(listed) != content:
            raise ValueError("it does not match its own digest")
        return listed
    except (ValueError, OSError) as error:
        raise Refusal(
            f"the list of what must be in the store cannot be read: {error}",
            where=str(path),
            remedy="restore it from a copy; or delete it: it is written again, by the next run or annotation,"
            " of what is there then",
        ) from error


def _file(listed: Facts) -> bytes:
    return (json.dumps(layout.seal(listed.model_dump()), ensure_ascii=False, indent=1) + "\n").encode()
