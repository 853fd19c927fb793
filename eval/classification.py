"""Networks that end in a classifier, tested end to end: class probabilities of every test video, kept by its id."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from eval import features, fusion, results, streams
from eval.bank import FeatureBank
from eval.features import Request, Seen
from eval.protocols import Protocol
from eval.published import Origin, classifier_origin, counterpart
from eval.results import Record
from eval.runs import Stage, bank_path, trained_videos
from eval.splits import TESTED
from eval.task import Task
from pipeline import called, storage
from pipeline.errors import Refusal, named
from pipeline.store import VideoStore
from pipeline.validation import parse_json
from train import checkpoints, provenance
from train.hardware.precision import TORCHS_TF32
from train.methods.classify import ClassifySettings
from train.networks.network import CLASSES, Network
from train.provenance import data_of

SHOWN = 5  # videos that a message names
KS = (1, 5)


@dataclass(frozen=True)
class Probabilities:
    """Class probabilities (N, C) of N videos. classes: names, in the order of the columns."""

    video_ids: list[str]
    classes: list[str]
    values: np.ndarray

    def __post_init__(self) -> None:
        if self.values.shape != (len(self.video_ids), len(self.classes)):
            shape = f"{len(self.video_ids)} videos and {len(self.classes)} classes"
            raise Refusal(
                f"probabilities of {shape} are {self.values.shape}", remedy="give the class list of their own"
            )

    def of(self, video_ids: Sequence[str], classes: Sequence[str]) -> np.ndarray:
        """Of these videos, and classes by name, in this order. Raises Refusal for one that is missing."""
        for kind, wanted, known in (("video", video_ids, self.video_ids), ("class", classes, self.classes)):
            if missing := sorted(set(wanted) - set(known)):
                shown = named([repr(name) for name in missing], SHOWN)
                raise Refusal(
                    f"{len(missing)} of {len(wanted)} have no probabilities, the first {kind}: {shown}",
                    remedy="test all that are fused on the same videos and classes:"
                    f" {called.command('evaluate', run='', store='')}",
                )
        rows = {name: place for place, name in enumerate(self.video_ids)}
        columns = {name: place for place, name in enumerate(self.classes)}
        return self.values[[rows[name] for name in video_ids]][:, [columns[name] for name in classes]]

    def accuracy(self, labels: Mapping[str, str]) -> dict[int, float]:
        """k -> the share of these videos (id -> class) whose class is among the k most probable, for k 1 and 5.

        A class that is not among those of the probabilities is never right. Raises Refusal for a missing video.
        """
        wanted = np.array([self.classes.index(label) if label in self.classes else -1 for label in labels.values()])
        best = np.argsort(-self.of(list(labels), self.classes), axis=1, kind="stable")
        return {k: float((best[:, :k] == wanted[:, None]).any(axis=1).mean()) for k in KS}


def fused(parts: Sequence[Probabilities], weights: Sequence[float] | None = None) -> Probabilities:
    """The weighted mean of several streams' or runs' probabilities, video by video and class by class, by their names.

    Raises Refusal where one of them lacks a video or class that another has, and for weights that cannot be meant.
    """
    first = parts[0]
    videos, classes = sorted({v for part in parts for v in part.video_ids}), first.classes
    if unlike := [part for part in parts if set(part.classes) != set(classes)]:
        other = sorted(set(unlike[0].classes) ^ set(classes))
        raise Refusal(
            f"probabilities of other classes cannot be fused: {named(other, SHOWN)}", remedy="the same classes"
        )
    values = fusion.fuse_probabilities(*(part.of(videos, classes) for part in parts), weights=weights)
    return Probabilities(videos, classes, values)


def write_json(probabilities: Probabilities, path: Path) -> None:
    """As CoCLR's test writes them: path of the video, with a slash at its end -> {"mean_prob": [[...]]}."""
    rows = zip(probabilities.video_ids, probabilities.values, strict=True)
    content = {f"{video}/": {"mean_prob": [[float(value) for value in row]]} for video, row in rows}
    with storage.writing("the probabilities", path):
        storage.write_atomically(path, (json.dumps(content) + "\n").encode())


