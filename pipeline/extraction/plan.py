"""What a run has to do: the manifest and its source files against the store."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pipeline import called, storage
from pipeline.errors import Refusal, spelled_out
from pipeline.extraction.job import file_stamp
from pipeline.extraction.journal import Summary, origins
from pipeline.extraction.progress import comparing
from pipeline.manifest import Manifest, Video
from pipeline.store import VideoStore, catalogue, layout
from pipeline.store.settings import ExtractionSettings

SHOWN = 5  # videos that a refusal spells out


class Sources(Protocol):
    """Where the manifest's videos come from."""

    def has(self, video: Video) -> bool:
        """Whether the video's source is there."""

    def stamp(self, video: Video) -> tuple[int, ...]:
        """Other numbers where the video's source was written again, older or newer; () where there is none."""

    def differences(self, video: Video, stored: Stored) -> list[str]:
        """What is not as it was when the video was stored, by the bytes of its source; [] where no source is there."""


@dataclass(frozen=True)
class Stored:
    """A stored video."""

    store: VideoStore
    video_id: str

    @property
    def record(self) -> dict[str, Any]:
        """The commit record, which is read. Raises Refusal."""
        return catalogue.read_record(layout.record_path(self.store.root, self.video_id)) or {}


class VideoFiles:
    """Files below a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def has(self, video: Video) -> bool:
        return os.path.isfile(self.root / video.path)  # also where the name is longer than any

    def stamp(self, video: Video) -> tuple[int, ...]:
        return file_stamp(self.root / video.path)

    def differences(self, video: Video, stored: Stored) -> list[str]:
        file = self.root / video.path
        try:
            status = file.stat()
            if not stat.S_ISREG(status.st_mode):
                return []
            now = {"bytes": status.st_size, "sha256": storage.file_digest(file)}
        except OSError:
            return []  # it is gone or cannot be read; what is stored of it is whole all the same
        return changes(stored.record.get("file", {}), now)


def changes(stored: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Each entry of `now` that differs from what is stored: ["bytes 123 -> 456", ...]."""
    return [
        f"{key} {_brief(stored.get(key, ''))} -> {_brief(value)}"
        for key, value in now.items()
        if stored.get(key) != value
    ]


@dataclass(frozen=True)
class Plan:
    """What a run has to do. todo: videos by their ids. adding: of those that are stored and lack views, which; the
    others are done whole. summary: of the run so far.
    """

    todo: dict[str, Video] = field(default_factory=dict)
    adding: dict[str, tuple[str, ...]] = field(default_factory=dict)
    summary: Summary = field(default_factory=Summary)

    def views(self, settings: ExtractionSettings) -> ExtractionSettings:
        """Those of the settings that are to be computed for a video."""
        if self.todo.keys() - self.adding.keys():
            return settings
        return settings.only({name for names in self.adding.values() for name in names})


def as_stored(manifest: Manifest, store: VideoStore) -> Manifest:
    """The manifest with the ids by which its videos are stored.

    Whether an id has its file's extension depends on the files beside it; a stored video keeps its id when they change.
    """
    stored = set(store.listing.table.ids.to_pylist())
    unlisted = stored - {row.video_id for row in manifest.rows}
    kept: dict[str, Video] = {}
    for row in manifest.rows:
        stem = os.path.splitext(row.path)[0]
        other = {row.path: stem, stem: row.path}.get(row.video_id)
        if other not in unlisted or other is None:  # as a rule
            continue
        of_path = [name for name in (row.video_id, other) if name in stored and _path(store, name) == row.path]
        if of_path == [other]:
            source = other if row.source == row.video_id else row.source
            kept[row.video_id] = replace(row, video_id=other, source=source)
    return replace(manifest, rows=[kept.get(row.video_id, row) for row in manifest.rows]) if kept else manifest


def _path(store: VideoStore, video_id: str) -> str:
    return Stored(store, video_id).record["file"]["path"]


