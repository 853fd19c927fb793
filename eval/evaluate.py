"""Evaluate a run: features of every stage's network, trained and untrained, retrieval, linear probe, results, report."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import logging
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from eval import features, fusion, linear, results, retrieval, streams
from eval.features import FeatureBank, Request, Seen
from eval.protocols import PROTOCOLS
from eval.published import counterpart
from eval.report import bank_path, write_report
from eval.results import NETWORKS, Record
from eval.runs import Stage, stages, trained_on
from pipeline.errors import Refusal, UsageError, named, refuse_unknown
from pipeline.store import VideoStore
from pipeline.terminal import Terminal
from train import checkpoints, provenance, reader
from train.networks.network import Network

log = logging.getLogger(__name__)
SHOWN = 5  # videos that a message names
TESTED, GALLERY = "test", "train"
errors = Terminal(stderr=True)


@dataclass(frozen=True)
class Subject:
    """Whose features, taken how: the network of a stage (`method`, digest of its `checkpoint`) on a stream, by a
    protocol."""

    stage: str
    method: str
    checkpoint: str
    protocol: str
    network: str
    stream: str


@dataclass(frozen=True)
class Measured:
    """What one network says about the test videos: similarities (Q, G) to the training videos, class probabilities (Q,
    C)."""

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
        protocols: names in `eval.protocols.PROTOCOLS`.
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
    empty = store.table.names(np.flatnonzero(store.table.frames < 1))
    if empty:
        first = named([repr(video) for video in empty], SHOWN)
        log.warning("%d videos have no frame that all views have, and are left out: %s", len(empty), first)
    videos = evaluated_videos(store, set(empty))
    threads = threads or min(8, len(os.sched_getaffinity(0)))
    # Published numbers stand beside ours only for networks trained on the data set that they are tested on.
    home = all(trained_on(stage, run, store) for stage in trained_stages)
    subjects, banks = _banks(run, trained_stages, store, videos, protocols, reader_name, threads)
    measured = {request: measure(bank) for request, bank in banks.items()}
    records: list[Record] = []
    latest: dict[tuple[str, str, str], Subject] = {}
    for subject, request in subjects.items():
        records += _records(subject, measured[request], store, home)
        latest[subject.protocol, subject.network, subject.stream] = subject  # in the place of an earlier stage
    for name, network in itertools.product(protocols, NETWORKS):
        present = [stream for protocol, kind, stream in latest if (protocol, kind) == (name, network)]
        parts = [latest[name, network, stream] for stream in streams.fused_in_order(present)]
        if len(parts) > 1:
            fused = fuse(*(measured[subjects[part]] for part in parts))
            records += _records(_together(parts), fused, store, home)
    results.write(run / "results.json", records)
    return write_report(run, store), records


def evaluated_videos(store: VideoStore, left_out: Collection[str] = ()) -> list[str]:
    """The labelled training and test videos of a store, without those that are left out.

    Raises:
        Refusal: retrieval or a linear probe would be impossible, with what is missing.
    """
    labelled = {video: info for video, info in store.infos.items() if info.label and video not in left_out}
    chosen = [video for video, info in labelled.items() if info.split in (GALLERY, TESTED)]
    counts = {split: [info.label for info in labelled.values() if info.split == split] for split in (GALLERY, TESTED)}
    remedy = (
        "write labels and splits beside the videos: `make annotate STORE= MANIFEST=`, where the manifest has the columns label"
        " and split; `TEST_SHARE=.2` makes a split where there is none; training itself needs no labels"
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


def measure(bank: FeatureBank) -> Measured:
    """Retrieval and linear probe of one bank: test videos against training videos."""
    tested, gallery = bank.rows(TESTED), bank.rows(GALLERY)
    wanted, have = bank.labels[tested], bank.labels[gallery]
    similarities = retrieval.similarity(bank.features[tested], bank.features[gallery])
    result = linear.probe(
        bank.features[gallery], have, bank.features[tested], wanted, seed=int(bank.attributes["seed"])
    )
    return Measured(np.asarray(similarities), result.probabilities, result.classes, wanted, have)


def fuse(*parts: Measured) -> Measured:
    """Several streams as one: similarities are summed, class probabilities averaged."""
    return dataclasses.replace(
        parts[0],
        similarities=fusion.fuse_similarities(*(part.similarities for part in parts)),
        probabilities=fusion.fuse_probabilities(*(part.probabilities for part in parts)),
    )


def _together(parts: Sequence[Subject]) -> Subject:
    stages = dict.fromkeys((part.stage, part.checkpoint) for part in parts)
    stage, checkpoint = ("+".join(names) for names in zip(*stages, strict=True))
    return dataclasses.replace(parts[0], stage=stage, checkpoint=checkpoint, stream=streams.together(len(parts)))


def _records(subject: Subject, measured: Measured, store: VideoStore, home: bool) -> list[Record]:
    """`home`: the networks were trained on this store's videos."""
    wanted, have = measured.wanted, measured.have
    recall, chance = retrieval.recall(measured.similarities, wanted, have), retrieval.chance(wanted, have)
    accuracy = float(np.mean(measured.classes[measured.probabilities.argmax(1)] == wanted))
    values = {f"R@{k}": (recall[k], chance[k]) for k in recall}
    # Guessing a class as often as it occurs in training is right as often as a random training video is.
    values["linear_top1"] = (accuracy, chance[1])
    errors.print(
        f"{subject.stage}, {subject.stream}, {subject.network}, protocol {subject.protocol}: R@1 {100 * recall[1]:.1f} %,"
        f" linear {100 * accuracy:.1f} % (guessing {100 * chance[1]:.1f} %)"
    )
    data = store.root.resolve().name
    # The papers' linear probes are trained otherwise, so only retrieval has a counterpart.
    comparable = home and subject.network == "trained" and subject.protocol == "coclr"
    return [
        Record(
            metric=metric,
            value=value,
            protocol=subject.protocol,
            stream=subject.stream,
            network=subject.network,
            stage=subject.stage,
            split=TESTED,
            data=data,
            checkpoint=subject.checkpoint,
            annotations=f"{store.annotated.name} {store.annotated.digest[:16]}",
            chance=guess,
            published=counterpart(subject.method, data, subject.stream, data, metric)
            if comparable and metric.startswith("R@")
            else None,
        )
        for metric, (value, guess) in values.items()
    ]


