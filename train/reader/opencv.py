"""The executor for machines without a GPU: OpenCV decodes in a pool of threads, one clip a task."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import cv2
import numpy as np
import torch

from pipeline.store import VideoStore, corrupt
from train.augment import ClipPlan, blur_taps, clip_length, pixel_window
from train.console import preparing
from train.reader.bytewise import applied
from train.reader.memory import BatchMemory
from train.reader.pillow import PillowResize
from train.reader.planes import planes_of, refuse_uneven
from train.reader.resize import TOGETHER, ByteResize, Size, ValueResize, WindowResize, prepare
from train.reader.shard import ShardReader


class OpenCVExecutor:
    """See `train.reader.Executor`.

    Resizing does not smooth where it shrinks: at the usual factors below 1.5 aliasing is slight, and INTER_AREA costs
    up to ten times as much. OpenCV's own threads are switched off, process-wide: the pool is the parallelism.

    Memory: the clips, B * C * T * h * w bytes (four times that for flow whose bytes are not even steps), page-locked
    where there is a CUDA device; for each thread the streams of a clip and `TOGETHER` decoded frames. Batches that were
    let go are reused, up to `memory.KEPT` of them.
    """

    def __init__(self, store: VideoStore, threads: int) -> None:
        cv2.setNumThreads(1)
        with preparing():
            prepare()
        self.store = store
        self._shards = ShardReader(store)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="reader")
        self._memory = BatchMemory(pinned=torch.cuda.is_available())

    def run(self, view: str, plans: list[ClipPlan], size: Size) -> torch.Tensor:
        frames, planes = clip_length(plans), planes_of(self.store, view, plans)
        values = self.store.linear_values(view)
        shape = (len(plans), planes.count, frames, size[0], size[1] * planes.channels)
        clips = self._memory.tensor(shape, torch.uint8 if values is None else torch.float32)

        def fill(plan: ClipPlan, frame: Size, clip: np.ndarray) -> None:
            pixels = plan.pixels
            window = pixel_window(pixels.window, *frame)
            published = pixels.published
            if published is not None and published.filter:
                resize: WindowResize = PillowResize(published.filter, planes.channels, window, pixels.flip, size)
            elif values is None:
                resize = ByteResize(frame, planes.channels, window, pixels.flip, size)
            else:
                resize = ValueResize(values, window, pixels.flip, size)
            self._fill(view, plan, resize, clip)
            if pixels.blur:
                _blur(clip.reshape(-1, *size, planes.channels), pixels.blur)

        if values is not None:
            refuse_uneven(view, plans)
        list(self._pool.map(fill, plans, planes.sizes, clips.numpy()))
        return applied(planes.shown(clips), plans, self._pool.map)

    def close(self) -> None:
        self._pool.shutdown()
        self._shards.close()

    def _fill(self, view: str, plan: ClipPlan, resize: WindowResize, clip: np.ndarray) -> None:
        """Decode one clip, each distinct frame once, into `clip` (P, T, h, w * C)."""
        shape, decode = self.store.shape(plan.video_id, view)[1:], self.store.codec(view).decode_frame
        _, firsts, distinct = np.unique(plan.frames, return_index=True, return_inverse=True)
        streams = self._shards.each(plan.video_id, view, plan.frames)
        for start in range(0, len(firsts), TOGETHER):
            places = firsts[start : start + TOGETHER]
            try:
                frames = [decode(stream, shape) for _, stream in islice(streams, len(places))]
            except ValueError as error:
                raise corrupt(self.store.root, plan.video_id, self.store.path(plan.video_id, view), error) from error
            resize(frames, clip, places)
        if len(firsts) < len(plan.frames):  # a short video repeats its first frame
            source = firsts[distinct]
            (repeats,) = np.nonzero(source != np.arange(len(source)))
            clip[:, repeats] = clip[:, source[repeats]]


def _blur(images: np.ndarray, sigma: float) -> None:
    """Gaussian blur of images (N, h, w, C), in place."""
    taps = blur_taps(sigma)
    for image in images:
        cv2.GaussianBlur(image, (taps, taps), sigma, dst=image)