def read_json(path: Path, store: VideoStore) -> Probabilities:
    """Probabilities that CoCLR's or ViCC's test wrote, or the test of their probe on features, whose values have no
    names; of the store's classes in its order. Their paths are told from the store's videos by their last two parts, or
    by the last.

    Raises Refusal for another file, for a path that is none of the store's videos, or is two.
    """
    try:
        content = parse_json(storage.read_regular(path, storage.LARGEST_JSON))
        rows = [entry["mean_prob"] if isinstance(entry, dict) else entry for entry in content.values()]
        values = np.array(rows, dtype=np.float64).reshape(len(rows), -1)
        if not (np.isfinite(values).all() and (values >= 0).all()):
            raise ValueError("not all of it are probabilities")
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise Refusal(
            f"these are no probabilities: {error!r}", where=str(path), remedy='{"path": {"mean_prob": [[...]]}}'
        ) from error
    if values.shape[1] != len(store.classes):
        raise Refusal(
            f"there are probabilities of {values.shape[1]} classes, and the store has {len(store.classes)}",
            where=str(path),
            remedy="the store, or its annotation set, that they were made for",
        )
    return Probabilities(_known_ids(list(content), store, path), list(store.classes), values)


def _known_ids(paths: Sequence[str], store: VideoStore, where: Path) -> list[str]:
    by_end: dict[tuple[str, ...], list[str]] = {}
    for video in store.videos:
        parts = tuple(video.split("/"))
        for end in {parts, parts[-2:], parts[-1:]}:
            by_end.setdefault(end, []).append(video)
    ids = []
    for path in paths:
        parts = tuple(path.strip("/").split("/"))
        found = next((by_end[end] for end in (parts, parts[-2:], parts[-1:]) if end in by_end), [])
        if len(found) != 1:
            what = f"is {len(found)} videos of the store" if found else "is none of the store's videos"
            raise Refusal(f"{path!r} {what}", where=str(where), remedy="the store of the videos that were tested")
        ids += found
    return ids


@dataclass(frozen=True)
class Tested:
    """A classifier that was tested: of a stage, on a stream, by a protocol."""

    stage: Stage
    stream: str
    protocol: Protocol
    settings: ClassifySettings
    request: Request
    checkpoint: str
    origin: Origin

    @property
    def metric(self) -> str:
        return "probe" if self.settings.frozen else "finetune"


def tested(task: Task) -> tuple[list[Record], list[str]]:
    """Test the classifiers of a run: what was measured, and sentences that tell what was left out.

    Probabilities are means over the windows and crops of the protocol, and kept as features are.
    """
    store = task.store
    chosen = [video for video in task.videos if store.info(video).split == TESTED and store.info(video).label]
    labels = {video: store.info(video).label for video in chosen}
    records: list[Record] = []
    latest: dict[tuple[str, str], tuple[Tested, Probabilities]] = {}
    asked, networks, left_out = _asked(task, chosen)
    if not asked:
        return [], left_out
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with task.reading() as executor:
        asked = [
            dataclasses.replace(one, request=dataclasses.replace(one.request, reader=type(executor).__name__))
            for one in asked
        ]
        paths = {_path(task.run, store, one): one.request for one in asked}
        made = features.banks(paths, lambda r: networks[r.checkpoint, r.stream].to(device), store, chosen, executor)
    for one in asked:
        bank = FeatureBank.load(made[one.request])
        found = Probabilities(bank.video_ids, one.settings.classes or list(store.classes), bank.features)
        records += _records(one, found.accuracy(labels), store)
        latest[one.protocol.name, one.stream] = one, found
    for protocol in task.protocols:
        present = [stream for name, stream in latest if name == protocol.name]
        parts = [latest[protocol.name, stream] for stream in streams.fused_in_order(present)]
        if len(parts) > 1:
            weights = protocol.weights_of([one.stream for one, _ in parts])
            together = fused([found for _, found in parts], weights)
            records += _records([one for one, _ in parts], together.accuracy(labels), store)
    return records, left_out


def of_run(run: Path, trained_stages: Sequence[Stage], store: VideoStore, protocol: str, stream: str) -> Probabilities:
    """What an evaluated run says of a stream, or of its only one. Raises Refusal where it was not evaluated so."""
    found = {
        stream_of: (_bank_path(run, store, stage, protocol, stream_of), settings)
        for stage in trained_stages
        for stream_of, settings in _classifiers(stage).items()
    }
    if stream and stream not in found or not stream and len(found) != 1:
        raise Refusal(
            f"the run has classifiers of {', '.join(found) or 'no stream'}",
            where=str(run),
            remedy="RUN:STREAM says which",
        )
    path, settings = found[stream or next(iter(found))]
    if not path.is_file():
        asked = f"[{protocol}]"
        remedy = f"{called.command('evaluate', run='', store='', protocols=asked)} tests it, or tells why not"
        raise Refusal(f"the classifier was not tested by protocol {protocol!r}", where=str(run), remedy=remedy)
    bank = FeatureBank.load(path)
    return Probabilities(bank.video_ids, settings.classes or list(store.classes), bank.features)


