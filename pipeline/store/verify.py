"""Check a store like fsck: every byte against its digest, every count against every other."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import storage
from pipeline.errors import Refusal
from pipeline.store import annotation, catalogue, classes, inventory, layout, quarantine, records
from pipeline.store.reading import VideoStore
from pipeline.validation import Facts

CHANGED = "its bytes are not what was written"
NAMELESS = "videos are gone, and it cannot tell which: it is gone too, or damaged"
GONE = "it is gone: it was written and nobody removed it by a command"


@dataclass(frozen=True)
class Damage:
    """One thing that is wrong, in which video; the id is "" for the store's own file."""

    video_id: str
    path: str
    what: str


def verify(store: VideoStore, threads: int = 2) -> Iterator[tuple[str, int, list[Damage]]]:
    """For every video folder: (video id, bytes read, damage found). Videos come in sorted order of their folders.

    A folder without a video, the root, annotation sets, the class list of schema 1 and quarantine files are told only
    where they are damaged, and what is gone by the lists of what must be there, `inventory` and the catalogue. That is
    derived, and believed only where it matches its own digest. The lock and the journal are not looked at.
    """
    labels, damage = _class_list(store)
    damage += [*_annotations(store), *_inventory(store)]
    if damage:
        yield "", 0, damage
    folders = [store.root, *sorted(file.path.parent for file in catalogue.record_files(store.root))]
    quarantined = storage.files_below(store.root / "quarantine")
    refused = sorted(entry.path for entry in quarantined if entry.name.endswith(".json"))
    with ThreadPoolExecutor(threads) as pool:  # hashing and reading both let other threads run
        yield from filter(None, pool.map(lambda folder: _check(store, folder, labels), folders))
        yield from filter(None, pool.map(lambda path: _quarantined(store, path), refused))
    yield from _missing(store, sum(1 for file in catalogue.record_files(store.root) if not catalogue.is_plain(file)))


def _class_list(store: VideoStore) -> tuple[frozenset[str] | None, list[Damage]]:
    """The labels that there may be (None where that is not known), and what is wrong with their list."""
    try:
        listed = classes.load(store.root)
    except Refusal as refusal:
        return None, [Damage("", refusal.where, refusal.what)]
    return None if listed is None else frozenset(listed), []


def _annotations(store: VideoStore) -> Iterator[Damage]:
    """What is wrong with each annotation set, and with the list of them."""
    try:
        gone = set(inventory.annotation_sets(store.root)) - set(layout.annotations_written(store.root))
    except Refusal as refusal:
        yield Damage("", refusal.where, refusal.what)
        gone = set()
    yield from (Damage("", str(layout.annotations_path(store.root, name)), GONE) for name in sorted(gone))
    for name in layout.annotations_written(store.root):
        try:
            annotation.load(store.root, name)
        except Refusal as refusal:
            yield Damage("", refusal.where, refusal.what)


def _inventory(store: VideoStore) -> Iterator[Damage]:
    try:
        inventory.read(store.root)
    except Refusal as refusal:
        yield Damage("", refusal.where, refusal.what)


def _missing(store: VideoStore, there: int) -> Iterator[tuple[str, int, list[Damage]]]:
    """Videos and quarantine files that a list says must be there, and are not. there: how many videos are."""
    root = store.root
    try:
        now = inventory.read(root)
        while True:
            listed = now
            lost = inventory.missing(root, listed, catalogue.vanished(root))
            unrefused = inventory.missing_from_quarantine(root, listed)
            if (now := inventory.read(root)) == listed:  # no run has begun or ended meanwhile
                break
    except Refusal:  # told above
        return
    for name in lost:
        yield name, 0, [Damage(name, str(layout.record_path(root, name)), GONE)]
    if (more := listed.videos - len(listed.in_hand) - len(lost) - there) > 0:
        yield "", 0, [Damage("", str(layout.catalogue_path(root)), f"{more} {NAMELESS}")]
    for quoted in unrefused:
        name, path = layout.unquoted(quoted), root / "quarantine" / f"{quoted}.json"
        yield name, 0, [Damage(name, str(path), GONE)]


