"""The executor for machines without a GPU: a pool of threads decodes, some frames of a video a task, and resizes as
OpenCV does."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import islice
from typing import Any

import cv2
import numpy as np
import torch

from pipeline.store import VideoStore, corrupt
from pipeline.views import VIEWS
from train.augment import ClipPlan, blur_taps, clip_length, fullest, pixel_window
from train.console import preparing
from train.reader import Executor, Group, jpeg, resize
from train.reader.bytewise import applied
from train.reader.jpeg import WindowDecoder
from train.reader.kernels import COLOURS
from train.reader.memory import BatchMemory
from train.reader.pillow import PillowResize
from train.reader.planes import Planes, planes_of, refuse_uneven
from train.reader.resize import TOGETHER, ByteResize, Size, ValueResize, WindowResize
from train.reader.shard import ShardReader

PIECE = 32  # frames of a task, so that many threads share what is read of few videos


@functools.cache
def _prepare() -> None:
    """What a process has compiled, or read from where a first one on this machine left it, it keeps."""
    with preparing():
        resize.prepare()
        jpeg.prepare()


class OpenCVExecutor(Executor):
    """See `train.reader.Executor`.

    Resizing does not smooth where it shrinks: at the usual factors below 1.5 aliasing is slight, and INTER_AREA costs
    up to ten times as much. OpenCV's own threads are switched off, process-wide: the pool is the parallelism.

    Memory: the clips, B * C * T * h * w bytes (four times that for flow whose bytes are not even steps), page-locked
    where there is a CUDA device; for each thread the streams of PIECE frames, the samples of one and of each clip
    `TOGETHER` decoded ones; where clips of a video are cut at the fullest window, all frames that are shown of it.
    Batches that were let go are reused, up to `memory.KEPT` of them.
    """

    def __init__(self, store: VideoStore, threads: int) -> None:
        cv2.setNumThreads(1)
        _prepare()
        self.store = store
        self._shards = ShardReader(store)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="reader")
        self._memory = BatchMemory(pinned=torch.cuda.is_available())

    def read(self, view: str, groups: Sequence[Group]) -> list[torch.Tensor]:
        shown, wanted = [], []
        for plans, size in groups:
            planes, values = planes_of(self.store, view, plans), self.store.linear_values(view)
            if values is not None:
                refuse_uneven(view, plans)
            shape = (len(plans), planes.count, clip_length(plans), size[0], size[1] * planes.channels)
            clips = self._memory.tensor(shape, torch.uint8 if values is None else torch.float32)
            shown.append(planes.shown(clips))
            for plan, frame, clip in zip(plans, planes.sizes, clips.numpy(), strict=True):
                wanted.append(_Wanted(plan, frame, planes.channels, size, clip, values))
        list(self._pool.map(lambda piece: self._fill(view, *piece), _pieces(wanted)))
        list(self._pool.map(_Wanted.finish, [clip for clip in wanted if clip.unfinished]))
        return [applied(clips, plans, self._pool.map) for clips, (plans, _) in zip(shown, groups, strict=True)]

    def close(self) -> None:
        self._pool.shutdown()
        self._shards.close()

    def _fill(self, view: str, frames: list[int], clips: list[_Wanted]) -> None:
        """Decode these frames of a video, each once, into all of its clips that show them."""
        decoded = self._decoded(view, frames, clips)
        if choosing := [clip for clip in clips if clip.choosing]:
            kept = dict(decoded)
            for clip in choosing:
                clip.choose(kept)
            decoded = iter(kept.items())
        showing = [(clip.places, _Together(clip)) for clip in clips]
        for number, frame in decoded:
            for places, together in showing:
                if number in places:
                    together.show(frame, places[number])
        for _, together in showing:
            together.resize()

    def _decoded(self, view: str, frames: list[int], clips: list[_Wanted]) -> Iterator[tuple[int, np.ndarray]]:
        """Frames of a video by number, right where these clips of it may be cut."""
        video_id = clips[0].plan.video_id
        windows = [window for clip in clips for window in clip.windows]
        decode = WindowDecoder(self.store.codec(view), self.store.shape(video_id, view)[1:], windows)
        taken = self._shards.each(video_id, view, frames)
        while some := list(islice(taken, TOGETHER)):
            numbers, streams = zip(*some, strict=True)
            try:
                yield from zip(numbers, decode(streams), strict=True)
            except ValueError as error:
                raise corrupt(self.store.root, video_id, self.store.path(video_id, view), error) from error


def frame_size(frames: np.ndarray, view: str) -> Size:
    """Height and width of decoded frames of a view, as `VideoStore.read` gives them. Raises ValueError for others."""
    known = VIEWS[view]
    axis, shape = (3, "(F, H, W, 3)") if known.layout == "rgb" else (1, f"(F, {known.planes}, H, W)")
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[axis] != known.planes or not len(frames):
        raise ValueError(f"frames of {view} are uint8 {shape}, and not {frames.dtype} {frames.shape}")
    return known.frame_size(frames.shape)


def clips_of(
    frames: np.ndarray, view: str, settings: Mapping[str, Any], plans: Sequence[ClipPlan], size: Size
) -> torch.Tensor:
    """What the executor makes of plans of one video, whose decoded frames are given in the place of a store.

    frames: of the video, see `frame_size`. settings: of the view in a store; none where its bytes are even steps.
    Raises ValueError as that does.
    """
    frame, values = frame_size(frames, view), VIEWS[view].values(settings) if settings else None
    planes = Planes(1, COLOURS, []) if VIEWS[view].layout == "rgb" else Planes(frames.shape[1], 1, [])
    if values is not None:
        refuse_uneven(view, plans)
    shape = (len(plans), planes.count, clip_length(plans), size[0], size[1] * planes.channels)
    clips = torch.empty(shape, dtype=torch.uint8 if values is None else torch.float32)
    for plan, clip in zip(plans, clips.numpy(), strict=True):
        wanted = _Wanted(plan, frame, planes.channels, size, clip, values)
        if wanted.choosing:
            wanted.choose(frames)
        together = _Together(wanted)
        for number, place in wanted.places.items():
            together.show(frames[number], place)
        together.resize()
        wanted.finish()
    return applied(planes.shown(clips), plans)


class _Wanted:
    """A clip that is to be made, (P, T, h, w * C), from frames of a size."""

    def __init__(
        self, plan: ClipPlan, frame: Size, channels: int, size: Size, clip: np.ndarray, values: np.ndarray | None
    ) -> None:
        self.plan, self.clip = plan, clip
        self.windows = [pixel_window(window, *frame) for window in plan.pixels.windows]
        self._frame, self._channels, self._size, self._values = frame, channels, size, values
        # A short video repeats its first frame: a frame is resized to the first of its places alone.
        self.places = {number: place for place, number in reversed(list(enumerate(plan.frames.tolist())))}

    @property
    def choosing(self) -> bool:
        """Whether it is open where it is cut, until `choose` has seen all its frames."""
        return len(self.windows) > 1

    def choose(self, frames: Mapping[int, np.ndarray] | np.ndarray) -> None:
        """See `train.augment.Choice`. frames: decoded, by number."""
        assert self.plan.pixels.choice is not None
        shown = [frames[number] for number in self.plan.frames.tolist()]
        planes = shown if self._channels > 1 else [plane for frame in shown for plane in frame]
        sums = []
        for top, left, height, width in self.windows:
            cut = slice(top, top + height), slice(left, left + width)
            empty = np.full_like(planes[0][cut], self.plan.pixels.choice.empty)
            sums.append(sum(cv2.norm(plane[cut], empty, cv2.NORM_L1) for plane in planes))
        self.windows = [fullest(self.windows, sums)]

    def resizing(self) -> WindowResize:
        """Of its frames, for one thread."""
        pixels, [window] = self.plan.pixels, self.windows
        if pixels.published is not None and pixels.published.filter:
            return PillowResize(pixels.published.filter, self._channels, window, pixels.flip, self._size)
        if self._values is None:
            return ByteResize(self._frame, self._channels, window, pixels.flip, self._size)
        return ValueResize(self._values, window, pixels.flip, self._size)

    @property
    def unfinished(self) -> bool:
        """Whether `finish` has something to do."""
        return bool(self.plan.pixels.blur) or len(self.places) < len(self.plan.frames)

    def finish(self) -> None:
        """What comes after all its frames are there: repeated ones, and blur."""
        first = np.array([self.places[number] for number in self.plan.frames.tolist()])
        (repeats,) = np.nonzero(first != np.arange(len(first)))
        self.clip[:, repeats] = self.clip[:, first[repeats]]
        if sigma := self.plan.pixels.blur:
            taps = blur_taps(sigma)
            for image in self.clip.reshape(-1, *self._size, self._channels):
                cv2.GaussianBlur(image, (taps, taps), sigma, dst=image)


class _Together:
    """Frames of a clip that are resized together."""

    def __init__(self, clip: _Wanted) -> None:
        self._clip = clip
        self._frames: list[np.ndarray] = []
        self._places: list[int] = []

    def show(self, frame: np.ndarray, place: int) -> None:
        self._frames.append(frame)
        self._places.append(place)
        if len(self._frames) == TOGETHER:
            self.resize()

    def resize(self) -> None:
        if self._frames:
            self._resize(self._frames, self._clip.clip, np.array(self._places))
            self._frames, self._places = [], []

    @cached_property
    def _resize(self) -> WindowResize:
        return self._clip.resizing()


def _pieces(wanted: Sequence[_Wanted]) -> Iterator[tuple[list[int], list[_Wanted]]]:
    """Distinct frames of a video, up to PIECE of them, and the clips that show some of them; all of a video of whose
    clips one is yet to be placed."""
    of_video: dict[str, list[_Wanted]] = {}
    for clip in wanted:
        of_video.setdefault(clip.plan.video_id, []).append(clip)
    for clips in of_video.values():
        frames = sorted(set().union(*(clip.places for clip in clips)))
        piece = len(frames) if any(clip.choosing for clip in clips) else PIECE
        for start in range(0, len(frames), piece):
            some = frames[start : start + piece]
            yield some, [clip for clip in clips if not clip.places.keys().isdisjoint(some)]
