"""Features of videos from frozen networks: what is looked at, what it depends on, and how it is computed."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text
from torch import Tensor, nn

from eval.bank import FeatureBank, write
from eval.protocols import Look, Windows
from eval.rows import Rows
from pipeline import called, storage
from pipeline.errors import Refusal, counted
from pipeline.storage import disk
from pipeline.store import VideoStore
from pipeline.terminal import Terminal
from train.augment import ClipPlan, Draws
from train.augment.evaluate import Evaluate
from train.clips import uniform_windows
from train.clips.spec import ClipSpec
from train.hardware.precision import TF32, TORCHS_TF32, tf32
from train.inference import BATCH, clip_features, clips_ahead
from train.networks.network import Network
from train.reader import Executor
from train.sampling import Sample, Sampling
from train.sampling.random import Random

log = logging.getLogger(__name__)
REFRESH_BATCHES = 16
GALLERY = "train"  # the split among whose videos neighbours are looked for


@dataclass(frozen=True)
class Seen:
    """What a network is shown: `stream` of clips as it was trained on, `sampling` of which gives the windows of a
    video."""

    stream: str
    clips: ClipSpec
    sampling: Sampling = Random()

    def plans(self, store: VideoStore, video: str, look: Look, seed: int) -> list[ClipPlan]:
        """The clips whose rows make up a video's feature: every crop of the first window, of the second, ...

        They depend on (seed, video id) alone. Raises Refusal for a video without the view, or without frames, and
        UsageError where the clips show the whole frame and several crops are asked for.
        """
        info, clips = store.info(video), look.clips(self.clips)
        stream = clips.stream(self.stream)
        frames = store.shape(video, stream.view)[0]
        if frames < 1:
            raise Refusal(
                f"no frame of {stream.view} is there to make a clip of",
                where=video,
                remedy=f"`{called.command('remove', store='', videos='')}` takes it out of the store;"
                " flow has one frame less than its video",
            )
        draws = Draws(seed, 0, int.from_bytes(hashlib.sha256(video.encode()).digest()[:8], "little"))
        windows = self._windows(look.gallery if info.split == GALLERY else look.tested, clips, frames, draws)
        policy = Evaluate(clips.crop, look.jitter, look.crops, look.scaled, look.filter)
        drawn = policy.each({self.stream: stream.bound(store.settings)}, (info.height, info.width), draws)
        return [ClipPlan(video, window, stream, pixels[self.stream]) for window in windows for pixels in drawn]

    def _windows(self, wanted: Windows, clips: ClipSpec, frames: int, draws: Draws) -> np.ndarray:
        """Frame indices (W, T). Where a clip does not fit into a video, those that the sampling makes of it."""
        if wanted.kind == "random":
            sample = Sample(0, np.array([frames]), 1)
            drawn = [self.sampling.draw(clips, sample, draws.shared) for _ in range(wanted.count)]
            return np.stack([next(iter(made)).frames for made in drawn])
        if wanted.kind == "sliding" or frames < clips.span:
            return self.sampling.windows(clips, frames)
        count = wanted.count if wanted.kind == "uniform" else 1
        return uniform_windows(frames, clips.length, clips.stride, count)


@dataclass(frozen=True)
class Request:
    """All that a feature depends on; stored with the bank, and compared before a bank is used again.

    layer: of the network whose rows the features are made of.
    checkpoint: digest of the file that a trained network is from; for an untrained one, which is in no file, what
    `train.checkpoints.network_digest` says of its fresh weights, so that stages which begin alike share it.
    videos: `videos_digest`, of all that is known of them. contents, sides: `contents_digest` and `sides_digest`, which
    are what rows depend on: where they are the same and labels are not, rows stay and are labelled anew.
    tf32: what GPUs round, see `train.hardware.precision`. dtype: in which rows are kept, float32 or float16.
    """

    checkpoint: str
    network: str
    seen: Seen
    layer: str
    look: Look
    seed: int
    store_settings: str
    videos: str
    contents: str
    sides: str
    reader: str
    tf32: TF32 = TORCHS_TF32
    dtype: str = "float32"

    @property
    def stream(self) -> str:
        return self.seen.stream

    @property
    def shown(self) -> Seen:
        """What the network is shown, as the look has it."""
        return replace(self.seen, clips=self.look.clips(self.seen.clips))

    @property
    def clips(self) -> tuple[Seen, str, Look, int, TF32]:
        """Requests that agree in it look at the same clips, with the same layer and precision."""
        return self.seen, self.layer, self.look, self.seed, self.tf32

    def rows_of(self) -> dict[str, str | int | float]:
        """What rows follow from; not their labels and splits."""
        return {name: value for name, value in self.attributes().items() if name != "videos"}

    def attributes(self) -> dict[str, str | int | float]:
        """Flat, as HDF5 takes them: "look.jitter", "clip.length", ..."""
        clips = self.look.clips(self.seen.clips)
        seen = {"clip": clips.as_dict(), "sampling": self.seen.sampling.as_dict(), "stream": self.stream}
        own = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "seen"}
        return dict(_flat("", own | {"look": asdict(self.look)} | seen))


def banks(
    wanted: Mapping[Path, Request],
    network: Callable[[Request], Network],
    store: VideoStore,
    videos: Sequence[str],
    reader: Executor,
) -> dict[Request, Path]:
    """A bank of every request, left at its path if it was made for exactly this request, otherwise computed anew;
    afterwards each is at all of its paths, of which one is returned.

    Equal requests are computed once, and clips that several networks look at are read once for all of them. `network`
    gives the one of a request, and is asked only to compute features. What ends a computation costs a batch of clips:
    rows are kept beside the bank (`eval.rows`), and the next one goes on behind them, with the same result bit for bit.
    No more than a part of the rows is in memory.
    """
    labels, splits = label_indices(store, videos), [store.info(video).split for video in videos]
    places: dict[Request, list[Path]] = {}  # where a bank is still to be written
    made: dict[Request, Path] = {}
    for path, request in wanted.items():
        attributes = _reusable(path, request.attributes(), videos)
        if attributes is not None and attributes["videos"] != request.videos:
            bank = FeatureBank.load(path)
            kind = np.dtype(request.dtype)
            bank_of = (bank.features.astype(kind),), bank.features.shape, bank.video_ids, labels, splits
            write(path, bank.stream, *bank_of, request.attributes())
        if attributes is not None:
            made[request] = path
            if _rows_path(path).is_file():
                storage.remove(_rows_path(path))
        else:
            places.setdefault(request, []).append(path)
    missing: dict[tuple[Seen, str, Look, int, TF32], list[Request]] = {}
    for request, paths in places.items():
        if request in made:
            for path in paths:
                path.parent.mkdir(parents=True, exist_ok=True)
                with storage.writing("the features", path), disk.writing_aside(path) as aside:
                    shutil.copyfile(made[request], aside)
        else:
            missing.setdefault(request.clips, []).append(request)
    for number, ((seen, layer, look, seed, rounding), requests) in enumerate(missing.items(), start=1):
        with contextlib.ExitStack() as opened:
            opened.enter_context(tf32(rounding))
            networks = [network(request) for request in requests]
            kept = [
                opened.enter_context(Rows(_rows_path(places[r][0]), r.rows_of(), made_by.size(layer), r.dtype))
                for r, made_by in zip(requests, networks, strict=True)
            ]
            done = min(rows.count for rows in kept)
            for rows in kept:
                rows.keep(done)
            title = f"features {number}/{len(missing)}, {seen.stream}"
            found = compute(networks, seen, layer, store, videos, look, reader, seed=seed, title=title, done=done)
            for computed in found:
                for rows, block in zip(kept, computed, strict=True):
                    rows.append(block)
            for request, rows in zip(requests, kept, strict=True):
                size = rows.count, rows.width
                for path in places[request]:
                    write(path, seen.stream, rows.blocks(), size, videos, labels, splits, request.attributes())
                made[request] = places[request][0]
                rows.remove()
    return made


def _rows_path(bank: Path) -> Path:
    return bank.with_name(bank.name + ".rows")


def _flat(prefix: str, values: Mapping[str, Any]) -> Iterator[tuple[str, str | int | float]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(f"{prefix}{name}.", value)
        else:
            yield f"{prefix}{name}", value if isinstance(value, (str, int, float)) else str(value)


def _reusable(path: Path, wanted: dict[str, str | int | float], videos: Sequence[str]) -> dict[str, Any] | None:
    """The attributes of the bank at `path` if there is one of these videos and they are `wanted`, but for labels and
    splits, on which rows do not depend; says which one is not."""
    if not path.is_file():
        return None
    try:
        have, of = FeatureBank.facts_of(path)
    except Refusal as refusal:
        log.info("%s is computed again: %s", path, refusal.what)
        return None
    for key in sorted((wanted.keys() | have.keys()) - {"videos"}):
        old, new = have.get(key), wanted.get(key)
        if old != new:
            log.info("%s is computed again: %s was %s and is now %s", path, key, old, new)
            return None
    if of != list(videos):
        log.info("%s is computed again: it is of other videos than it says", path)
        return None
    return have


def label_indices(store: VideoStore, videos: Sequence[str]) -> np.ndarray:
    """(N,) class indices in the store's class order, -1 where a video has no label."""
    index = {name: i for i, name in enumerate(store.classes)}
    return np.array([index.get(store.info(video).label, -1) for video in videos], dtype=np.int64)