def plan(
    manifest: Manifest,
    store: VideoStore,
    settings: ExtractionSettings,
    sources: Sources,
    retry_quarantined: bool = False,
    overwrite: bool = False,
) -> Plan:
    """What is missing of videos with these settings and, with `overwrite`, what has changed since it was stored.

    Raises Refusal where stored videos have other source files than the manifest, or other settings than the store, for
    skipping them would keep the old ones, and where `overwrite` would lose a video that cannot be made again.
    """
    stored = set(store.listing.table.ids.to_pylist())
    changed = _changed(manifest, store, sources)
    if changed and not overwrite:
        raise Refusal(
            f"{len(changed)} stored videos are not what the manifest lists:" + _first(changed),
            where=str(store.root),
            remedy="`--overwrite true` redoes exactly these; or extract into another"
            f" {called.option('store')}; nothing was written",
        )
    refuse_loss([row for row in manifest.rows if row.video_id in changed], sources, store)
    adding = {name: views for name, views in _lacking(settings, store).items() if name not in changed}
    done = stored - changed.keys() - adding.keys()
    refused = set() if retry_quarantined else _still_refused(manifest, store, sources) - done - changed.keys()
    todo = {row.video_id: row for row in manifest.rows if row.video_id not in done and row.video_id not in refused}
    summary = Summary(
        skipped=sum(row.video_id in done for row in manifest.rows),
        in_quarantine=sum(row.video_id in refused for row in manifest.rows),
        lost=tuple(name for name in store.listing.table.missing if name not in todo),
    )
    return Plan(todo, {name: adding[name] for name in todo if name in adding}, summary)


def _still_refused(manifest: Manifest, store: VideoStore, sources: Sources) -> set[str]:
    """The videos in quarantine, without those whose source was written again since."""
    listed = {row.video_id: row for row in manifest.rows}
    return {
        entry["video_id"]
        for entry in store.quarantine_entries()
        if (row := listed.get(entry["video_id"])) is None
        or "stamp" not in entry  # written before stamps were
        or tuple(entry["stamp"]) == sources.stamp(row)
    }


def _lacking(settings: ExtractionSettings, store: VideoStore) -> dict[str, tuple[str, ...]]:
    """Which views of the settings a stored video has not, of those that lack some."""
    found, table = {}, store.listing.table
    for number, kind in enumerate(table.kinds):
        if lacking := tuple(name for name in settings.views if name not in kind.shapes):
            found.update(dict.fromkeys(table.names(np.flatnonzero(table.forms == number)), lacking))
    return found


def refuse_loss(videos: Iterable[Video], sources: Sources, store: VideoStore, unlisted: Iterable[str] = ()) -> None:
    """Raises Refusal where one of these stored videos could not be made again once it is removed.

    unlisted: stored videos of which nothing else is known than that they would go too.
    """
    lost = {video_id: ["not in the manifest"] for video_id in unlisted}
    lost |= {video.video_id: [f"{video.path} is not there"] for video in videos if not sources.has(video)}
    if lost:
        raise Refusal(
            f"overwriting would lose {len(lost)} stored videos, which cannot be made again from what is here:"
            + _first(lost),
            where=str(store.root),
            remedy="give their files and a manifest that lists them, or another"
            f" {called.option('store')}; nothing was written",
        )


def _changed(manifest: Manifest, store: VideoStore, sources: Sources) -> dict[str, list[str]]:
    """Video id -> what differs, of the manifest's stored videos.

    A source that has the stamp which it had when its record was made is taken to be unchanged. Any other is read: no
    clock is compared with another. Stamps are in the journals, so that stores are equal from machine to machine.
    """
    found, table, known = {}, store.listing.table, origins(store.root)
    rows = {video_id: row for row, video_id in enumerate(table.ids.to_pylist())}
    with comparing():  # what has another stamp is read whole
        for video in manifest.rows:
            if (row := rows.get(video.video_id)) is not None:
                digest = table.digests[row].tobytes().hex()
                same = known.get((video.video_id, digest), ()) == sources.stamp(video) != ()
                stored = Stored(store, video.video_id)
                recorded = {"settings_hash": table.kind(row).settings_hash}  # other in a folder from another store
                differing = changes(recorded, {"settings_hash": store.settings_hash_of(table.kind(row).shapes)})
                found[video.video_id] = [*differing, *([] if same else sources.differences(video, stored))]
    return {video_id: differing for video_id, differing in found.items() if differing}


def _first(videos: dict[str, list[str]]) -> str:
    return spelled_out([f"{video_id}: {'; '.join(what)}" for video_id, what in videos.items()], SHOWN)


def _brief(value: Any) -> str:
    text = value if isinstance(value, str) else str(value)
    return (f"{text[:12]}.." if len(text) == 64 else text) or "nothing"
