"""Opening a store to write into it: by one run at a time, with that run's settings, free of what killed runs left."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from pipeline import catalogue, classes, layout, origin, storage
from pipeline.lock import only_writer
from pipeline.manifest import Manifest
from pipeline.plan import Sources, refuse_loss
from pipeline.settings import ExtractionSettings
from pipeline.store import VideoStore, open_store
from pipeline.writer import add_groups, create_store, writing_to

ASIDE = ".partial"


@contextlib.contextmanager
def opened_for_writing(
    path: Path, settings: ExtractionSettings, manifest: Manifest, sources: Sources, overwrite: bool = False
) -> Iterator[VideoStore]:
    """The store at `path`, made if it is not there, for one run alone.

    Raises Refusal as `create_store` does; with `overwrite`, a store of other settings or other software is emptied, unless
    it has videos that are not in the manifest or whose files are gone.
    """
    create_store(path, settings, overwrite)
    with only_writer(path):
        store = create_store(path, settings, overwrite)  # another run may have been here before the lock was ours
        if origin.disagreements(store, settings):
            listed = {row.video_id: row for row in manifest.rows}
            unlisted = [video_id for video_id in store.videos if video_id not in listed]
            refuse_loss([listed[name] for name in store.videos if name in listed], sources, store, unlisted)
            with writing_to(path):
                store = start_over(store, settings)
        yield store


def start_over(store: VideoStore, settings: ExtractionSettings) -> VideoStore:
    """Empty a store, then give it these settings.

    In this order, so that killed at any moment it is a store with fewer videos, all of the settings that it names: first
    the commit records, for they alone make videos exist, then everything that was made with the old settings, and last
    the store's own record. The journal stays.
    """
    root = store.root
    for record in list(catalogue.record_files(root)):
        storage.remove(record.path)
    storage.remove(layout.catalogue_path(root))
    for folder in (root / "videos", root / "quarantine"):
        storage.remove_folder(folder)
    for path in (layout.classes_path(root), layout.classes_digest_path(root)):
        storage.remove(path)
    storage.commit(root / layout.RECORD, origin.root_record(settings))
    return open_store(root)


def make_ready(root: Path, manifest: Manifest, video_ids: Iterable[str]) -> None:
    """Sweep, then write what lies above the videos that are to come."""
    with writing_to(root):
        sweep(root)
        classes.add(root, manifest.classes)
        add_groups(root, video_ids)


def sweep(root: Path) -> None:
    """Remove what killed runs left aside of the files that they were about to rename; arrays are not entered.

    Object stores have no such files: there nothing is renamed.
    """
    if not storage.is_local(root):
        return
    for folder, below, files in os.walk(root):
        for name in [name for name in below if name.endswith(ASIDE)]:
            shutil.rmtree(Path(folder, name))
        for name in [name for name in files if name.endswith(ASIDE)]:
            Path(folder, name).unlink()
        below[:] = [name for name in below if name not in layout.RESERVED and not name.endswith(ASIDE)]
