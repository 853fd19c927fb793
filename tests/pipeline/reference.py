"""An extraction without Dask, and what two stores are compared by."""

from __future__ import annotations

import os
from pathlib import Path

from pipeline import importers, storage
from pipeline.extraction import job
from pipeline.extraction.journal import Summary
from pipeline.extraction.opening import joined, run_into
from pipeline.extraction.plan import VideoFiles
from pipeline.manifest import Manifest
from pipeline.store import VideoStore, open_store
from pipeline.store.settings import ExtractionSettings


def extract_here(videos: Path, store: Path, settings: ExtractionSettings) -> VideoStore:
    """Every video below `videos`, one after the other in this process; none may be refused."""
    summary = run_here(importers.read("folder", videos), videos, store, settings)
    assert not summary.quarantined, summary
    return open_store(store)


def run_here(
    manifest: Manifest,
    videos: Path,
    store: Path,
    settings: ExtractionSettings,
    retry_quarantined: bool = False,
    overwrite: bool = False,
    add_views: bool = False,
) -> Summary:
    """`pipeline.extraction.run.extract` without its workers: one video after the other, in this process."""
    settings, files = joined(store, settings, add_views, overwrite), VideoFiles(videos)
    with run_into(store, settings, manifest, files, retry_quarantined, overwrite, add_views) as found:
        for row in found.todo.values():
            adding = row.video_id in found.adding
            outcome = job.extract_video(str(videos), str(store), row, settings.as_dict(), adding=adding)
            assert outcome.status != "failed", outcome
            found.summary.count(outcome)
    return found.summary


def content(store: Path) -> dict[str, bytes]:
    """Every file of a store that is a function of its videos and settings: all but journal, locks, stamps, quarantine
    and the inventory, which lists that."""
    apart = frozenset({"journal", "quarantine"})
    files = [
        file.path
        for file in storage.files_below(store, skip=apart)
        if file.path.name not in (".lock", ".fence", "catalogue.stamps", "inventory.json")
    ]
    return {os.path.relpath(str(path), str(store)): storage.read(path) for path in files}
