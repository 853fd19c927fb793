"""Features of any videos, labelled or not, by a run's networks: of a store, or of a folder that is extracted first."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from eval import features
from eval.bank import FeatureBank
from eval.features import Request, Seen
from eval.protocols import PROTOCOLS
from eval.runs import Stage, stages
from pipeline import called, storage
from pipeline.errors import Refusal
from pipeline.extraction.journal import Summary
from pipeline.extraction.run import extract
from pipeline.manifest import Manifest
from pipeline.store import VideoStore, open_store
from pipeline.store.settings import ExtractionSettings
from train import checkpoints, provenance, reader
from train.hardware import reading_threads
from train.networks.network import Network

LOOK = PROTOCOLS["clean"].features  # all windows of every video, no pixel altered
TIME_LIMIT = 600.0  # seconds to wait for a frame of a video


def last_stages(run: Path) -> dict[str, Stage]:
    """Of each stream of a run the last stage that trained it. Raises Refusal without a run or a checkpoint."""
    return {stream: stage for stage in stages(run) for stream in stage.metadata["streams"]}


def extraction_settings(run: Path, like: VideoStore | None = None) -> ExtractionSettings:
    """How videos are to be extracted for the networks of a run: as those that they were trained on, or as `like`.

    Raises Refusal where the run does not say it (an imported one, or one of an older costream) and `like` is not given.
    """
    views = set()
    known, said_by = (None if like is None else like.settings), run
    for stream, stage in last_stages(run).items():
        views.add(provenance.clips_of(stage.metadata, stage.checkpoint)[0].stream(stream).view)
        if not known:
            known, said_by = stage.metadata.get("store_settings"), stage.checkpoint
    if not known:
        raise Refusal(
            "the run does not say how the videos that it was trained on were extracted",
            where=str(run),
            remedy=f"give a store that was extracted as they were, {called.option('store')}: its settings are taken",
        )
    try:
        return ExtractionSettings.from_dict(known).only(views)
    except ValueError as error:
        what = f"the checkpoint says what cannot be: store_settings: {error}"
        raise Refusal(what, where=str(said_by), remedy=checkpoints.REPLACE) from error


def extracted(
    manifest: Manifest, root: Path, store: Path, settings: ExtractionSettings, workers: int
) -> tuple[VideoStore, Summary]:
    """The store with all videos of the manifest, of which only what is missing is extracted; broken ones are left out.
    Raises Refusal where none could be used."""
    workers = workers or len(os.sched_getaffinity(0))
    summary = extract(manifest, root, store, settings, workers=workers, time_limit=TIME_LIMIT)
    opened = open_store(store)
    if not len(opened.videos):
        reasons = "; ".join(sorted(set(opened.quarantine.values())))
        why = f"none of the videos can be used: {reasons}"
        raise Refusal(why, where=str(root), remedy="repair or replace them")
    return opened, summary


def usable(store: VideoStore) -> tuple[list[str], list[str]]:
    """Videos of a store with a frame to look at, and those without."""
    empty = set(store.table.names(np.flatnonzero(store.table.frames < 1)))
    return [video for video in store.videos if video not in empty], sorted(empty)


def embed(
    run: Path, store: VideoStore, videos: Sequence[str], folder: Path, reader_name: str = "auto", threads: int = 0
) -> dict[str, FeatureBank]:
    """Of each stream of a run the features of videos of a store, kept in `folder`/<stream>.h5 and used again while
    nothing that they depend on has changed. Raises Refusal for a store without a view that the networks look at."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    threads = reading_threads(threads)
    with contextlib.closing(reader.create(reader_name, store, threads)) as executor:
        wanted: dict[str, Request] = {}
        networks: dict[Request, Network] = {}
        for stream, stage in last_stages(run).items():
            clips, sampling = provenance.clips_of(stage.metadata, stage.checkpoint)
            _refuse_without_view(store, clips.stream(stream).view, stream)
            wanted[stream] = Request(
                checkpoint=checkpoints.digest(stage.checkpoint),
                network="trained",
                seen=Seen(stream, clips, sampling),
                layer=stage.metadata["layer"],
                look=LOOK,
                seed=stage.metadata["seed"],
                store_settings=store.settings_hash,
                videos=features.videos_digest(store, videos),
                contents=features.contents_digest(store, videos),
                sides="",
                reader=type(executor).__name__,
            )
            networks[wanted[stream]] = checkpoints.load_method(stage.checkpoint).networks[stream]
        paths = {folder / f"{stream}.h5": request for stream, request in wanted.items()}
        made = features.banks(paths, lambda request: networks[request].to(device), store, videos, executor)
    return {
        stream: _of_width(made[request], networks[request].size(request.layer)) for stream, request in wanted.items()
    }


def _of_width(path: Path, width: int) -> FeatureBank:
    bank = FeatureBank.load(path)
    if bank.features.shape[1] != width:
        raise Refusal(
            f"features of {bank.features.shape[1]} numbers, and the network gives {width}",
            where=str(path),
            remedy="delete it and run the same command again",
        )
    return bank


def _refuse_without_view(store: VideoStore, view: str, stream: str) -> None:
    if view not in store.views:
        raise Refusal(
            f"the run's {stream} network looks at {view}, which the store does not have",
            where=str(store.root),
            remedy=f"add it: {called.command('extract', videos='', store=str(store.root), views=view)}",
        )


def write_parquet(banks: dict[str, FeatureBank], store: VideoStore, path: Path) -> None:
    """One row a video: video_id, label, split, and of each stream a list of its features (float32); in the metadata of
    the file what each depends on."""
    first = next(iter(banks.values()))
    infos = [store.info(video) for video in first.video_ids]
    columns: dict[str, pa.Array] = {
        "video_id": pa.array(first.video_ids, pa.string()),
        "label": pa.array([info.label or None for info in infos], pa.string()),
        "split": pa.array([info.split or None for info in infos], pa.string()),
    }
    facts: dict[str, str] = {}
    for stream, bank in banks.items():
        values = pa.array(np.ascontiguousarray(bank.features, dtype=np.float32).ravel())
        columns[stream] = pa.FixedSizeListArray.from_arrays(values, bank.features.shape[1])
        facts |= {f"{stream}.{name}": str(value) for name, value in bank.attributes.items()}
    content = pa.BufferOutputStream()
    pq.write_table(pa.table(columns).replace_schema_metadata(facts), content)
    with storage.writing("the features", path):
        storage.write_atomically(path, content.getvalue().to_pybytes())
