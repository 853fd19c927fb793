"""Clips of a store as normalised tensors: what networks are shown."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Literal

import train  # noqa: F401  (mends torchvision before anything imports it)

# isort: split
import numpy as np
from torch.utils.data import Dataset

from pipeline import called
from pipeline.errors import Refusal, UsageError, refuse_unknown
from pipeline.manifest import SPLITS
from pipeline.store import VideoStore, open_store
from train import augment, reader
from train.augment import ClipPlan, Draws, Policy
from train.clips import random_clip
from train.clips.spec import ClipSpec
from train.clips.streams import StoreStreams
from train.hardware import reading_threads
from train.reader import Executor
from train.reader.affine import normalise
from train.sampling import Sampling
from train.sampling.random import Random
from train.settings import read

Windows = Literal["random", "middle", "all"]
WINDOWS = ("random", "middle", "all")


class Clips(Dataset[dict[str, Any]]):
    """Clips of videos, by number: a map-style torch Dataset. A DataLoader asks for whole batches, which threads read.

    An item is a dict: `video` (its id), `label` (its place in `store.classes`, -1 without), `frames` (indices in the
    video, int64 (T,)), and for each stream a tensor, float32 (C, T, h, w), normalised as networks are given it.

    An item follows from (seed, epoch, number) alone; `set_epoch` before an epoch draws other random windows and pixels.

    Args:
        spec, sampling: of the clips. streams: names in `spec`.
        policy: what is done to their pixels.
        windows: random, one drawn window of each video; middle, the one in its middle; all, each window of evaluation.
        videos: ids.
        threads: that read; 0 takes one for each core, eight at most.

    Raises:
        Refusal: a store without a view that is asked for, and no video with a frame of all of them.
    """

    def __init__(
        self,
        store: VideoStore,
        spec: ClipSpec,
        sampling: Sampling,
        streams: Sequence[str],
        policy: Policy,
        windows: Windows,
        videos: Sequence[str],
        seed: int = 0,
        threads: int = 0,
    ) -> None:
        self.store, self.spec, self.sampling, self.policy = store, spec, sampling, policy
        self.windows, self.seed, self.epoch = windows, seed, 0
        self.threads = reading_threads(threads)
        asked = [spec.stream(name) for name in streams]
        for stream in asked:
            if stream.view not in store.views:
                raise Refusal(
                    f"the store has no view {stream.view!r}",
                    where=str(store.root),
                    remedy=f"add it: {called.command('extract', videos='', store=str(store.root), views=stream.view)}",
                )
        self.streams = StoreStreams(asked, store.settings).own
        self.videos = [video for video in videos if self._length(video) > 0]
        if not self.videos:
            raise Refusal(
                "there is no video to show", where=str(store.root), remedy="another split, or a store that has some"
            )
        each = [len(self._windows(video)) if windows == "all" else 1 for video in self.videos]
        self._ends = np.cumsum(each)
        self._classes = {name: number for number, name in enumerate(store.classes)}
        self._reader: tuple[int, Executor] | None = None

    def __repr__(self) -> str:
        shown = ", ".join(
            f"{name} {bound.stream.channels}x{self.spec.length}x{bound.stream.size[0]}x{bound.stream.size[1]}"
            for name, bound in self.streams.items()
        )
        return f"Clips({len(self)} of {len(self.videos)} videos, windows {self.windows!r}: {shown})"

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, number: int) -> dict[str, Any]:
        if not -len(self) <= number < len(self):
            raise IndexError(f"there are {len(self)} clips, and none with number {number}")
        return self.__getitems__([number % len(self)])[0]

    def __getitems__(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """Several at once, read together; a DataLoader asks so."""
        found = [self._plans(int(number)) for number in numbers]
        items = [
            {
                "video": video,
                "label": self._classes.get(self.store.info(video).label, -1),
                "frames": next(iter(plans.values())).frames,
            }
            for video, plans in found
        ]
        for name, bound in self.streams.items():
            chosen = [plans[name] for _, plans in found]
            clips = self._executor.run(bound.stream.view, chosen, bound.stream.size)
            for item, clip in zip(items, normalise(clips, augment.colour_maps(chosen)), strict=True):
                item[name] = clip
        return items

    def set_epoch(self, epoch: int) -> None:
        """What is random is drawn anew, as of this epoch, counted from 0."""
        self.epoch = epoch

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_reader": None}  # threads and files stay with the process that has them

    @property
    def _executor(self) -> Executor:
        """Of this process: a worker of a DataLoader, which is a fork, has none of its parent's threads."""
        if self._reader is None or self._reader[0] != os.getpid():
            self._reader = os.getpid(), reader.create("opencv", self.store, self.threads)
        return self._reader[1]

    def _length(self, video: str) -> int:
        """Frames that all of the streams have of a video."""
        return min(self.store.shape(video, bound.stream.view)[0] for bound in self.streams.values())

    def _windows(self, video: str) -> np.ndarray:
        return self.sampling.windows(self.spec, self._length(video))

    def _plans(self, number: int) -> tuple[str, dict[str, ClipPlan]]:
        row = int(np.searchsorted(self._ends, number, side="right"))
        video, draws = self.videos[row], Draws(self.seed, self.epoch, number)
        if self.windows == "random":
            frames = random_clip(self._length(video), self.spec.length, self.spec.stride, draws.shared)
        else:
            windows = self._windows(video)
            first = int(self._ends[row - 1]) if row else 0
            frames = windows[number - first if self.windows == "all" else len(windows) // 2]
        info = self.store.info(video)
        pixels = self.policy.pixels(self.streams, (info.height, info.width), len(frames), draws)
        return video, {
            name: ClipPlan(video, frames, bound.stream, pixels[name]) for name, bound in self.streams.items()
        }


def clips(
    store: VideoStore | str | os.PathLike[str],
    streams: Sequence[str] = ("rgb",),
    *,
    length: int = 16,
    stride: int = 1,
    size: int | tuple[int, int] = 112,
    windows: Windows = "random",
    split: str | None = None,
    augmentation: str = "evaluate",
    settings: dict[str, Any] | None = None,
    seed: int = 0,
    threads: int = 0,
) -> Clips:
    """Clips of a store's videos as a torch Dataset of normalised tensors, for networks and training loops of your own.

    `torch.utils.data.DataLoader(costream.clips(store), batch_size=32, shuffle=True)` gives batches; workers are not
    needed, as threads read. For clips as a trained network was shown them, see `Network.clips`.

    Args:
        store: as `costream.open` gives it, or its folder or URL.
        streams: views by their names, rgb and flow; flow is given in pixels / 2.5.
        length, stride: frames of a clip, and their distance in the video. A shorter video repeats its first frame.
        size: side of the clips in pixels, or (height, width).
        windows: random, one drawn window of each video; middle; or all, each window of evaluation.
        split: train, val, test, or "" for videos without one; None: all.
        augmentation, settings: what is done to pixels, by a name in `train.augment` with its settings; evaluate alters
            none, and squeezes the whole frame into the clip unless `{"crop": 1.0}` cuts out the largest square.
        seed: of what is random.
        threads: that read; 0 takes one for each core, eight at most.

    Raises:
        UsageError: an unknown stream, split, kind of windows, augmentation or setting, and sizes out of range.
        Refusal: a store that lacks a view, and no video with frames.
    """
    opened = store if isinstance(store, VideoStore) else open_store(store)
    sides = (size, size) if isinstance(size, int) else tuple(size)
    spec = _spec(length, stride, sides)
    if not streams:
        raise UsageError("no stream is asked for", where="streams", remedy='for example streams=("rgb",)')
    return Clips(
        opened,
        spec,
        Random(),
        streams,
        augment.policy(augmentation, **(settings or {})),
        checked_windows(windows),
        of_split(opened, split),
        seed,
        threads,
    )


def _spec(length: int, stride: int, size: tuple[int, ...]) -> ClipSpec:
    return read(ClipSpec, {"length": length, "stride": stride, "size": list(size)}, "clips")


def checked_windows(windows: str) -> Windows:
    if windows not in WINDOWS:
        refuse_unknown("kind of windows", windows, WINDOWS)
    return windows  # type: ignore[return-value]


def of_split(store: VideoStore, split: str | None) -> list[str]:
    """Ids of the videos of a split; None: of all. Raises UsageError for an unknown one."""
    if split is None:
        return store.videos
    if split not in SPLITS:
        refuse_unknown("split", split, SPLITS)
    return [video for video in store.videos if store.info(video).split == split]
