"""Batches of clips, the same on any number of ranks and after any interruption.

The order of an epoch follows from (seed, epoch), the frames and pixels of a sample from (seed, epoch, sample): nothing is
remembered but how many batches were delivered.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from pipeline.errors import Refusal, UsageError
from pipeline.store import VideoInfo, VideoStore
from train import reader
from train.augment import ClipPlan, Policy, colour_maps, sample_plans
from train.order import Order, OrderSettings
from train.reader.affine import normalise
from train.settings import Settings

Side = Annotated[int, Field(ge=1)]
Sides = Annotated[tuple[Side, Side], Field(strict=False)]  # YAML has lists

AHEAD = 2  # batches made while the network works; more would only hold memory


@dataclass
class Batch:
    """Clips of B videos: of each stream those that the method reads, by their numbers within a sample.

    clips: view -> number -> uint8 (B, C, T, H, W). affine: view -> number -> float32 (B, K, D, C + 1), from bytes to
    network input (see `train.augment.Pixels`). labels: class index, int64 (B,), -1 without. sources: number of the recording, int64 (B,). index: of the video
    in the loader's list, int64 (B,).
    """

    clips: dict[str, dict[int, Tensor]]
    affine: dict[str, dict[int, Tensor]]
    labels: Tensor
    sources: Tensor
    index: Tensor

    def pin_memory(self) -> Batch:
        """The same batch with what is on the CPU in page-locked memory, from where a GPU fetches it while others compute."""

        def pinned(tensor: Tensor) -> Tensor:
            return tensor if tensor.is_cuda else tensor.pin_memory()

        clips, affine = (
            {view: {number: pinned(tensor) for number, tensor in made.items()} for view, made in by_view.items()}
            for by_view in (self.clips, self.affine)
        )
        return Batch(clips, affine, pinned(self.labels), pinned(self.sources), pinned(self.index))

    def views(self, stream: str) -> list[Tensor]:
        """The clips of a stream as network input, each float32 (B, D, T, H, W)."""
        return [self.view(stream, number) for number in self.clips[stream]]

    def view(self, stream: str, number: int) -> Tensor:
        """One of them, by its number within a sample."""
        return normalise(self.clips[stream][number], self.affine[stream][number])


class ClipSettings(Settings):
    """Which frames and which size.

    Args:
        length: Frames of a clip.
        stride: Distance between them in the video.
        size: Height and width of the clip at the network's input, in pixels.
        short: What becomes of videos with fewer frames than length * stride: "pad" repeats their first frame in front,
            as CoCLR does, "drop" leaves them out of training, as DPC does.
    """

    length: int = Field(ge=1)
    stride: int = Field(ge=1)
    size: Sides
    short: Literal["pad", "drop"] = "pad"

    @property
    def span(self) -> int:
        """Frames of a video that a clip covers."""
        return self.length * self.stride


def usable_frames(info: VideoInfo) -> int:
    """Frames that every stored view has, so that a sample's frames do not depend on which views are read."""
    return min(shape[0] for shape in info.shapes.values())


def short_videos(store: VideoStore, videos: Sequence[str], clips: ClipSettings) -> list[str]:
    """Those of the videos that have fewer frames than a clip spans."""
    return [video for video in videos if usable_frames(store.info(video)) < clips.span]


def used_videos(store: VideoStore, videos: Sequence[str], clips: ClipSettings) -> list[str]:
    """The videos without those that `clips.short` drops. Raises Refusal where that leaves none."""
    if clips.short == "pad":
        return list(videos)
    short = set(short_videos(store, videos, clips))
    used = [video for video in videos if video not in short]
    if short and not used:
        raise Refusal(
            f"all {len(videos)} videos are dropped: they are shorter than a clip of {clips.span} frames"
            f" ({clips.length} x stride {clips.stride})",
            where=str(store.root),
            remedy="shorter clips or a smaller stride in the recipe, or clips.short: pad",
        )
    return used


