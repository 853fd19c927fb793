"""The feature bank: one vector per video from a frozen network, kept in HDF5 together with how it was made."""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text
from torch import Tensor, nn

from eval.protocols import Protocol
from pipeline import storage
from pipeline.errors import Refusal
from pipeline.storage import sealed
from pipeline.store import VideoStore
from pipeline.terminal import Terminal
from train import augment
from train.augment import ClipPlan, Draws
from train.clips.spec import ClipSpec
from train.inference import BATCH, clips_ahead, unit_features
from train.networks.network import Network
from train.reader import Executor
from train.sampling import Sampling
from train.sampling.random import Random

log = logging.getLogger(__name__)
REFRESH_BATCHES = 16


@dataclass(frozen=True)
class Seen:
    """What a network is shown: `stream` of clips as it was trained on, `sampling` of which gives the windows of a
    video."""

    stream: str
    clips: ClipSpec
    sampling: Sampling = Random()

    def plans(self, store: VideoStore, video: str, protocol: Protocol, seed: int) -> list[ClipPlan]:
        """The clips whose features make up a video's feature: all windows, or one random clip of a training video.

        They depend on (seed, video id) alone. Raises Refusal for a video without the view, or without frames.
        """
        info, stream = store.info(video), self.clips.stream(self.stream)
        frames = store.shape(video, stream.view)[0]
        if frames < 1:
            raise Refusal(
                f"no frame of {stream.view} is there to make a clip of",
                where=video,
                remedy="`python -m pipeline remove` takes it out of the store; flow has one frame less than its video",
            )
        draws = Draws(seed, 0, int.from_bytes(hashlib.sha256(video.encode()).digest()[:8], "little"))
        policy = augment.policy("evaluate", crop=self.clips.crop, jitter=protocol.jitter)
        all_windows = protocol.gallery_windows or info.split != "train"
        drawn = [] if all_windows else self.sampling.draw(self.clips, 0, np.array([frames]), 1, draws.shared)
        windows = self.sampling.windows(self.clips, frames) if all_windows else [next(iter(drawn)).frames]
        bound = {self.stream: stream.bound(store.settings)}
        pixels = policy.pixels(bound, (info.height, info.width), self.clips.length, draws)
        return [ClipPlan(video, window, stream, pixels[self.stream]) for window in windows]


@dataclass(frozen=True)
class Request:
    """All that a feature depends on; stored with the bank, and compared before a bank is used again.

    layer: of the network whose rows are the features.
    checkpoint: digest of the file that a trained network is from; for an untrained one, which is in no file, what
    `train.checkpoints.network_digest` says of its fresh weights, so that stages which begin alike share it.
    """

    checkpoint: str
    network: str
    seen: Seen
    layer: str
    protocol: Protocol
    seed: int
    store_settings: str
    videos: str
    reader: str

    @property
    def stream(self) -> str:
        return self.seen.stream

    @property
    def clips(self) -> tuple[Seen, str, Protocol, int]:
        """Requests that agree in it look at the same clips, with the same layer."""
        return self.seen, self.layer, self.protocol, self.seed

    def attributes(self) -> dict[str, str | int | float]:
        """Flat, as HDF5 takes them: "protocol.jitter", "clip.length", ..."""
        seen = {"clip": self.seen.clips.as_dict(), "sampling": self.seen.sampling.as_dict(), "stream": self.stream}
        own = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "seen"}
        return dict(_flat("", own | {"protocol": asdict(self.protocol)} | seen))


