"""An extraction without Dask, and what two stores are compared by."""

from __future__ import annotations

import os
from pathlib import Path

from pipeline import catalogue, importers, job, storage
from pipeline.settings import ExtractionSettings
from pipeline.store import VideoStore, open_store
from pipeline.writer import add_classes, add_groups, create_store


def extract_here(videos: Path, store: Path, settings: ExtractionSettings) -> VideoStore:
    """Every video below `videos`, one after the other in this process; none may be refused."""
    manifest = importers.read("folder", videos)
    create_store(store, settings)
    add_classes(store, manifest.classes)
    add_groups(store, [row.video_id for row in manifest.rows])
    for row in manifest.rows:
        outcome = job.extract_video(str(videos), str(store), row, settings.as_dict())
        assert outcome.status == "stored", outcome
    catalogue.save(store)
    return open_store(store)


def content(store: Path) -> dict[str, bytes]:
    """Every file of a store that is a function of its videos and settings: all but journal, lock and quarantine."""
    apart = frozenset({"journal", "quarantine"})
    files = [file.path for file in storage.files_below(store, skip=apart) if file.path.name != ".lock"]
    return {os.path.relpath(str(path), str(store)): storage.read(path) for path in files}