def videos_digest(store: VideoStore, videos: Sequence[str]) -> str:
    """Changes when a video is added, removed, extracted again, or gets another label or split."""
    return store.annotated.digest_of(store.table.rows(videos))


def contents_digest(store: VideoStore, videos: Sequence[str]) -> str:
    """Changes when a video is added, removed or extracted again."""
    total = hashlib.sha256()
    for video in videos:
        total.update(f"{len(video)} {video}".encode())
    total.update(store.table.digests[store.table.rows(videos)])
    return total.hexdigest()[:16]


def sides_digest(store: VideoStore, videos: Sequence[str], look: Look, network: str) -> str:
    """Changes when another video is a training video; empty where rows do not depend on it.

    They do where training videos are looked at otherwise, and of an untrained network, whose batch norm has the
    statistics of training clips.
    """
    if not look.one_sided and network == "trained":
        return ""
    sides = np.array([store.info(video).split == GALLERY for video in videos])
    return hashlib.sha256(np.packbits(sides).tobytes()).hexdigest()[:16]


def compute(
    networks: Sequence[Network],
    seen: Seen,
    layer: str,
    store: VideoStore,
    videos: Sequence[str],
    look: Look,
    reader: Executor,
    *,
    seed: int,
    title: str,
    done: int = 0,
) -> Iterator[list[np.ndarray]]:
    """Of the videos from number `done` on, in order, as they are finished: of each network the mean of the layer's rows
    of each video's clips, float32 (n, D), batch norm in eval mode.

    `title` stands at the progress bar. What is random of a video depends on (seed, video id) alone, and which clips are
    computed together not on `done`, so that a row is the same bit for bit.
    """
    start, skipped = _first_clip(seen, store, videos[:done], look, seed)
    owners: deque[int] = deque()  # the row of each clip's video, of those that are read ahead
    expected: dict[int, int] = {}  # clips of these videos

    def plans() -> Iterator[ClipPlan]:
        for row in range(start, len(videos)):
            made = seen.plans(store, videos[row], look, seed)[skipped if row == start else 0 :]
            expected[row] = len(made)
            for plan in made:
                owners.append(row)
                yield plan

    sums = [torch.zeros(0, network.size(layer)) for network in networks]  # of the videos from `first` on
    counts, first, clips = torch.zeros(0, 1), start, 0
    with _progress() as bar:
        if not bar.console.is_terminal:  # a log has no bar, but its end
            bar.console.print(f"{title}: {counted(len(videos) - done, 'video')}")
        task = bar.add_task(title, total=len(videos), completed=done, clips=0)
        for places, found in clip_features(networks, plans(), reader, layer, _at_once(look), look.unit):
            rows = torch.tensor([owners.popleft() for _ in places]) - first
            last = int(rows[-1])
            counts = _added(counts, last + 1, rows, torch.ones(len(rows), 1))
            sums = [_added(total, last + 1, rows, new) for total, new in zip(sums, found, strict=True)]
            ended = last + (int(counts[last]) == expected[first + last])
            computed = slice(max(0, done - first), ended)
            if computed.start < ended:
                yield [(total[computed] / counts[computed]).numpy() for total in sums]
            for row in range(first, first + ended):
                del expected[row]
            counts, sums = counts[ended:], [total[ended:] for total in sums]
            first, clips = first + ended, clips + len(rows)
            bar.update(task, completed=max(done, first), clips=clips)