def _quarantined(store: VideoStore, path: Path) -> tuple[str, int, list[Damage]] | None:
    """The file is written from its entry alone, as a record is."""
    name = layout.unquoted(str(path.relative_to(store.root / "quarantine").with_suffix("")))
    try:
        content = storage.read(path, storage.LARGEST_RECORD)
        entry = quarantine.entry(store.root, path, content)
        entry.pop("digest")
        if layout.quarantine_file(entry) != content:
            return name, 0, [Damage(name, str(path), CHANGED)]
    except FileNotFoundError:  # it went while the store was verified
        return None
    except ValueError:
        return name, 0, [Damage(name, str(path), CHANGED)]
    except OSError as error:
        return name, 0, [Damage(name, str(path), f"cannot be read: {error.strerror}")]
    return None


def _check(store: VideoStore, folder: Path, labels: frozenset[str] | None) -> tuple[str, int, list[Damage]] | None:
    """A video that is replaced while it is looked at is looked at again."""
    path, now = folder / layout.RECORD, _bytes(folder / layout.RECORD)
    while True:
        before, found = now, _checked(store, folder, labels)
        if found is None or not found[2] or (now := _bytes(path)) == before:
            return found


def _bytes(path: Path) -> bytes | None:
    """Of a file; None where it cannot be read."""
    try:
        return storage.read_if_there(path, storage.LARGEST_RECORD)
    except OSError:
        return None


def _checked(store: VideoStore, folder: Path, labels: frozenset[str] | None) -> tuple[str, int, list[Damage]] | None:
    path = folder / layout.RECORD
    record, problems = _read(path, records.Root if folder == store.root else records.CommitRecord)
    if record is None or folder == store.root:
        name = (
            ""
            if folder in (store.root, store.root / "videos")
            else layout.unquoted(str(folder.relative_to(store.root / "videos")))
        )
        return (name, 0, [Damage(name, str(path), what) for what in problems]) if problems else None
    video_id = record["video_id"]
    damage = [Damage(video_id, str(path), what) for what in [*problems, *_counts(store, folder, record, labels)]]
    read = 0
    for name, expected in record["files"].items():
        path = folder / name
        if not layout.is_inside(name):
            damage.append(Damage(video_id, str(path), "its record names a file outside its folder"))
            continue
        try:
            content = storage.read(path)
            read += len(content)
            if storage.digest(content) != expected:
                damage.append(Damage(video_id, str(path), CHANGED))
        except OSError as error:
            damage.append(Damage(video_id, str(path), f"cannot be read: {error.strerror}"))
    return video_id, read, damage


def _read(path: Path, kind: type[Facts]) -> tuple[dict[str, Any] | None, list[str]]:
    """The record in a group's zarr.json, if it holds one, and what is wrong with the file's bytes."""
    try:
        record, content = catalogue.read_content(path, kind)
        # The file is written from its attributes alone: whatever else is in it was changed later.
        written = layout.group(None if record is None else {layout.ATTRIBUTE: record})
        return record, [] if content == written else [CHANGED]
    except FileNotFoundError:  # it went while the store was verified
        return None, []
    except Refusal as refusal:
        return None, [refusal.what]


def _counts(store: VideoStore, folder: Path, record: dict[str, Any], labels: frozenset[str] | None) -> Iterator[str]:
    """What contradicts the store or itself. labels: those that there may be, if that is known."""
    shapes = record["shapes"]
    if layout.video_folder(store.root, record["video_id"]) != folder:
        yield f"the record of video {record['video_id']!r} lies in another video's folder"
    if record["settings_hash"] != (wanted_hash := store.settings_hash_of(shapes)):
        yield f"made with settings {record['settings_hash']}, the store has {wanted_hash} of its views"
    if others := sorted(shapes.keys() - store.settings.keys()):
        yield f"it has {', '.join(others)}, which the store does not have"
    if record.get("label") and labels is not None and record["label"] not in labels:
        yield f"its label {record['label']!r} is not in classes.txt"
    yield from records.contradictions(record)
