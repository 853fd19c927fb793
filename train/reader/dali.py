"""The executor for GPUs: NVIDIA DALI decodes with nvJPEG and cuts, resizes and mirrors on the device.

Without CUDA the same pipeline runs on the CPU, bit-identical decoding included; there it is several times slower than
OpenCV (its resize alone takes ten times as long), and serves as the check of this path on any machine.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from nvidia.dali import Pipeline, fn
from nvidia.dali.types import DALIDataType, DALIImageType, DALIInterpType

from pipeline.errors import Refusal
from pipeline.pictures import jpeg_size
from pipeline.store import VideoStore, corrupt
from pipeline.views.codec import JpegCodec
from train.augment import ClipPlan, blur_taps, clip_length, pixel_window
from train.augment.plans import Filter
from train.reader.bytewise import applied
from train.reader.planes import Planes, planes_of, refuse_uneven
from train.reader.shard import ShardReader

Kind = tuple[
    str, tuple[int, int], bool, Filter | None
]  # of a pipeline: view, size of the clips, whether it blurs, filter
INTERPOLATION: dict[Filter | None, DALIInterpType] = {
    None: DALIInterpType.INTERP_LINEAR,
    "bilinear": DALIInterpType.INTERP_LINEAR,
    "bicubic": DALIInterpType.INTERP_CUBIC,
    "nearest": DALIInterpType.INTERP_NN,
}
Streams = list[dict[int, np.ndarray]]  # of each clip: frame number -> its stream, or the frame itself if it is no JPEG


class DaliExecutor:
    """See `train.reader.Executor`. On a GPU the clips come back there: the CUDA device current when this was made.

    One DALI pipeline per view and size, made when it is first needed and again for a batch larger than any before. An
    item is a frame: clips differ in how many distinct frames they have, and DALI decodes one image an item. Nothing is
    prefetched and no process is started; the loader reads ahead.

    Memory, on the device: the clips, B * C * T * h * w bytes (four times that for flow whose bytes are not even steps),
    and in each pipeline the decoded frames, B * T * C * H * W bytes at most (on a CPU of rgb only the windows), and the
    clips again. On the host: the streams of the batch.
    """

    def __init__(self, store: VideoStore, threads: int) -> None:
        self.store, self.threads = store, threads
        self.device_id = torch.cuda.current_device() if torch.cuda.is_available() else None
        self._shards = ShardReader(store)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="reader")
        self._pipelines: dict[Kind, Pipeline] = {}
        self._lock = threading.Lock()  # a DALI pipeline serves one thread at a time

    def run(self, view: str, plans: list[ClipPlan], size: tuple[int, int]) -> torch.Tensor:
        capacity = len(plans) * clip_length(plans)
        planes = planes_of(self.store, view, plans)
        streams: Streams = list(
            self._pool.map(lambda plan: self._shards.encoded(plan.video_id, view, plan.frames), plans)
        )
        if not self._is_jpeg(view):
            streams = self._decompressed(view, plans, streams)
        inputs = _inputs(plans, streams, planes)
        if self.store.linear_values(view) is not None:
            refuse_uneven(view, plans)
        filters = {plan.pixels.published.filter if plan.pixels.published else None for plan in plans}
        if len(filters) > 1:
            raise ValueError(f"the clips of a batch are resized by one filter, not {len(filters)}")
        kind = (view, size, "taps" in inputs, filters.pop())
        heights, widths = np.repeat(planes.sizes, [len(found) for found in streams], axis=0).T
        images = np.stack([planes.count * heights, widths], axis=1)
        if self._is_jpeg(view):  # decoding takes memory for what is announced
            announced = [jpeg_size(stream) for found in streams for stream in found.values()]
            if announced != list(map(tuple, images.tolist())):
                raise self._refusal(view, plans, streams, ValueError("a frame announces another size"))
        with self._lock:
            try:
                items = self._execute(kind, planes, inputs, images, capacity)
            except RuntimeError as error:
                self._pipelines.pop(kind, None)  # DALI says that it is no longer valid
                raise self._refusal(view, plans, streams, error) from error
        places = _places(plans, streams)
        if not np.array_equal(places, np.arange(len(items))):  # a short video repeats its first frame
            items = items[torch.from_numpy(places).to(items.device)]
        elif items.is_cuda:
            # Into torch's own memory: DALI reuses its buffers without waiting for torch's streams.
            items = items.clone()
        if items.is_cuda:
            torch.cuda.current_stream(items.device).synchronize()
        clips = items.view(len(plans), -1, *items.shape[1:])
        shown = clips.permute(0, 4, 1, 2, 3) if planes.channels > 1 else clips[..., 0].permute(0, 2, 1, 3, 4)
        return applied(shown, plans)

    def close(self) -> None:
        self._pool.shutdown()
        self._shards.close()
        self._pipelines.clear()

    def _execute(
        self, kind: Kind, planes: Planes, inputs: Mapping[str, object], images: np.ndarray, capacity: int
    ) -> torch.Tensor:
        """Frames of the distinct items, with the dtype of `Executor.run`, in memory of DALI's own: rgb (N, h, w, 3),
        others (N, P, h, w, 1). images: heights and widths that the streams should have, int (N, 2).
        """
        view, size, blurs, kernel = kind
        pipeline = self._pipelines.get(kind)
        if pipeline is None or pipeline.max_batch_size < capacity:
            made = Pipeline(capacity, self.threads, self.device_id, prefetch_queue_depth=1, seed=0)
            _define(made, planes, blurs, size, kernel, self._is_jpeg(view), self.store.linear_values(view))
            pipeline = self._pipelines[kind] = made
        outputs: Any = pipeline.run(**inputs)  # declared as on either device; the second is always on the CPU
        frames, found = outputs
        if not np.array_equal(found.as_array()[:, :2], images):
            raise RuntimeError("frames decode to another size than the store records")
        return torch.from_dlpack(frames.as_tensor())

    def _is_jpeg(self, view: str) -> bool:
        return isinstance(self.store.codec(view), JpegCodec)

    def _decompressed(self, view: str, plans: list[ClipPlan], streams: Streams) -> Streams:
        """Frames as images (P * H, W, 1), as JPEG holds them: DALI does not know zstd."""
        decode = self.store.codec(view).decode_frame

        def frames(plan: ClipPlan, found: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
            shape = self.store.shape(plan.video_id, view)[1:]
            try:
                return {n: decode(stream, shape).reshape(-1, shape[-1], 1) for n, stream in found.items()}
            except ValueError as error:
                raise corrupt(self.store.root, plan.video_id, self.store.path(plan.video_id, view), error) from error

        return list(self._pool.map(frames, plans, streams))

    def _refusal(self, view: str, plans: list[ClipPlan], streams: Streams, error: Exception) -> Refusal:
        """DALI names an item at most, and not always: find the video whose frames do not decode."""
        codec = self.store.codec(view)
        for plan, found in zip(plans, streams, strict=True):
            for stream in found.values():
                try:
                    codec.decode_frame(stream, self.store.shape(plan.video_id, view)[1:])
                except ValueError as reason:
                    return corrupt(self.store.root, plan.video_id, self.store.path(plan.video_id, view), reason)
        videos = sorted({plan.video_id for plan in plans})
        return Refusal(
            f"DALI failed on a batch of view {view!r} although each frame decodes: {error}",
            where=f"{self.store.root}: {', '.join(videos[:8])}{', ...' if len(videos) > 8 else ''}",
            remedy="read with the executor opencv, or use a smaller batch if device memory ran out",
        )


def _inputs(plans: list[ClipPlan], streams: Streams, planes: Planes) -> Mapping[str, object]:
    """A batch for the pipeline, an item a distinct frame: streams, integer windows, flips and blurs."""
    counts = [len(found) for found in streams]
    drawn = [plan.pixels for plan in plans]
    windows = [pixel_window(pixels.window, *size) for pixels, size in zip(drawn, planes.sizes, strict=True)]
    inputs: dict[str, object] = {
        "streams": [stream for found in streams for stream in found.values()],
        "windows": np.repeat(np.array(windows, np.int32), counts, axis=0),
        "flips": np.repeat(np.array([pixels.flip for pixels in drawn], np.int32), counts),
    }
    if any(pixels.blur for pixels in drawn):
        # One tap leaves a frame as it is; a deviation of 0 means to DALI "to be derived from the taps".
        inputs["taps"] = np.repeat(np.array([blur_taps(pixels.blur) for pixels in drawn], np.int32), counts)
        inputs["sigmas"] = np.repeat(np.array([pixels.blur or 1.0 for pixels in drawn], np.float32), counts)
    return inputs


def _places(plans: list[ClipPlan], streams: Streams) -> np.ndarray:
    """Where each frame of each clip lies among the items, int64 (B * T,)."""
    places, first = [], 0
    for plan, found in zip(plans, streams, strict=True):
        place = {number: first + i for i, number in enumerate(found)}
        places += [place[number] for number in plan.frames.tolist()]
        first += len(found)
    return np.array(places)


def _define(
    pipeline: Pipeline,
    planes: Planes,
    blurs: bool,
    size: tuple[int, int],
    kernel: Filter | None,
    jpeg: bool,
    table: np.ndarray | None,
) -> None:
    """One batch at a time, so that inputs are given to `run`; DALI's default execution lets outputs outlive the next
    run."""
    on_cpu = pipeline.device_id is None
    with pipeline:
        windows = fn.external_source(name="windows", dtype=DALIDataType.INT32, ndim=1)
        flips = fn.external_source(name="flips", dtype=DALIDataType.INT32, ndim=0)
        # Not resize's own region of interest, which reads pixels outside it: up to 5 gray levels off.
        frames: Any
        window: dict[str, Any] = {"start": windows[:2], "shape": windows[2:], "axis_names": "HW"}
        if planes.channels > 1 and on_cpu:
            frames, found = _decoded_windows(window)
        else:
            frames = _decoded(planes, jpeg, on_cpu)
            found = frames.shape()
            if planes.channels == 1:  # planes one above the other: a sequence of images
                frames = fn.expand_dims(frames, axes=[0])
                frames = fn.reshape(frames, rel_shape=[planes.count, 1 / planes.count, 1, 1], layout="FHWC")
            frames = fn.slice(frames, **window)
        if table is not None:
            values = table.tolist()
            frames = fn.lookup_table(frames, keys=list(range(256)), values=values, dtype=DALIDataType.FLOAT)
        frames = fn.resize(frames, size=size, interp_type=INTERPOLATION[kernel], antialias=kernel is not None)
        frames = fn.flip(frames, horizontal=flips)
        if blurs:
            taps = fn.external_source(name="taps", dtype=DALIDataType.INT32, ndim=0)
            sigmas = fn.external_source(name="sigmas", dtype=DALIDataType.FLOAT, ndim=0)
            frames = fn.gaussian_blur(frames, window_size=taps, sigma=sigmas)
        pipeline.set_outputs(frames, found)


def _decoded_windows(window: dict[str, Any]) -> tuple[Any, Any]:
    """Of colour JPEGs only the windows, and the shapes of the whole images.

    The pixels are those of decoding all and cutting: decoding takes 0.8 of the time at 128x171, 0.7 at 256x340 (windows
    of half to all of the frame). Not on a GPU, where nobody measured it; stacked planes have a window in every plane.
    """
    streams = fn.external_source(name="streams", dtype=DALIDataType.UINT8, ndim=1)
    images = fn.decoders.image_slice(
        streams, device="cpu", output_type=DALIImageType.RGB, adjust_orientation=False, **window
    )
    return images, fn.peek_image_shape(streams, adjust_orientation=False)


def _decoded(planes: Planes, jpeg: bool, on_cpu: bool) -> Any:
    """Images HWC on the device: of JPEG streams, or of the images themselves."""
    if not jpeg:
        images: Any = fn.external_source(name="streams", dtype=DALIDataType.UINT8, ndim=3, layout="HWC")
        return images if on_cpu else images.gpu()
    streams = fn.external_source(name="streams", dtype=DALIDataType.UINT8, ndim=1)
    decoder = {"device": "cpu"} if on_cpu else {"device": "mixed", "jpeg_fancy_upsampling": True}
    colours = DALIImageType.RGB if planes.channels > 1 else DALIImageType.GRAY
    return fn.decoders.image(streams, output_type=colours, adjust_orientation=False, **decoder)
