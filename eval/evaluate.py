"""Evaluate a run: features of every stage's network, trained and untrained, retrieval, linear probe, results, report."""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import LightningModule
from rich.console import Console

from eval import features, fusion, linear, results, retrieval
from eval.features import PROTOCOLS, ClipShape, FeatureBank, Request
from eval.published import counterpart
from eval.report import bank_path, write_report
from eval.results import NETWORKS, Record
from eval.runs import Stage, stages, trained_on
from pipeline.errors import Refusal, UsageError, refuse_unknown
from pipeline.store import VideoStore
from train import checkpoints, reader
from train.encoder import Encoder

TESTED, GALLERY = "test", "train"
errors = Console(stderr=True, highlight=False)


@dataclass(frozen=True)
class Measured:
    """What one network says about the test videos: similarities (Q, G) to the training videos, class probabilities (Q, C)."""

    stage: Stage
    checkpoint: str
    similarities: np.ndarray
    probabilities: np.ndarray
    classes: np.ndarray
    wanted: np.ndarray
    have: np.ndarray


def evaluate(
    run: Path, store: VideoStore, protocols: Sequence[str], reader_name: str, threads: int
) -> tuple[Path, list[Record]]:
    """Measure every stage of a run that has a checkpoint; write RUN/results.json and RUN/report.html.

    Features are kept in RUN/features and used again while nothing that they depend on has changed.

    Args:
        run: folder of a run, finished or not.
        store: labelled training and test videos; also another store than the one trained on.
        protocols: names in `eval.features.PROTOCOLS`.
        reader_name, threads: of `train.reader.create`; 0 threads: one for each core, eight at most.

    Returns:
        The report's path and the records.

    Raises:
        Refusal: no run or no checkpoint, a store without labelled training and test videos, a damaged checkpoint.
    """
    for name in protocols:
        if name not in PROTOCOLS:
            refuse_unknown("protocol", name, PROTOCOLS)
    if not protocols:
        raise UsageError("no protocol is asked for", remedy=f"there are {', '.join(PROTOCOLS)}")
    trained_stages = stages(run)
    videos = evaluated_videos(store)
    threads = threads or min(8, len(os.sched_getaffinity(0)))
    # Published numbers stand beside ours only for networks trained on the data set that they are tested on.
    home = all(trained_on(stage, run, store) for stage in trained_stages)
    records: list[Record] = []
    measured: dict[tuple[str, str, str], Measured] = {}
    for stage in trained_stages:
        for key, bank in _banks(run, stage, store, videos, protocols, reader_name, threads).items():
            measured[key] = measure(stage, bank)  # a later stage of the same stream takes its place
            records += _records(measured[key], *key, store, home)
    for name, network in itertools.product(protocols, NETWORKS):
        parts = [measured.get((name, network, stream)) for stream in ("rgb", "flow")]
        if parts[0] and parts[1]:
            records += _records(fuse(parts[0], parts[1]), name, network, "two-stream", store, home)
    results.write(run / "results.json", records)
    return write_report(run, store), records


def evaluated_videos(store: VideoStore) -> list[str]:
    """The labelled training and test videos of a store.

    Raises:
        Refusal: retrieval or a linear probe would be impossible, with what is missing.
    """
    labelled = {video: info for video, info in store.infos.items() if info.label}
    chosen = [video for video, info in labelled.items() if info.split in (GALLERY, TESTED)]
    counts = {split: [info.label for info in labelled.values() if info.split == split] for split in (GALLERY, TESTED)}
    remedy = (
        "put the videos into train/<class>/ and test/<class>/ and extract them again, or give a manifest with the columns"
        " label and split; training itself needs no labels"
    )
    where = f"{store.root} ({len(store.infos)} videos, {len(labelled)} with a label)"
    for split, labels in counts.items():
        if len(labels) < 2:
            what = f"evaluation needs labelled videos of the split {split!r}, and the store has {len(labels) or 'none'}"
            raise Refusal(what, where=where, remedy=remedy)
    if len(set(counts[GALLERY])) < 2 or len(set(counts[GALLERY])) == len(counts[GALLERY]):
        what = "evaluation needs at least two classes, and one of them with two training videos"
        raise Refusal(what, where=where, remedy=remedy)
    return chosen