def _classifiers(stage: Stage) -> dict[str, ClassifySettings]:
    found = checkpoints.networks_of(stage.checkpoint)
    return {stream: network for stream, network in found.items() if isinstance(network, ClassifySettings)}


def _asked(task: Task, videos: Sequence[str]) -> tuple[list[Tested], dict[tuple[str, str], Network], list[str]]:
    store = task.store
    asked: list[Tested] = []
    networks: dict[tuple[str, str], Network] = {}
    left_out: list[str] = []
    known, contents = features.videos_digest(store, videos), features.contents_digest(store, videos)
    for stage in task.stages:
        classifiers = _classifiers(stage)
        if not classifiers:
            continue
        if not videos:
            left_out.append(f"the classifier of stage {stage.name} is not tested: no test video has a label")
            continue
        if learned := trained_videos(stage, task.run, store).intersection(videos):
            why = f"its training showed it {len(learned)} of the {len(videos)} test videos with their labels"
            left_out.append(f"the classifier of stage {stage.name} is not tested: {why}")
            continue
        checkpoint = checkpoints.digest(stage.checkpoint)
        clips, sampling = provenance.clips_of(stage.metadata, stage.checkpoint)
        loaded = checkpoints.load_method(stage.checkpoint).networks
        for (stream, settings), protocol in itertools.product(classifiers.items(), task.protocols):
            look = dataclasses.replace(protocol.classifier, layer=CLASSES, unit=False)
            if reason := _not_tested(settings, store, look.crops, look.clips(clips).crop):
                told = f"the classifier of stage {stage.name} is not tested by protocol {protocol.name}: {reason}"
                left_out.append(told)
                continue
            request = Request(
                checkpoint=checkpoint,
                network="trained",
                seen=Seen(stream, clips, sampling),
                layer=CLASSES,
                look=look,
                seed=stage.metadata["seed"],
                store_settings=store.settings_hash,
                videos=known,
                contents=contents,
                sides="",
                reader="",
                tf32=stage.metadata.get("tf32", TORCHS_TF32),
            )
            networks[checkpoint, stream] = loaded[stream]
            made_by = classifier_origin(stage, stream, task.home)
            asked.append(Tested(stage, stream, protocol, settings, request, checkpoint, made_by))
    return asked, networks, left_out


def _not_tested(settings: ClassifySettings, store: VideoStore, crops: int, crop: object) -> str:
    if crops > 1 and crop == "whole":
        return f"it has {crops} crops, and the network's clips show the whole frame (clips.crop in the recipe)"
    if not settings.classes and settings.dim != len(store.classes):
        return (
            f"it has {settings.dim} classes without a name, and the store {len(store.classes)} (import the file with"
            " --classes)"
        )
    if settings.classes and not set(settings.classes) & set(store.classes):
        return "it knows none of the store's classes"
    return ""


def _path(run: Path, store: VideoStore, one: Tested) -> Path:
    return _bank_path(run, store, one.stage, one.protocol.name, one.stream)


def _bank_path(run: Path, store: VideoStore, stage: Stage, protocol: str, stream: str) -> Path:
    path = bank_path(run, store, stage.name, "trained", protocol, stream)
    return path.with_name(f"{path.stem}-{CLASSES}.h5")


def _records(one: Tested | Sequence[Tested], accuracy: Mapping[int, float], store: VideoStore) -> list[Record]:
    """Of one classifier, or of several that were fused."""
    parts = [one] if isinstance(one, Tested) else list(one)
    first = parts[0]
    stages = list(dict.fromkeys((part.stage.name, part.checkpoint) for part in parts))
    stage, checkpoint = ("+".join(names) for names in zip(*stages, strict=True))
    stream = first.stream if len(parts) == 1 else streams.together(len(parts))
    alike = all(part.origin == first.origin for part in parts)  # nobody published pairs of others
    quotes = {
        k: counterpart(first.origin, stream, data_of(store), f"{first.metric}_top{k}", first.protocol.name)
        for k in (accuracy if alike else ())
    }
    return [
        Record(
            metric=f"{first.metric}_top{k}",
            value=share,
            protocol=first.protocol.name,
            stream=stream,
            network="trained",
            stage=stage,
            split=TESTED,
            data=data_of(store),
            checkpoint=checkpoint,
            annotations=results.told(store),
            chance=min(1.0, k / first.settings.dim),
            published=quote.value if (quote := quotes.get(k)) else None,
        )
        for k, share in accuracy.items()
    ]
