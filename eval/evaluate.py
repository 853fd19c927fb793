"""Evaluate a run: features of each stage's network, trained and untrained, retrieval, linear probe, results, report."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import itertools
import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from eval import classification, clusters, features, results, retrieval, streams, unlabelled
from eval.bank import FeatureBank
from eval.features import Request, Seen
from eval.measuring import Measured, fuse, measure
from eval.protocols import PROTOCOLS, Protocol
from eval.published import Origin, counterpart, origin
from eval.report import write_report
from eval.results import ADJUSTED, NETWORKS, Record
from eval.runs import Stage, bank_path, classes_path, probed_path, stages, trained_videos
from eval.splits import SCORES, TESTED, compared_videos, damaged_videos, judged, lacks
from eval.task import Task
from pipeline import storage
from pipeline.errors import Refusal, UsageError, refuse_unknown
from pipeline.store import Damaged, VideoStore
from pipeline.terminal import Terminal
from train import checkpoints, provenance
from train.clips.streams import Stream
from train.hardware import reading_threads
from train.hardware.precision import TORCHS_TF32
from train.networks.network import Network
from train.provenance import data_of

log = logging.getLogger(__name__)
errors = Terminal(stderr=True)


@dataclass(frozen=True)
class Subject:
    """Whose features, taken how: the network of a stage (its `origin`, digest of its `checkpoint`) on a stream, by a
    protocol."""

    stage: str
    origin: Origin
    checkpoint: str
    protocol: str
    network: str
    stream: str


def evaluate(
    run: Path,
    store: VideoStore,
    protocols: Sequence[str] | None,
    reader_name: str,
    threads: int,
    half: bool = False,
) -> tuple[Path, list[Record]]:
    """Measure every stage of a run that has a checkpoint; write RUN/results.json and RUN/report.html.

    Features are kept in RUN/features and used again while nothing that they depend on has changed. Results on other
    stores, or by other annotation sets, stay as long as the run's checkpoints do.

    Args:
        run: folder of a run, finished or not.
        store: also another one than that which was trained on, with any labels and splits: see `eval.splits`.
        protocols: names in `eval.protocols.PROTOCOLS`; none: clean, and the one of the paper of the run's methods.
        reader_name, threads: of `train.reader.create`; 0 threads: one for each core, eight at most.
        half: features are kept as float16, in half the space.

    Returns:
        The report's path, or where the results or features are if there is nothing for it to tell of; and the records.

    Raises:
        Refusal: no run or no checkpoint, a store of fewer than two recordings, a damaged checkpoint.
    """
    chosen = asked_for(protocols)
    trained_stages = stages(run)
    chosen = chosen or of_methods(
        {method for stage in trained_stages for method in checkpoints.made_by(stage.checkpoint)}
    )
    if lost := store.table.told_of_missing():
        log.warning("%s", lost)
    threads = reading_threads(threads)
    store, told = judged(store)
    videos, left_out = compared_videos(store)
    for one in (*told, *left_out):
        log.warning("%s", one)
    tested = {video for video in videos if store.info(video).split == TESTED}
    for stage in trained_stages:
        if seen := trained_videos(stage, run, store) & tested:
            log.warning("stage %s was trained on %d of the %d test videos", stage.name, len(seen), len(tested))
    task = Task(run, trained_stages, store, videos, chosen, reader_name, threads, half)
    try:
        records = _measured(task)
    except Damaged:  # once more without all that are, so that what is made for the others is made once
        views = {given.view for stage in trained_stages for given in _streams(stage)}
        damaged = damaged_videos(store, videos, views)
        if not damaged.videos:
            raise
        log.warning("%s", damaged)
        rest = [video for video in videos if video not in damaged.videos]
        records = _measured(dataclasses.replace(task, videos=rest))
    with results.in_turn(run):
        if everything := [*_others(run, store, trained_stages), *records]:
            results.write(run / "results.json", everything)
        if not any(record.metric == "R@1" for record in records):
            log.warning("there is no report: nothing was retrieved by class, of which it tells")
            return run / ("results.json" if everything else "features"), records
        with errors.status("writing the report"):
            return write_report(run, store), records


def _measured(task: Task) -> list[Record]:
    """All that labels suffice for; what they do not is told."""
    store = task.store
    lacking = lacks(store, task.videos)
    for what, why in lacking.items():
        log.warning("no %s: %s", what, why)
    subjects, banks = _banks(task)
    measured: dict[tuple[Request, bool], Measured] = {}
    records: list[Record] = []
    classes: list[dict[str, object]] = []
    latest: dict[tuple[str, str, str], Subject] = {}
    grouped: dict[Request, dict[str, float]] = {}
    for subject, request in subjects.items():
        centre = PROTOCOLS[subject.protocol].centre
        if (request, centre) not in measured:
            bank = FeatureBank.load(banks[request])
            measured[request, centre] = measure(bank, centre, probed_path(banks[request]), lacking)
            if request not in grouped:
                grouped[request] = {} if SCORES in lacking else _clusters(bank)
        records += _records(subject, measured[request, centre], store, grouped[request])
        classes += _by_class(subject, measured[request, centre], store)
        latest[subject.protocol, subject.network, subject.stream] = subject  # in the place of an earlier stage
    for protocol, network in itertools.product(task.protocols, NETWORKS):
        present = [stream for name, kind, stream in latest if (name, kind) == (protocol.name, network)]
        parts = [latest[protocol.name, network, stream] for stream in streams.fused_in_order(present)]
        if len(parts) > 1:
            requests = [subjects[part] for part in parts]
            alone = [measured[request, protocol.centre] for request in requests]
            loaded = [FeatureBank.load(banks[request]) for request in requests]
            whole = _together(parts)
            kept = probed_path(bank_path(task.run, store, whole.stage, network, protocol.name, whole.stream))
            fused = fuse(protocol, [part.stream for part in parts], loaded, alone, kept, lacking)
            agreeing = {} if SCORES in lacking else _agreement(loaded)
            records += _records(whole, fused, store, agreeing)
            classes += _by_class(whole, fused, store)
    if classes:
        _write_table(classes_path(task.run, store), classes)
    for (name, network, _), subject in latest.items():
        if network == "trained" and "retrieval" in lacking:
            path = banks[subjects[subject]]
            written = unlabelled.write(FeatureBank.load(path), PROTOCOLS[name].centre, path)
            listed = " and ".join(map(str, written))
            errors.print(f"{subject.stage}, {subject.stream}, protocol {name}: neighbours and clusters in {listed}")
    return [*records, *_tested(task)]


def _tested(task: Task) -> list[Record]:
    """What the test of the run's classifiers gives, told."""
    found, left_out = classification.tested(task)
    for sentence in left_out:
        log.warning("%s", sentence)
    for record in found:
        who = f"{record.stage}, {record.stream}, protocol {record.protocol}"
        errors.print(f"{who}: {record.metric} {100 * record.value:.1f} % (guessing {100 * (record.chance or 0):.1f} %)")
    return found


