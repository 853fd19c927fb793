"""Check a store like fsck: every byte against its digest, every count against every other."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import storage
from pipeline.errors import Refusal
from pipeline.store import annotation, catalogue, classes, layout
from pipeline.store.reading import VideoStore
from pipeline.views import VIEWS

CHANGED = "its bytes are not what was written"


@dataclass(frozen=True)
class Damage:
    """One thing that is wrong, in which video; the id is "" for the store's own file."""

    video_id: str
    path: str
    what: str


def verify(store: VideoStore, threads: int = 2) -> Iterator[tuple[str, int, list[Damage]]]:
    """For every video folder: (video id, bytes read, damage found). Videos come in sorted order of their folders.

    A folder without a video, the root, annotation sets, the class list of schema 1 and quarantine files are told only
    where they are damaged. The catalogue is not looked at: it is derived, and what it says is believed only where it
    matches its own digest. Neither are the lock and the journal, which tells only what runs spent.
    """
    labels, damage = _class_list(store)
    if damage := [*damage, *_annotations(store)]:
        yield "", 0, damage
    folders = [store.root, *sorted(file.path.parent for file in catalogue.record_files(store.root))]
    quarantined = storage.files_below(store.root / "quarantine")
    refused = sorted(entry.path for entry in quarantined if entry.name.endswith(".json"))
    with ThreadPoolExecutor(threads) as pool:  # hashing and reading both let other threads run
        yield from filter(None, pool.map(lambda folder: _check(store, folder, labels), folders))
        yield from filter(None, pool.map(lambda path: _quarantined(store, path), refused))


def _class_list(store: VideoStore) -> tuple[frozenset[str] | None, list[Damage]]:
    """The labels that there may be (None where that is not known), and what is wrong with their list."""
    try:
        listed = classes.load(store.root)
    except (Refusal, OSError) as error:
        what = error.what if isinstance(error, Refusal) else f"cannot be read: {error.strerror}"
        return None, [Damage("", str(layout.classes_path(store.root)), what)]
    return None if listed is None else frozenset(listed), []


def _annotations(store: VideoStore) -> Iterator[Damage]:
    """What is wrong with each annotation set."""
    for name in annotation.names(store.root):
        try:
            annotation.load(store.root, name)
        except Refusal as refusal:
            yield Damage("", refusal.where, refusal.what)


def _quarantined(store: VideoStore, path: Path) -> tuple[str, int, list[Damage]] | None:
    """The file is written from its entry alone, as a record is."""
    name = layout.unquoted(str(path.relative_to(store.root / "quarantine").with_suffix("")))
    try:
        content = storage.read(path)
        entry = json.loads(content)
        entry.pop("digest", None)
        if layout.quarantine_file(entry) != content or layout.quarantine_path(store.root, entry["video_id"]) != path:
            return name, 0, [Damage(name, str(path), CHANGED)]
    except (ValueError, LookupError, AttributeError, TypeError):
        return name, 0, [Damage(name, str(path), CHANGED)]
    except OSError as error:
        return name, 0, [Damage(name, str(path), f"cannot be read: {error.strerror}")]
    return None


def _check(store: VideoStore, folder: Path, labels: frozenset[str] | None) -> tuple[str, int, list[Damage]] | None:
    path = folder / layout.RECORD
    record, problems = _read(path)
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


def _read(path: Path) -> tuple[dict[str, Any] | None, list[str]]:
    """The record in a group's zarr.json, if it holds one, and what is wrong with the file's bytes."""
    try:
        record, content = catalogue.read_content(path)
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
    counts = {
        name: (shapes[name][0], view.stored_frames(record["length"])) for name, view in VIEWS.items() if name in shapes
    }
    if wrong := [f"{stored} of {name}, not {wanted}" for name, (stored, wanted) in counts.items() if stored != wanted]:
        yield f"{record['length']} frames were decoded, and it has {', '.join(wrong)}"
