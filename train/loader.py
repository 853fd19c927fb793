"""Batches of clips, the same on any number of ranks and after any interruption.

The order of an epoch follows from (seed, epoch), the frames and pixels of a sample from (seed, epoch, sample): nothing is
remembered but how many batches were delivered.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import Refusal, UsageError
from pipeline.store import VideoStore
from train import reader
from train.augment import ClipPlan, Policy, colour_maps, sample_plans
from train.reader.affine import normalise

ORDER = 0x6F726465  # keeps the order's random numbers apart from the pixels'
AHEAD = 2  # batches made while the network works; more would only hold memory


@dataclass
class Batch:
    """Clips of B videos, V clips each.

    clips: view -> V tensors uint8 (B, C, T, H, W). affine: view -> V tensors float32 (B, K, D, C + 1), from bytes to
    network input (see `train.augment.Pixels`). labels: class index, int64 (B,), -1 without. sources: number of the recording, int64 (B,). index: of the video
    in the loader's list, int64 (B,).
    """

    clips: dict[str, list[Tensor]]
    affine: dict[str, list[Tensor]]
    labels: Tensor
    sources: Tensor
    index: Tensor

    def views(self, stream: str) -> list[Tensor]:
        """The V clips of a stream as network input, float32 (B, D, T, H, W)."""
        return [normalise(clips, affine) for clips, affine in zip(self.clips[stream], self.affine[stream], strict=True)]


@dataclass(frozen=True)
class ClipSettings:
    """Which frames and which size.

    Args:
        length: Frames of a clip.
        stride: Distance between them in the video.
        size: Height and width of the clip at the network's input, in pixels.
    """

    length: int
    stride: int
    size: tuple[int, int]


class ClipLoader:
    """Iterates over the rest of the current epoch; call `iter` again for the next one.

    batch: videos in a step over all ranks; each rank gets its slice, in rank order. The last, smaller batch of an epoch
    is left out. `state_dict` and `load_state_dict` hold the position. `waited` is the time, in seconds, that the last
    batch was waited for. `close` it when it is no longer needed.

    Raises Refusal and UsageError at once for what could not work later: views that are not stored, too few videos, a
    batch that the ranks cannot share, a video without frames, clips longer than every video.
    """

    def __init__(
        self,
        store: VideoStore,
        videos: Sequence[str],
        streams: Sequence[str],
        clips: ClipSettings,
        policy: Policy,
        views_per_video: int,
        batch: int,
        seed: int,
        executor: str = "auto",
        threads: int = 2,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.store, self.videos, self.streams = store, list(videos), tuple(streams)
        self.clips, self.policy, self.views_per_video = clips, policy, views_per_video
        self.batch, self.seed, self.rank, self.world_size = batch, seed, rank, world_size
        infos = [store.info(video) for video in self.videos]
        # Frames that every stored view has, so that a sample's frames do not depend on which views are read.
        self.frames = [min(shape[0] for shape in info.shapes.values()) for info in infos]
        self.frame_sizes = [(info.height, info.width) for info in infos]
        class_index = {name: index for index, name in enumerate(store.classes)}
        recordings = {source: number for number, source in enumerate(sorted({info.source for info in infos}))}
        self.labels = np.array([class_index.get(info.label, -1) for info in infos], np.int64)
        self.sources = np.array([recordings[info.source] for info in infos], np.int64)
        self._check()
        self.executor = reader.create(executor, store, clips.size, threads)
        self.delivered = 0
        self.waited = 0.0

    def __len__(self) -> int:
        """Batches of an epoch."""
        return len(self.videos) // self.batch

    def state_dict(self) -> dict[str, int]:
        return {"delivered": self.delivered}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.delivered = state["delivered"]

    def order(self, epoch: int) -> np.ndarray:
        """The videos of an epoch, as indices into `videos`; each once."""
        return np.random.default_rng(np.random.SeedSequence((ORDER, self.seed, epoch))).permutation(len(self.videos))

    def rank_slice(self, number: int) -> tuple[int, np.ndarray]:
        """Epoch and this rank's videos of the batch with that number since the start of training."""
        epoch, place = divmod(number, len(self))
        whole = self.order(epoch)[place * self.batch : (place + 1) * self.batch]
        share = self.batch // self.world_size
        return epoch, whole[self.rank * share : (self.rank + 1) * share]

    def load(self, number: int) -> Batch:
        """This rank's part of a batch, made now; the same whenever it is asked for."""
        epoch, chosen = self.rank_slice(number)
        plans = [self.plans(int(index), epoch) for index in chosen]
        by_view = [[sample[view] for sample in plans] for view in range(self.views_per_video)]
        flat = [plan for view in by_view for plan in view]
        share = len(chosen)
        clips = {stream: list(self.executor.run(stream, flat).split(share)) for stream in self.streams}
        affine = {stream: [colour_maps(view, stream) for view in by_view] for stream in self.streams}
        labels, sources = torch.from_numpy(self.labels[chosen]), torch.from_numpy(self.sources[chosen])
        return Batch(clips, affine, labels, sources, torch.from_numpy(chosen))

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

    def plans(self, index: int, epoch: int) -> list[ClipPlan]:
        """The clips of a video, by its place in `videos`, as `load` reads them in that epoch."""
        return sample_plans(
            self.policy,
            self.videos[index],
            self.frames[index],
            self.clips.length,
            self.clips.stride,
            frame_size=self.frame_sizes[index],
            seed=self.seed,
            epoch=epoch,
            sample=index,
            count=self.views_per_video,
        )

    def _check(self) -> None:
        self.policy.check_views(self.views_per_video)
        where = str(self.store.root)
        missing = [stream for stream in self.streams if stream not in self.store.views]
        if missing:
            raise Refusal(
                f"the store has no view {missing[0]!r}",
                where=where,
                remedy=f"it has {', '.join(sorted(self.store.views))}; extract it with that view, or train another stream",
            )
        if len(self.videos) < self.batch:
            raise Refusal(
                f"{len(self.videos)} videos for training are fewer than one batch of {self.batch}",
                where=where,
                remedy="a smaller batch in the recipe, or more videos",
            )
        if self.batch % self.world_size:
            raise UsageError(
                f"a batch of {self.batch} cannot be shared evenly by {self.world_size} processes",
                where="batch",
                remedy="a batch in the recipe that is a multiple of the number of devices",
            )
        if min(self.frames) < 1:
            raise Refusal(
                f"video {self.videos[self.frames.index(min(self.frames))]!r} has no frame that all its views have",
                where=where,
                remedy="leave it out of the manifest and extract again; flow has one frame less than its video",
            )
        needed = self.clips.length * self.clips.stride
        if max(self.frames) < needed:
            raise Refusal(
                f"a clip spans {needed} frames ({self.clips.length} x stride {self.clips.stride}); the longest video"
                f" has {max(self.frames)} that all its views have",
                where=where,
                remedy="shorter clips or a smaller stride in the recipe",
            )
