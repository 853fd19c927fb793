"""Opening a store to write into it: by one run at a time, with that run's settings, free of what killed runs left."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from pipeline import storage
from pipeline.errors import Refusal
from pipeline.extraction.journal import journals
from pipeline.extraction.plan import Plan, Sources, as_stored, plan, refuse_loss
from pipeline.manifest import Manifest
from pipeline.store import (
    VideoStore,
    annotated,
    annotation,
    catalogue,
    compatibility,
    inventory,
    layout,
    open_store,
    there_is_a_store,
)
from pipeline.store.annotation import AnnotationSet
from pipeline.store.lock import only_writer
from pipeline.store.settings import ExtractionSettings, settings_hash
from pipeline.store.writing import add_folders_in_videos, add_groups, create_store, writing_to


def joined(path: Path, settings: ExtractionSettings, add_views: bool, overwrite: bool) -> ExtractionSettings:
    """What is stored of every video of the store at `path`: these settings, and those of its other views.

    Raises Refusal where it lacks one of the views and is to get none.
    """
    if not there_is_a_store(path):
        return settings
    store = open_store(path)
    both = settings.beside(store.settings)
    lacking = [name for name in settings.views if name not in store.settings]
    if lacking and not (add_views or overwrite or compatibility.disagreements(store, both, add_views=True)):
        has = ",".join(name for name in both.views if name in store.settings)
        raise Refusal(
            f"the store has no {' and no '.join(lacking)}",
            where=str(path),
            remedy=f"`--views {','.join(lacking)}` adds that to its videos, `--views {has}` goes on without;"
            " nothing was written",
        )
    return both


@contextlib.contextmanager
def run_into(
    path: Path,
    settings: ExtractionSettings,
    manifest: Manifest,
    sources: Sources,
    retry_quarantined: bool = False,
    overwrite: bool = False,
    add_views: bool = False,
) -> Iterator[Plan]:
    """What a run into the store at `path`, which is made if it is not there, has to do.

    The store is ready for these videos and for nobody else meanwhile; where the block ends well, its catalogue is
    brought up to date. With nothing to do nothing is written, not even the lock. Raises Refusal as `create_store`,
    `only_writer` and `plan` do; with `overwrite`, a store of other settings or other software is emptied, unless it has
    videos that are not in the manifest or whose files are gone.
    """

    def planned(store: VideoStore) -> Plan:
        return plan(manifest, store, settings, sources, retry_quarantined, overwrite)

    store = create_store(path, settings, overwrite, add_views)
    manifest = as_stored(manifest, store)
    found, before = None, _traces(path)
    if not compatibility.disagreements(store, settings, add_views):
        found = planned(store)
        if _finished(store, settings, manifest, found):
            yield found
            return
    with only_writer(path):
        untouched = _traces(path) == before  # or another run was here before the lock was ours
        store = _of_these_settings(path, settings, manifest, sources, overwrite, add_views)
        if found is None or not untouched:
            found = planned(store)
        found.summary.annotated = make_ready(store, manifest, found.todo)
        yield found
        with writing_to(path):
            sweep(path)  # what workers left that died
            add_groups(path, found.todo)  # the writer of `a`, done again, may have removed the one above `a/b`
            inventory.settle(path, catalogue.save(path))


def _traces(root: Path) -> tuple[Any, ...]:
    """What no run that did something leaves as it was."""
    catalogued = layout.catalogue_path(root)
    with contextlib.suppress(FileNotFoundError):
        return storage.read(root / layout.RECORD), journals(root), storage.changed(catalogued)
    return storage.read(root / layout.RECORD), journals(root)


def _finished(store: VideoStore, settings: ExtractionSettings, manifest: Manifest, found: Plan) -> bool:
    """Whether the store is as a run that had nothing to do would leave it."""
    whole = store.settings_hash == settings_hash(settings.as_dict())
    listed = AnnotationSet.of_manifest(manifest)
    said = annotated.of_extraction(store.root, store.listing.table, listed)
    current = store.listing.current and said == said.updated(listed)
    settled = whole and current and inventory.is_settled(store.root)
    return settled and not found.todo and not any(_strays(store.root))


def _of_these_settings(
    path: Path, settings: ExtractionSettings, manifest: Manifest, sources: Sources, overwrite: bool, add_views: bool
) -> VideoStore:
    """The store at `path`, which is ours alone, emptied where it was made otherwise, and with all of the views."""
    store = create_store(path, settings, overwrite, add_views)
    with writing_to(path):
        if compatibility.disagreements(store, settings, add_views):
            listed = {row.video_id: row for row in manifest.rows}
            unlisted = [video_id for video_id in store.videos if video_id not in listed]
            refuse_loss([listed[name] for name in store.videos if name in listed], sources, store, unlisted)
            return start_over(store, settings)
        if settings.views.keys() - store.settings.keys():
            storage.commit(path / layout.RECORD, compatibility.grown_root_record(store, settings))
            return open_store(path)
    return store


def start_over(store: VideoStore, settings: ExtractionSettings) -> VideoStore:
    """Empty a store, then give it these settings.

    In this order, so that killed at any moment it is a store with fewer videos, all of the settings that it names:
    first the commit records, for they alone make videos exist, then everything that was made with the old settings, and
    last the store's own record. The journal stays.
    """
    root = store.root
    table = store.listing.table
    inventory.take_in_hand(root, [*table.ids.to_pylist(), *table.missing, *store.quarantine])
    for file in list(catalogue.record_files(root)):
        if file.size != catalogue.PLAIN_GROUP:
            storage.remove(file.path)
    storage.remove(layout.catalogue_path(root))
    for folder in (root / "videos", root / "quarantine"):
        storage.remove_folder(folder)
    for path in (layout.classes_digest_path(root), layout.classes_path(root)):
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
        known = {*store.listing.table.ids.to_pylist(), *store.listing.table.missing}
        refused = set(inventory.in_quarantine(root))
        inventory.take_in_hand(root, [name for name in video_ids if name in known or layout.quoted(name) in refused])
        # Records of schema 1 say it themselves; those to come say nothing, so that all of it is written beside them
        # first.
        if after != before or (video_ids and store.schema < layout.SCHEMA):
            annotation.save(root, annotation.EXTRACTION, after)
            if store.schema < layout.SCHEMA:
                storage.commit(root / layout.RECORD, compatibility.upgraded_root_record(store))
        add_groups(root, video_ids)
        add_folders_in_videos(root, video_ids)
    return before.changed(listed)


def sweep(root: Path) -> None:
    """Remove what killed runs left aside of the files that they were about to rename."""
    for path in list(_strays(root)):
        (storage.remove_folder if path.is_dir() else storage.remove)(path)


def _strays(root: Path) -> Iterator[Path]:
    return storage.left_aside(root, skip=layout.reserved())  # arrays are not entered