@dataclass(frozen=True)
class FeatureBank:
    """Features (N, D) float32 of N videos: the mean of each video's unit features. `labels` (N,) are class indices,
    -1 for none; `splits` and `video_ids` have N entries; `attributes` say how it was made."""

    stream: str
    features: np.ndarray
    video_ids: list[str]
    labels: np.ndarray
    splits: list[str]
    attributes: dict[str, Any]

    def rows(self, split: str) -> np.ndarray:
        """Indices of the labelled videos of a split."""
        return np.flatnonzero((np.array(self.splits) == split) & (self.labels >= 0))

    def save(self, path: Path) -> None:
        """Write aside, then rename, so that a killed evaluation leaves no half bank. Raises Refusal.

        HDF5 itself writes to memory: where the disk is full while it closes a file, it ends the process.
        """
        content = io.BytesIO()
        with h5py.File(content, "w") as file:
            file.create_dataset(self.stream, data=self.features.astype(np.float32))
            file.create_dataset("video_id", data=self.video_ids, dtype=h5py.string_dtype())
            file.create_dataset("label", data=self.labels.astype(np.int64))
            file.create_dataset("split", data=self.splits, dtype=h5py.string_dtype())
            file.attrs.update(self.attributes)
        with storage.writing("the features", path):
            storage.write_atomically(path, sealed.seal(content.getvalue()))

    @classmethod
    def load(cls, path: Path) -> FeatureBank:
        """Raises Refusal for a file that is not a feature bank, or not as it was written."""
        try:
            if not sealed.check(path):
                raise ValueError("it does not end with its digest")
            with h5py.File(path, "r") as file:
                attributes = {
                    key: value.item() if hasattr(value, "item") else value for key, value in file.attrs.items()
                }
                stream = attributes["stream"]
                ids, splits = (list(file[name].asstr()[()]) for name in ("video_id", "split"))
                return cls(stream, file[stream][()], ids, file["label"][()], splits, attributes)
        except (OSError, KeyError, ValueError) as error:
            raise Refusal(
                f"not a feature bank: {error}", where=str(path), remedy="evaluate again: make evaluate"
            ) from error


def banks(
    wanted: Mapping[Path, Request],
    network: Callable[[Request], Network],
    store: VideoStore,
    videos: Sequence[str],
    reader: Executor,
) -> dict[Request, FeatureBank]:
    """The bank of every request, taken from its path if it was made for exactly this request, otherwise computed anew;
    afterwards each is at all of its paths.

    Equal requests are computed once, and clips that several networks look at are read once for all of them. `network`
    gives the one of a request, and is asked only to compute features.
    """
    found = {path: _reusable(path, request.attributes()) for path, request in wanted.items()}
    made = {wanted[path]: bank for path, bank in found.items() if bank is not None}

    def save(requests: Iterable[Request]) -> None:
        for path, request in wanted.items():
            if request in requests and found[path] is None:
                made[request].save(path)

    save(list(made))
    labels, splits = label_indices(store, videos), [store.info(video).split for video in videos]
    missing: dict[tuple[Seen, str, Protocol, int], list[Request]] = {}
    for request in dict.fromkeys(wanted.values()):
        if request not in made:
            missing.setdefault(request.clips, []).append(request)
    for (seen, layer, protocol, seed), requests in missing.items():
        title = f"{seen.stream} features, {protocol.name}, {len(requests)} networks"
        networks = [network(request) for request in requests]
        rows = compute(networks, seen, layer, store, videos, protocol, reader, seed=seed, title=title)
        for request, features in zip(requests, rows, strict=True):
            made[request] = FeatureBank(seen.stream, features, list(videos), labels, splits, request.attributes())
        save(requests)
    return made