def make_order(
    store: VideoStore, videos: Sequence[str], settings: OrderSettings, batch: int, seed: int, accumulate: int = 1
) -> Order:
    """The order of these videos. Raises Refusal and UsageError where the settings do not suit them."""
    labels = _labels(store, videos)
    if settings.limit > len(videos):
        raise UsageError(
            f"{settings.limit} videos cannot be drawn from {len(videos)}",
            where="order.limit",
            remedy="a smaller limit, or 0 for all of them",
        )
    unlabelled = np.flatnonzero(labels < 0)
    if settings.balanced and unlabelled.size:
        raise Refusal(
            f"{unlabelled.size} videos have no class to balance by, the first of them is {videos[unlabelled[0]]!r}",
            where=str(store.root),
            remedy="order.balanced: false in the recipe, or labels: `make annotate STORE= MANIFEST=`",
        )
    return Order(settings, labels, batch, seed, accumulate)


def _labels(store: VideoStore, videos: Sequence[str]) -> np.ndarray:
    """Class index of each video, int64 (N,), -1 without."""
    class_index = {name: index for index, name in enumerate(store.classes)}
    return np.array([class_index.get(store.info(video).label, -1) for video in videos], np.int64)


class ClipLoader:
    """Iterates over the rest of the current epoch; call `iter` again for the next one.

    reads: stream -> the numbers of the clips that are read of a sample; `plans` draws all up to the highest, so that what
    is drawn for one does not depend on which are read. batch: videos in a pass over all ranks; each rank gets its slice,
    in rank order. accumulate: batches of an optimiser step; an epoch has whole steps. pin: put what is on the CPU into
    page-locked memory, for training on a GPU. `state_dict` and `load_state_dict` hold the position, which is the same for any number of ranks. `waited` is the
    time, in seconds, that the last batch was waited for. `close` it when it is no longer needed.

    groups: of each video, such as pseudo-labels make, int64 (N,); None until someone sets them.

    Memory: a rank's part of a batch takes batch / ranks * length * height * width bytes for each channel (3 of rgb, 2
    of flow; four times that where flow is float32, see `train.reader.Executor`) of each clip in `reads`, on the device
    where the executor makes clips. At most AHEAD + 1 such batches exist at once, if the one that was worked on is let go
    before the next one is asked for. The listing of the store takes about 1 kB a video.

    Raises Refusal and UsageError at once for what could not work later: views that are not stored, too few videos, a
    batch that the ranks cannot share, a video without frames, clips longer than every video, an order that does not
    suit the videos (`make_order`).
    """

    def __init__(
        self,
        store: VideoStore,
        videos: Sequence[str],
        reads: Mapping[str, Sequence[int]],
        clips: ClipSettings,
        policy: Policy,
        batch: int,
        seed: int,
        executor: str = "auto",
        threads: int = 2,
        rank: int = 0,
        world_size: int = 1,
        order: OrderSettings = OrderSettings(),  # noqa: B008  (frozen)
        accumulate: int = 1,
        pin: bool = False,
    ) -> None:
        self.accumulate, self.pin = accumulate, pin
        self.store, self.videos, self.reads = store, used_videos(store, videos, clips), reads
        self.clips, self.policy = clips, policy
        self.views_per_video = 1 + max(number for numbers in reads.values() for number in numbers)
        self.batch, self.seed, self.rank, self.world_size = batch, seed, rank, world_size
        infos = [store.info(video) for video in self.videos]
        self.frames = [usable_frames(info) for info in infos]
        self.frame_sizes = [(info.height, info.width) for info in infos]
        recordings = {source: number for number, source in enumerate(sorted({info.source for info in infos}))}
        self.labels = _labels(store, self.videos)
        self.sources = np.array([recordings[info.source] for info in infos], np.int64)
        self.order = make_order(store, self.videos, order, batch, seed, accumulate)
        self._check()
        self.executor = reader.create(executor, store, clips.size, threads)
        self.groups: np.ndarray | None = None
        self.delivered = 0
        self.waited = 0.0

    def __len__(self) -> int:
        """Batches of an epoch."""
        return len(self.order)

    def state_dict(self) -> dict[str, int]:
        return {"delivered": self.delivered}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.delivered = state["delivered"]

    def load(self, number: int) -> Batch:
        """This rank's part of the batch with that number since the start of training; the same whenever it is asked for."""
        epoch, samples = self.order.share(number, self.rank, self.world_size)
        chosen = samples % len(self.videos)
        plans = [self.plans(int(sample), epoch) for sample in samples]
        drawn = [list(clip) for clip in zip(*plans, strict=True)]  # by number within the sample
        clips: dict[str, dict[int, Tensor]] = {}
        for stream, numbers in self.reads.items():
            read = self.executor.run(stream, [plan for clip in numbers for plan in drawn[clip]])
            clips[stream] = dict(zip(numbers, read.split(len(chosen)), strict=True))
        affine = {
            stream: {clip: colour_maps(drawn[clip], stream) for clip in numbers}
            for stream, numbers in self.reads.items()
        }
        labels, sources = torch.from_numpy(self.labels[chosen]), torch.from_numpy(self.sources[chosen])
        batch = Batch(clips, affine, labels, sources, torch.from_numpy(chosen))
        return batch.pin_memory() if self.pin else batch

    def __iter__(self) -> Iterator[Batch]:
        end = (self.delivered // len(self) + 1) * len(self)
        # One thread prepares whole batches in order; the executor's own threads share the work of each.
        pool = ThreadPoolExecutor(1, thread_name_prefix="clips")
        coming: deque[Future[Batch]] = deque()
        try:
            for number in range(self.delivered, min(self.delivered + AHEAD, end)):
                coming.append(pool.submit(self.load, number))
            while coming:
                began = time.perf_counter()
                batch = coming.popleft().result()
                self.waited = time.perf_counter() - began
                following = self.delivered + AHEAD
                if following < end:
                    coming.append(pool.submit(self.load, following))
                self.delivered += 1
                yield batch
        finally:
            pool.shutdown(cancel_futures=True)  # who stops early waits for one batch at most

    def close(self) -> None:
        """Let go of the executor's threads and files."""
        self.executor.close()

    def plans(self, sample: int, epoch: int) -> list[ClipPlan]:
        """The clips of a sample (see `train.order`) as `load` reads them in that epoch."""
        index = sample % len(self.videos)
        return sample_plans(
            self.policy,
            self.videos[index],
            self.frames[index],
            self.clips.length,
            self.clips.stride,
            frame_size=self.frame_sizes[index],
            seed=self.seed,
            epoch=epoch,
            sample=sample,
            count=self.views_per_video,
        )

    def _check(self) -> None:
        self.policy.check_views(self.views_per_video)
        where = str(self.store.root)
        missing = [stream for stream in self.reads if stream not in self.store.views]
        if missing:
            raise Refusal(
                f"the store has no view {missing[0]!r}",
                where=where,
                remedy=f"it has {', '.join(sorted(self.store.views))}; extract it with that view, or train another stream",
            )
        if not len(self):
            passes = f", accumulated {self.accumulate} times" if self.accumulate > 1 else ""
            raise Refusal(
                f"{self.order.size} videos for training are fewer than one batch of {self.batch}{passes}",
                where=where,
                remedy="a smaller batch in the recipe, or more videos",
            )
        if self.batch % self.world_size:
            raise UsageError(
                f"a batch of {self.batch} cannot be shared evenly by {self.world_size} processes",
                where="batch",
                remedy="a batch in the recipe that is a multiple of the number of devices",
            )
        if self.order.last % self.world_size:
            raise UsageError(
                f"the last batch of an epoch, of {self.order.last} videos, cannot be shared evenly by {self.world_size}"
                " processes",
                where="order.last",
                remedy="order.last: drop in the recipe, or another batch or number of devices",
            )
        if min(self.frames) < 1:
            raise Refusal(
                f"video {self.videos[self.frames.index(min(self.frames))]!r} has no frame that all its views have",
                where=where,
                remedy="leave it out of the manifest and extract again; flow has one frame less than its video",
            )
        if max(self.frames) < self.clips.span:
            raise Refusal(
                f"a clip spans {self.clips.span} frames ({self.clips.length} x stride {self.clips.stride}); the longest"
                f" video has {max(self.frames)} that all its views have",
                where=where,
                remedy="shorter clips or a smaller stride in the recipe",
            )