def _banks(
    run: Path,
    trained_stages: Sequence[Stage],
    store: VideoStore,
    videos: list[str],
    protocols: Sequence[str],
    reader_name: str,
    threads: int,
) -> tuple[dict[Subject, Request], dict[Request, FeatureBank]]:
    """What each stage's networks are asked for, in the order of stages, and the features that answer it."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    contents = features.videos_digest(store, videos)
    subjects: dict[Subject, Request] = {}
    networks: dict[Request, Network] = {}
    with contextlib.ExitStack() as opened:
        executor = opened.enter_context(contextlib.closing(reader.create(reader_name, store, threads)))

        @functools.cache
        def refreshed(fresh: Network, seen: Seen, seed: int) -> Network:
            clips = features.training_clips(store, videos, seen, executor, device, seed)
            features.refresh_batchnorm(fresh, clips)
            return fresh

        def network(request: Request) -> Network:
            asked = networks[request].to(device)
            trained = request.network == "trained"
            return asked if trained else refreshed(asked, request.seen, request.seed)

        for stage in trained_stages:
            checkpoint = checkpoints.digest(stage.checkpoint)
            clips, sampling = provenance.clips_of(stage.metadata, stage.checkpoint)
            given = _networks(stage, checkpoint)
            for name, (kind, stream, digest, found) in itertools.product(protocols, given):
                request = Request(
                    checkpoint=digest,
                    network=kind,
                    seen=Seen(stream, clips, sampling),
                    layer=stage.metadata["layer"],
                    protocol=PROTOCOLS[name],
                    seed=stage.metadata["seed"],
                    store_settings=store.settings_hash,
                    videos=contents,
                    reader=type(executor).__name__,
                )
                networks.setdefault(request, found)
                subjects[Subject(stage.name, stage.metadata["method"], checkpoint, name, kind, stream)] = request
        paths = {bank_path(run, s.stage, s.network, s.protocol, s.stream): r for s, r in subjects.items()}
        return subjects, features.banks(paths, network, store, videos, executor)


def _networks(stage: Stage, checkpoint: str) -> list[tuple[str, str, str, Network]]:
    """(kind, stream, digest, network) of a stage's networks: `digest` as a `Request` has it in `checkpoint`."""
    trained = checkpoints.load_method(stage.checkpoint).networks
    fresh = checkpoints.untrained(stage.checkpoint).networks
    return [
        *(("trained", stream, checkpoint, network) for stream, network in trained.items()),
        *(
            ("untrained", stream, checkpoints.network_digest(network, stage.metadata["layer"]), network)
            for stream, network in fresh.items()
        ),
    ]