def _streams(stage: Stage) -> list[Stream]:
    clips, _ = provenance.clips_of(stage.metadata, stage.checkpoint)
    return [clips.stream(stream) for stream in stage.metadata["streams"]]


def add_means(run: Path, store: VideoStore, names: Sequence[str]) -> list[Record]:
    """Add to RUN/results.json the means over these annotation sets of the store, by all of which it was evaluated."""
    path = run / "results.json"
    with results.in_turn(run):
        found = results.read(path)
        made = results.means([record for record in found if record.data == data_of(store)], names)
        results.write(path, [*found, *made])
    return made


def asked_for(protocols: Sequence[str] | None) -> list[Protocol]:
    """Protocols by their names. Raises UsageError for a name that is unknown, and where none is listed."""
    if protocols is None:
        return []
    for name in protocols:
        if name not in PROTOCOLS:
            refuse_unknown("protocol", name, PROTOCOLS)
    if not protocols:
        raise UsageError("no protocol is asked for", remedy=f"there are {', '.join(PROTOCOLS)}")
    return [PROTOCOLS[name] for name in dict.fromkeys(protocols)]


def of_methods(methods: Collection[str]) -> list[Protocol]:
    """The protocol `clean`, and those of the papers that the methods are of."""
    return [p for p in PROTOCOLS.values() if p.name == "clean" or set(p.methods) & set(methods)]