def _flat(prefix: str, values: Mapping[str, Any]) -> Iterator[tuple[str, str | int | float]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(f"{prefix}{name}.", value)
        else:
            yield f"{prefix}{name}", value if isinstance(value, (str, int, float)) else str(value)


def _reusable(path: Path, wanted: dict[str, str | int | float]) -> FeatureBank | None:
    """The bank at `path` if there is one whose attributes are exactly `wanted`; says which one is not."""
    if not path.is_file():
        return None
    try:
        have = FeatureBank.load(path)
    except Refusal as refusal:
        log.info("%s is computed again: %s", path, refusal.what)
        return None
    for key in sorted(wanted.keys() | have.attributes.keys()):
        old, new = have.attributes.get(key), wanted.get(key)
        if old != new:
            log.info("%s is computed again: %s was %s and is now %s", path, key, old, new)
            return None
    return have


def label_indices(store: VideoStore, videos: Sequence[str]) -> np.ndarray:
    """(N,) class indices in the store's class order, -1 where a video has no label."""
    index = {name: i for i, name in enumerate(store.classes)}
    return np.array([index.get(store.info(video).label, -1) for video in videos], dtype=np.int64)


def videos_digest(store: VideoStore, videos: Sequence[str]) -> str:
    """Changes when a video is added, removed, extracted again, or gets another label or split."""
    return store.annotated.digest_of(store.table.rows(videos))


def compute(
    networks: Sequence[Network],
    seen: Seen,
    layer: str,
    store: VideoStore,
    videos: Sequence[str],
    protocol: Protocol,
    reader: Executor,
    *,
    seed: int,
    title: str,
) -> list[np.ndarray]:
    """Of each network the mean of the layer's unit rows of each video's windows, float32 (N, D), batch norm in eval
    mode.

    `title` stands at the progress bar. The random clip and the jitter of a video depend on (seed, video id) alone.
    """
    sums = [torch.zeros(len(videos), network.size(layer)) for network in networks]
    counts = torch.zeros(len(videos), 1)
    owners: list[int] = []  # the row of each clip's video

    def plans() -> Iterator[ClipPlan]:
        for row, video in enumerate(videos):
            for plan in seen.plans(store, video, protocol, seed):
                owners.append(row)
                yield plan

    with _progress() as bar:
        task = bar.add_task(title, total=len(videos), clips=0)
        for places, units in unit_features(networks, plans(), reader, layer):
            rows = torch.tensor([owners[place] for place in places])
            for total, unit in zip(sums, units, strict=True):
                total.index_add_(0, rows, unit)
            counts.index_add_(0, rows, torch.ones(len(rows), 1))
            bar.update(task, completed=int(rows[-1]) + 1, clips=int(places[-1]) + 1)
    return [(total / counts).numpy() for total in sums]


def training_clips(
    store: VideoStore,
    videos: Sequence[str],
    seen: Seen,
    reader: Executor,
    device: torch.device,
    seed: int,
) -> Iterator[Tensor]:
    """Batches (B, C, T, h, w) of random clips of the training videos, unaltered, for `refresh_batchnorm`.

    At most REFRESH_BATCHES full batches from different videos; a smaller set gives what it has.
    """
    single = Protocol("refresh", gallery_windows=False, jitter=0.0)
    train = [video for video in videos if store.info(video).split == "train"]
    chosen = np.random.default_rng(seed).permutation(len(train))[: REFRESH_BATCHES * BATCH]
    if len(chosen) > BATCH:
        chosen = chosen[: len(chosen) // BATCH * BATCH]  # a last batch of one or two clips would distort the statistics
    plans = (seen.plans(store, train[i], single, seed)[0] for i in chosen)
    return (batch for _, batch in clips_ahead(plans, reader, device))


@torch.no_grad()
def refresh_batchnorm(network: Network, clips: Iterable[Tensor]) -> None:
    """Replace the running statistics of every batch norm by the mean over the given batches (B, C, T, H, W).

    A randomly initialised network has none of the data, and would be judged on features of the wrong scale.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta, was_training = [norm.momentum for norm in norms], network.training
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # PyTorch's word for a plain mean over all batches
    network.train()
    for batch in clips:
        network(batch)
    network.train(was_training)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


class _ClipRate(ProgressColumn):
    """Clips a second since the beginning."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.fields['clips'] / max(task.elapsed or 0, 1e-9):.0f} clips/s", no_wrap=True)


def _progress() -> Progress:
    count, left = MofNCompleteColumn(), TimeRemainingColumn()
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=16),
        count,
        TextColumn("videos"),
        _ClipRate(),
        left,
    )
    return Progress(*columns, TextColumn("left"), console=Terminal(stderr=True))
