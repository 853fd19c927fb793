"""What a run has to do: the manifest and its source files against the store."""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pipeline import storage
from pipeline.errors import Refusal, spelled_out
from pipeline.extraction.journal import Summary
from pipeline.extraction.progress import comparing
from pipeline.manifest import Manifest, Video
from pipeline.store import VideoStore, catalogue, layout

SHOWN = 5  # videos that a refusal spells out


class Sources(Protocol):
    """Where the manifest's videos come from."""

    def has(self, video: Video) -> bool:
        """Whether the video's source is there."""

    def differences(self, video: Video, stored: Stored) -> list[str]:
        """What is not as it was when the video was stored; [] where no source is there."""


@dataclass(frozen=True)
class Stored:
    """A stored video. bytes: of its file, -1 where its record does not tell. committed: when, in nanoseconds since 1970."""

    store: VideoStore
    video_id: str
    bytes: int
    committed: int

    @property
    def record(self) -> dict[str, Any]:
        """The commit record, which is read. Raises Refusal."""
        return catalogue.read_record(layout.record_path(self.store.root, self.video_id)) or {}


class VideoFiles:
    """Files below a folder.

    As with make, a file that is older than what was made of it is taken to be unchanged; what is not, or has another size,
    is read. No times are stored, so that stores are equal from machine to machine.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def has(self, video: Video) -> bool:
        return (self.root / video.path).is_file()

    def differences(self, video: Video, stored: Stored) -> list[str]:
        file = self.root / video.path
        try:
            status = file.stat()
            if not stat.S_ISREG(status.st_mode):
                return []
            if status.st_size == stored.bytes and status.st_mtime_ns < stored.committed:
                return []
            now = {"bytes": status.st_size, "sha256": storage.file_digest(file)}
        except OSError:
            return []  # it is gone or cannot be read; what is stored of it is whole all the same
        return changes(stored.record["file"], now)


def changes(stored: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Each entry of `now` that differs from what is stored: ["bytes 123 -> 456", ...]."""
    return [f"{key} {_brief(stored[key])} -> {_brief(value)}" for key, value in now.items() if stored[key] != value]


def plan(
    manifest: Manifest, store: VideoStore, sources: Sources, retry_quarantined: bool = False, overwrite: bool = False
) -> tuple[dict[str, Video], Summary]:
    """What is to be done, by video id: what is missing and, with `overwrite`, what has changed since it was stored.

    Raises Refusal where stored videos have other source files than the manifest, or other settings than the store, for
    skipping them would keep the old ones, and where `overwrite` would lose a video that cannot be made again.
    """
    stored = set(store.listing.table.ids.to_pylist())
    changed = _changed(manifest, store, sources)
    if changed and not overwrite:
        raise Refusal(
            f"{len(changed)} stored videos are not what the manifest lists:" + _first(changed),
            where=str(store.root),
            remedy="`--overwrite true` redoes exactly these; or extract into another STORE=; nothing was written",
        )
    refuse_loss([row for row in manifest.rows if row.video_id in changed], sources, store)
    done = stored - changed.keys()
    refused = set() if retry_quarantined else store.quarantine.keys() - stored
    todo = {row.video_id: row for row in manifest.rows if row.video_id not in done and row.video_id not in refused}
    summary = Summary(
        skipped=sum(row.video_id in done for row in manifest.rows),
        in_quarantine=sum(row.video_id in refused for row in manifest.rows),
    )
    return todo, summary


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
            remedy="give their files and a manifest that lists them, or another STORE=; nothing was written",
        )


def _changed(manifest: Manifest, store: VideoStore, sources: Sources) -> dict[str, list[str]]:
    """Video id -> what differs, of the manifest's stored videos."""
    found, listing, table = {}, store.listing, store.listing.table
    rows = {video_id: row for row, video_id in enumerate(table.ids.to_pylist())}
    with comparing():  # what is newer than its record is read whole
        for video in manifest.rows:
            if (row := rows.get(video.video_id)) is not None:
                stored = Stored(store, video.video_id, int(listing.bytes[row]), int(listing.committed[row]))
                recorded = {"settings_hash": table.kind(row).settings_hash}  # other in a folder from another store
                differing = changes(recorded, {"settings_hash": store.settings_hash})
                found[video.video_id] = [*differing, *sources.differences(video, stored)]
    return {video_id: differing for video_id, differing in found.items() if differing}


def _first(videos: dict[str, list[str]]) -> str:
    return spelled_out([f"{video_id}: {'; '.join(what)}" for video_id, what in videos.items()], SHOWN)


def _brief(value: Any) -> str:
    text = value if isinstance(value, str) else str(value)
    return (f"{text[:12]}.." if len(text) == 64 else text) or "nothing"