def _together(parts: Sequence[Subject]) -> Subject:
    stages = dict.fromkeys((part.stage, part.checkpoint) for part in parts)
    stage, checkpoint = ("+".join(names) for names in zip(*stages, strict=True))
    made_by = parts[0].origin
    if any(part.origin != made_by for part in parts):
        made_by = dataclasses.replace(made_by, method="")  # nobody published such a pair
    stream = streams.together(len(parts))
    return dataclasses.replace(parts[0], stage=stage, origin=made_by, checkpoint=checkpoint, stream=stream)


def _clusters(bank: FeatureBank) -> dict[str, float]:
    """Of the test videos, by their rows as they are."""
    tested = bank.rows(TESTED)
    return clusters.measure(bank.features[tested], bank.labels[tested], int(bank.attributes["seed"]))


def _agreement(views: Sequence[FeatureBank]) -> dict[str, float]:
    """Of the clusters of several streams, of the test videos."""
    tested, seed = views[0].rows(TESTED), int(views[0].attributes["seed"])
    return clusters.between([bank.features[tested] for bank in views], views[0].labels[tested], seed)


def _records(subject: Subject, measured: Measured, store: VideoStore, grouped: dict[str, float]) -> list[Record]:
    """`grouped`: what was measured of the clusters."""
    values: dict[str, tuple[float, float | None]] = {}
    chance = retrieval.chance(measured.wanted, measured.have) if len(measured.have) else {}
    if measured.ranks is not None:
        values = {f"R@{k}": (share, chance[k]) for k, share in retrieval.shares(measured.ranks).items()}
    if measured.voted is not None:
        values["knn_top1"] = (float(np.mean(measured.voted == measured.wanted)), chance[1])
    if measured.probabilities is not None:
        accuracy = float(np.mean(measured.probabilities.argmax(1) == measured.wanted))
        # Guessing a class as often as it occurs in training is right as often as a random training video is.
        values["linear_top1"] = (accuracy, chance[1])
    values |= {name: (value, 0.0 if name.endswith(ADJUSTED) else None) for name, value in grouped.items()}
    shown = [
        f"{word} {100 * values[metric][0]:.1f} %"
        for metric, word in (("R@1", "R@1"), ("linear_top1", "linear"))
        if metric in values
    ]
    if shown:
        who = f"{subject.stage}, {subject.stream}, {subject.network}, protocol {subject.protocol}"
        errors.print(f"{who}: {', '.join(shown)} (guessing {100 * chance[1]:.1f} %)")
    data = data_of(store)
    # The papers' linear probes are trained otherwise, so only retrieval has a counterpart.
    quotes = {
        metric: counterpart(subject.origin, subject.stream, data, metric, subject.protocol)
        for metric in values
        if metric.startswith("R@") and subject.network == "trained"
    }
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
            annotations=results.told(store),
            chance=guess,
            published=quote.value if (quote := quotes.get(metric)) else None,
        )
        for metric, (value, guess) in values.items()
    ]


def _by_class(subject: Subject, measured: Measured, store: VideoStore) -> list[dict[str, object]]:
    """R@k of the test videos of each class, in percent."""
    if measured.ranks is None:
        return []
    said = {"protocol": subject.protocol, "stream": subject.stream, "network": subject.network, "stage": subject.stage}
    return [
        said
        | {"class": store.classes[label], "videos": int(np.sum(measured.wanted == label))}
        | {f"R@{k}": f"{100 * share:.2f}" for k, share in found.items()}
        for label, found in retrieval.by_class(measured.ranks, measured.wanted).items()
    ]