def measure(stage: Stage, bank: FeatureBank) -> Measured:
    """Retrieval and linear probe of one bank: test videos against training videos."""
    tested, gallery = bank.rows(TESTED), bank.rows(GALLERY)
    wanted, have = bank.labels[tested], bank.labels[gallery]
    similarities = retrieval.similarity(bank.features[tested], bank.features[gallery])
    result = linear.probe(
        bank.features[gallery], have, bank.features[tested], wanted, seed=int(bank.attributes["seed"])
    )
    digest = str(bank.attributes["checkpoint"])
    return Measured(stage, digest, np.asarray(similarities), result.probabilities, result.classes, wanted, have)


def fuse(first: Measured, second: Measured) -> Measured:
    """Two streams as one: similarities are summed, class probabilities averaged."""
    one = first.stage.name == second.stage.name
    name = first.stage.name if one else f"{first.stage.name}+{second.stage.name}"
    digest = first.checkpoint if one else f"{first.checkpoint}+{second.checkpoint}"
    return Measured(
        Stage(name, first.stage.checkpoint, first.stage.metadata),
        digest,
        fusion.fuse_similarities(first.similarities, second.similarities),
        fusion.fuse_probabilities(first.probabilities, second.probabilities),
        first.classes,
        first.wanted,
        first.have,
    )


def _records(
    measured: Measured, protocol: str, network: str, stream: str, store: VideoStore, home: bool
) -> list[Record]:
    """`home`: the networks were trained on this store's videos."""
    wanted, have = measured.wanted, measured.have
    recall, chance = retrieval.recall(measured.similarities, wanted, have), retrieval.chance(wanted, have)
    accuracy = float(np.mean(measured.classes[measured.probabilities.argmax(1)] == wanted))
    values = {f"R@{k}": (recall[k], chance[k]) for k in recall}
    # Guessing a class as often as it occurs in training is right as often as a random training video is.
    values["linear_top1"] = (accuracy, chance[1])
    errors.print(
        f"{measured.stage.name}, {stream}, {network}, protocol {protocol}: R@1 {100 * recall[1]:.1f} %,"
        f" linear {100 * accuracy:.1f} % (guessing {100 * chance[1]:.1f} %)",
        soft_wrap=True,
    )
    data, method = store.root.resolve().name, measured.stage.metadata["method"]
    # The papers' linear probes are trained otherwise, so only retrieval has a counterpart.
    comparable = home and network == "trained" and protocol == "coclr"
    return [
        Record(
            metric=metric,
            value=value,
            protocol=protocol,
            stream=stream,
            network=network,
            stage=measured.stage.name,
            split=TESTED,
            data=data,
            checkpoint=measured.checkpoint,
            chance=guess,
            published=counterpart(method, data, stream, data, metric)
            if comparable and metric.startswith("R@")
            else None,
        )
        for metric, (value, guess) in values.items()
    ]


def _banks(
    run: Path,
    stage: Stage,
    store: VideoStore,
    videos: list[str],
    protocols: Sequence[str],
    reader_name: str,
    threads: int,
) -> dict[tuple[str, str, str], FeatureBank]:
    """(protocol, network, stream) -> features of a stage's networks."""
    clip, seed = stage.metadata["clip"], stage.metadata["seed"]
    shape = ClipShape(**{**clip, "size": tuple(clip["size"])})
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    executor = reader.create(reader_name, store, shape.size, threads)
    trained = _encoders(checkpoints.load_method(stage.checkpoint))

    @functools.cache
    def encoder(network: str, stream: str) -> Encoder:
        if network == "trained":
            return trained[stream].to(device)
        fresh = _encoders(checkpoints.untrained(stage.checkpoint))[stream].to(device)
        clips = features.training_clips(store, videos, stream, shape, executor, device, seed)
        features.refresh_batchnorm(fresh, clips)
        return fresh

    digest, contents = checkpoints.digest(stage.checkpoint), features.videos_digest(store, videos)
    found = {}
    try:
        for name, network, stream in itertools.product(protocols, NETWORKS, trained):
            request = Request(
                checkpoint=digest,
                network=network,
                stream=stream,
                protocol=PROTOCOLS[name],
                clip=shape,
                seed=seed,
                store_settings=store.settings_hash,
                videos=contents,
                reader=type(executor).__name__,
            )
            path = bank_path(run, stage.name, network, name, stream)
            make = functools.partial(encoder, network, stream)
            found[name, network, stream] = features.bank(path, request, make, store, videos, executor)
    finally:
        executor.close()
    return found


def _encoders(method: LightningModule) -> dict[str, Encoder]:
    """Every method has them, by stream; Lightning's class does not know."""
    return method.encoders  # type: ignore[return-value]
