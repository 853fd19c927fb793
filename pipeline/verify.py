"""Check a store like fsck: every byte against its digest, every count against every other."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import catalogue, layout
from pipeline.errors import Refusal
from pipeline.store import VideoStore


@dataclass(frozen=True)
class Damage:
    """One thing that is wrong. video_id is the folder's name where the record itself cannot be read."""

    video_id: str
    path: str
    what: str


def verify(store: VideoStore, threads: int = 2) -> Iterator[tuple[str, int, list[Damage]]]:
    """For every video folder: (video id, bytes read, damage found). Videos come in sorted order of their folders."""
    folders = sorted(path.parent for path, _ in catalogue.record_files(store.root / "videos"))
    with ThreadPoolExecutor(threads) as pool:  # hashing and reading both let other threads run
        yield from filter(None, pool.map(lambda folder: _check(store, folder), folders))


def _check(store: VideoStore, folder: Path) -> tuple[str, int, list[Damage]] | None:
    try:
        record = catalogue.read_record(folder / layout.RECORD)
    except Refusal as refusal:
        name = str(folder.relative_to(store.root / "videos"))
        return name, 0, [Damage(name, str(folder / layout.RECORD), refusal.what)]
    if record is None:
        return None  # a folder of the data set, not a video
    video_id = record["video_id"]
    problems = [Damage(video_id, str(folder / layout.RECORD), what) for what in _counts(store, folder, record)]
    read = 0
    for name, expected in record["files"].items():
        path = folder / name
        try:
            read += path.stat().st_size
            if layout.file_digest(path) != expected:
                problems.append(Damage(video_id, str(path), "its bytes are not what was written"))
        except OSError as error:
            problems.append(Damage(video_id, str(path), f"cannot be read: {error.strerror}"))
    return video_id, read, problems


def _counts(store: VideoStore, folder: Path, record: dict[str, Any]) -> Iterator[str]:
    shapes = record["shapes"]
    if layout.video_folder(store.root, record["video_id"]) != folder:
        yield f"the record of video {record['video_id']!r} lies in another video's folder"
    if record["settings_hash"] != store.settings_hash:
        yield f"made with settings {record['settings_hash']}, the store has {store.settings_hash}"
    if set(shapes) != set(store.settings):
        yield f"it has the views {sorted(shapes)}, the store {sorted(store.settings)}"
    if record["length"] != shapes["rgb"][0]:
        yield f"{record['length']} frames were decoded, {shapes['rgb'][0]} stored"
    if "flow" in shapes and shapes["flow"][0] != shapes["rgb"][0] - 1:
        yield f"{shapes['flow'][0]} flow frames for {shapes['rgb'][0]} rgb frames; there must be one less"
