"""The executor for machines without a GPU: OpenCV in a pool of threads, one clip a task."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import torch

from pipeline.store import VideoStore, corrupt
from train.augment import ClipPlan, blur_taps, clip_length, pixel_window
from train.reader.shard import ShardReader


class OpenCVExecutor:
    """See `train.reader.Executor`.

    Resizing is INTER_LINEAR also where it shrinks: at the usual factors below 1.5 aliasing is slight, and INTER_AREA
    costs up to ten times as much. OpenCV's own threads are switched off, process-wide: the pool is the parallelism.
    """

    def __init__(self, store: VideoStore, size: tuple[int, int], threads: int) -> None:
        cv2.setNumThreads(1)
        self.store, self.size = store, size
        self._shards = ShardReader(store)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="reader")

    def run(self, view: str, plans: list[ClipPlan]) -> torch.Tensor:
        batch, frames = len(plans), clip_length(plans)
        table = self.store.linear_values(view)
        if view == "rgb":
            # Interleaved, as OpenCV works; the training device makes it planar while it normalises.
            clips = np.empty((batch, 1, frames, *self.size, 3), np.uint8)
            shown = clips[:, 0].transpose(0, 4, 1, 2, 3)
        else:
            shown = clips = np.empty((batch, 2, frames, *self.size), np.uint8 if table is None else np.float32)
        list(self._pool.map(lambda plan, clip: self._fill(view, plan, clip, table), plans, clips))
        return torch.from_numpy(shown)

    def close(self) -> None:
        self._pool.shutdown()

    def _fill(self, view: str, plan: ClipPlan, clip: np.ndarray, table: np.ndarray | None) -> None:
        """Decode, cut and resize one clip into `clip` (images a frame, T, h, w[, 3]): rgb is one image, flow is two."""
        streams = self._shards.encoded(plan.video_id, view, plan.frames)
        shape, decode = self.store.info(plan.video_id).shapes[view][1:], self.store.codec(view).decode_frame
        pixels = plan.pixels[view]
        top, left, height, width = pixel_window(pixels.window, *(shape[:2] if view == "rgb" else shape[1:]))
        rows, columns = slice(top, top + height), slice(left, left + width)
        size, taps = (self.size[1], self.size[0]), blur_taps(pixels.blur)
        first: dict[int, int] = {}  # frame number -> the first place in the clip that shows it
        for place, number in enumerate(plan.frames.tolist()):
            if first.setdefault(number, place) < place:  # a short video repeats its first frame
                clip[:, place] = clip[:, first[number]]
                continue
            try:
                frame = decode(streams[number], shape)
            except ValueError as error:
                raise corrupt(self.store.root, plan.video_id, self.store.path(plan.video_id, view), error) from error
            if table is not None:
                frame = table[frame]
            for image, target in zip((frame,) if view == "rgb" else frame, clip[:, place], strict=True):
                cv2.resize(image[rows, columns], size, dst=target, interpolation=cv2.INTER_LINEAR)
                if pixels.flip:
                    cv2.flip(target, 1, dst=target)
                if pixels.blur:
                    cv2.GaussianBlur(target, (taps, taps), pixels.blur, dst=target)