def _write_table(path: Path, rows: Sequence[dict[str, object]]) -> None:
    table = io.StringIO()
    writer = csv.DictWriter(table, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    with storage.writing("the table of classes", path):
        storage.write_atomically(path, table.getvalue().encode())


def _banks(task: Task) -> tuple[dict[Subject, Request], dict[Request, Path]]:
    """What each stage's networks are asked for, in the order of stages, and the features that answer it."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    store, videos = task.store, task.videos
    known, contents = features.videos_digest(store, videos), features.contents_digest(store, videos)
    subjects: dict[Subject, Request] = {}
    networks: dict[Request, Network] = {}
    with contextlib.ExitStack() as opened:
        executor = opened.enter_context(task.reading())
        refreshed: dict[Network, tuple[Seen, int]] = {}

        def network(request: Request) -> Network:
            asked, seen = networks[request].to(device), request.shown
            if request.network == "untrained" and refreshed.get(asked) != (seen, request.seed):
                clips = features.training_clips(store, videos, seen, executor, device, request.seed)
                features.refresh_batchnorm(asked, clips)
                refreshed[asked] = seen, request.seed
            return asked

        for stage in task.stages:
            checkpoint = checkpoints.digest(stage.checkpoint)
            clips, sampling = provenance.clips_of(stage.metadata, stage.checkpoint)
            given = _networks(stage)
            for protocol, (kind, stream, found) in itertools.product(task.protocols, given):
                layer = _layer(protocol, found, stage)
                request = Request(
                    checkpoint=checkpoint if kind == "trained" else checkpoints.network_digest(found, layer),
                    network=kind,
                    seen=Seen(stream, clips, sampling),
                    layer=layer,
                    look=protocol.features,
                    seed=stage.metadata["seed"],
                    store_settings=store.settings_hash,
                    videos=known,
                    contents=contents,
                    sides=features.sides_digest(store, videos, protocol.features, kind),
                    reader=type(executor).__name__,
                    tf32=stage.metadata.get("tf32", TORCHS_TF32),
                    dtype="float16" if task.half else "float32",
                )
                networks.setdefault(request, found)
                made_by = origin(stage, stream, task.home)
                subjects[Subject(stage.name, made_by, checkpoint, protocol.name, kind, stream)] = request
        paths = {bank_path(task.run, store, s.stage, s.network, s.protocol, s.stream): r for s, r in subjects.items()}
        return subjects, features.banks(paths, network, store, videos, executor)


def _layer(protocol: Protocol, network: Network, stage: Stage) -> str:
    try:
        return protocol.features.layer_of(network.layers, stage.metadata["layer"])
    except UsageError as error:
        raise UsageError(
            error.what, where=f"{stage.checkpoint}, protocol {protocol.name}", remedy=error.remedy
        ) from error


def _networks(stage: Stage) -> list[tuple[str, str, Network]]:
    """(kind, stream, network) of a stage's networks."""
    trained = checkpoints.load_method(stage.checkpoint).networks
    fresh = checkpoints.untrained(stage.checkpoint).networks
    return [(kind, *item) for kind, made in (("trained", trained), ("untrained", fresh)) for item in made.items()]


def _others(run: Path, store: VideoStore, trained_stages: Sequence[Stage]) -> list[Record]:
    """What was measured of the run's present checkpoints on other stores, or by other annotation sets."""
    path, present = run / "results.json", {checkpoints.digest(stage.checkpoint) for stage in trained_stages}
    here = data_of(store), store.annotated.name
    try:
        found = results.read(path) if path.is_file() else []
    except Refusal as refusal:
        log.info("%s is written anew: %s", path, refusal.what)
        return []
    found = [record for record in found if (record.data, record.set_name) != here]
    found = [record for record in found if not record.set_name.startswith(results.MEAN)]
    return [record for record in found if set(record.checkpoint.split("+")) <= present]
