"""Opening a store to write into it: by one run at a time, with that run's settings, free of what killed runs left."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Iterator
from pathlib import Path

from pipeline import storage
from pipeline.extraction.journal import Summary
from pipeline.extraction.plan import Sources, plan, refuse_loss
from pipeline.manifest import Manifest, Video
from pipeline.store import VideoStore, annotated, annotation, catalogue, compatibility, layout, open_store
from pipeline.store.annotation import AnnotationSet
from pipeline.store.lock import only_writer
from pipeline.store.settings import ExtractionSettings
from pipeline.store.writing import add_groups, create_store, writing_to


def settled(
    path: Path, settings: ExtractionSettings, manifest: Manifest, sources: Sources, retry_quarantined: bool = False
) -> Summary | None:
    """What there is to say of a store in which a run would find nothing to do; None where it would.

    Nothing is written for it, not even the lock. Raises Refusal as `create_store` and `plan` do.
    """
    began = time.perf_counter()
    if storage.read_if_there(path / layout.RECORD) is None:
        return None
    store = create_store(path, settings)
    todo, summary = plan(manifest, store, sources, retry_quarantined)
    listed = AnnotationSet.of_manifest(manifest)
    said = annotated.of_extraction(path, store.listing.table, listed)
    if todo or not store.listing.current or any(_strays(path)) or said != said.updated(listed):
        return None
    summary.wall = time.perf_counter() - began
    return summary


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
        if compatibility.disagreements(store, settings):
            listed = {row.video_id: row for row in manifest.rows}
            unlisted = [video_id for video_id in store.videos if video_id not in listed]
            refuse_loss([listed[name] for name in store.videos if name in listed], sources, store, unlisted)
            with writing_to(path):
                store = start_over(store, settings)
        yield store


@contextlib.contextmanager
def run_into(
    path: Path,
    settings: ExtractionSettings,
    manifest: Manifest,
    sources: Sources,
    retry_quarantined: bool = False,
    overwrite: bool = False,
) -> Iterator[tuple[dict[str, Video], Summary]]:
    """What a run into the store at `path` has to do, by video id, and its summary so far.

    The store is ready for these videos and for nobody else meanwhile; where the block ends well, its catalogue is brought
    up to date. Raises Refusal as `opened_for_writing` and `plan` do.
    """
    with opened_for_writing(path, settings, manifest, sources, overwrite) as store:
        todo, summary = plan(manifest, store, sources, retry_quarantined, overwrite)
        summary.annotated = make_ready(store, manifest, todo)
        yield todo, summary
        with writing_to(path):
            catalogue.save(path)


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
    storage.commit(root / layout.RECORD, compatibility.root_record(settings))
    return open_store(root)


def make_ready(store: VideoStore, manifest: Manifest, video_ids: Collection[str]) -> int:
    """Sweep, then write what the manifest says and what lies above the videos that are to come.

    Returns of how many videos something else was said before.
    """
    root = store.root
    listed = AnnotationSet.of_manifest(manifest)
    before = annotated.of_extraction(root, store.listing.table, listed)
    after = before.updated(listed)
    with writing_to(root):
        sweep(root)
        # Records of schema 1 say it themselves; those to come say nothing, so that all of it is written beside them first.
        if after != before or (video_ids and store.schema < layout.SCHEMA):
            annotation.save(root, annotation.EXTRACTION, after)
            if store.schema < layout.SCHEMA:
                storage.commit(root / layout.RECORD, compatibility.upgraded_root_record(store))
        add_groups(root, video_ids)
    return before.changed(listed)


def sweep(root: Path) -> None:
    """Remove what killed runs left aside of the files that they were about to rename."""
    for path in list(_strays(root)):
        (storage.remove_folder if path.is_dir() else storage.remove)(path)


def _strays(root: Path) -> Iterator[Path]:
    return storage.left_aside(root, skip=layout.reserved())  # arrays are not entered