def _added(total: Tensor, count: int, rows: Tensor, new: Tensor) -> Tensor:
    """The sums so far, (m, D), of `count` >= m rows now, and the new ones added to theirs."""
    grown = torch.zeros(count, total.shape[1])
    grown[: len(total)] = total
    return grown.index_add_(0, rows, new)


def _at_once(look: Look) -> int:
    """Clips of a batch: about BATCH, and all crops of a window, so that its frames are decoded once."""
    return max(1, BATCH // look.crops) * look.crops


def _first_clip(seen: Seen, store: VideoStore, done: Sequence[str], look: Look, seed: int) -> tuple[int, int]:
    """Where the batch begins in which the first clip behind the videos `done` lies: a video's number, and how many of
    its clips lie in the batch before."""
    ends = np.cumsum([0, *(len(seen.plans(store, video, look, seed)) for video in done)])
    begin = ends[-1] // _at_once(look) * _at_once(look)
    row = int(np.searchsorted(ends, begin, side="right")) - 1
    return row, int(begin - ends[row])


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
    single = Look(gallery=Windows("random"))
    train = [video for video in videos if store.info(video).split == GALLERY]
    chosen = np.random.default_rng(seed).permutation(len(train))[: REFRESH_BATCHES * BATCH]
    if len(chosen) > BATCH:
        chosen = chosen[: len(chosen) // BATCH * BATCH]  # a last batch of one or two clips would distort the statistics
    plans = (seen.plans(store, train[i], single, seed)[0] for i in chosen)
    return (batch for _, batch in clips_ahead(plans, reader, device, BATCH))


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


class _Done(ProgressColumn):
    """How many videos and, since the beginning, clips a second."""

    def render(self, task: Task) -> Text:
        rate = task.fields["clips"] / max(task.elapsed or 0, 1e-9)
        told = f"left  {task.completed:.0f}/{task.total:.0f} videos  {rate:.0f} clips/s"
        return Text(told, no_wrap=True, overflow="crop")


def _progress(console: Console | None = None) -> Progress:
    """What is asked for most in front, as a narrow terminal cuts off its end."""
    whole = Column(no_wrap=True)
    title = TextColumn("{task.description}", markup=False, table_column=whole)
    left = TimeRemainingColumn(table_column=whole)
    return Progress(title, BarColumn(bar_width=10), left, _Done(), console=console or Terminal(stderr=True))
