"""The executor for GPUs: NVIDIA DALI decodes with nvJPEG and cuts, resizes and mirrors on the device.

Without CUDA the same pipelines run on the CPU, bit-identical decoding included; there it is several times slower than
OpenCV (its resize alone takes ten times as long), and serves as the check of this path on any machine.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

from pipeline.errors import Refusal, UsageError
from pipeline.pictures import jpeg_size
from pipeline.store import VideoStore, corrupt
from pipeline.views.codec import JpegCodec
from train.augment import ClipPlan, blur_taps, clip_length, fullest, pixel_window
from train.augment.plans import Filter
from train.augment.windows import PixelWindow
from train.clips.spec import LARGEST_SIDE
from train.reader import Executor, Group
from train.reader.bytewise import applied
from train.reader.planes import Planes, planes_of, refuse_uneven
from train.reader.shard import ShardReader
from train.reader.streams import CopyStream
from train.settings import check_number

try:
    from nvidia.dali import Pipeline, fn
    from nvidia.dali.types import DALIDataType, DALIImageType, DALIInterpType
except ModuleNotFoundError as missing:
    problem = f"the reader dali needs NVIDIA DALI, which is not installed here: {missing}"
    remedy = "pip install nvidia-dali-cuda130, or read with opencv (--hardware.reader opencv; --reader opencv)"
    raise UsageError(problem, remedy=remedy) from missing

Kind = tuple[str, tuple[int, int], bool, Filter | None]  # view, size of the clips, whether it blurs, filter
INTERPOLATION: dict[Filter | None, DALIInterpType] = {
    None: DALIInterpType.INTERP_LINEAR,
    "bilinear": DALIInterpType.INTERP_LINEAR,
    "bicubic": DALIInterpType.INTERP_CUBIC,
    "nearest": DALIInterpType.INTERP_NN,
}
Place = tuple[str, int]  # of a frame: its video and number


class DaliExecutor(Executor):
    """See `train.reader.Executor`. On a GPU the clips come back there: the CUDA device current when this was made.

    One DALI pipeline per view decodes frames, another per view and size makes clips of them, an item a frame. They are
    made when they are first needed and again for a batch larger than any before. Nothing is prefetched and no process
    is started; the loader reads ahead.

    Whole frames are decoded, because clips with windows of their own share them; slices of stores that are much larger
    than their clips might cost less, which was not measured, as nothing of this was on a GPU.

    Args:
        decoder_load: Share of the frames that a GPU's own JPEG engine decodes, where it has one. DALI's default.
        preallocate: Height and width of the largest stored frame (of flow both planes together), for which that engine
            takes its memory at once; 0: when it first meets one. DALI's default.

    Memory, on the device: the clips, B * C * T * h * w bytes (four times that for flow whose bytes are not even steps),
    and in the pipelines the decoded frames, once and once more for each clip that shows them, and the clips again. On
    the host: the streams of the batch.
    """

    def __init__(
        self, store: VideoStore, threads: int, decoder_load: float = 0.65, preallocate: Sequence[int] = (0, 0)
    ) -> None:
        check_number("decoder_load", decoder_load, least=0, most=1)
        if not isinstance(preallocate, Sequence) or len(preallocate) != 2:
            raise UsageError(f"{preallocate!r} is no height and width", where="preallocate", remedy="[256, 341]")
        for side in preallocate:
            check_number("preallocate", side, whole=True, least=0, most=LARGEST_SIDE)
        self.decoding = {
            "hw_decoder_load": float(decoder_load),
            "preallocate_height_hint": preallocate[0],
            "preallocate_width_hint": preallocate[1],
        }
        self.store, self.threads = store, threads
        self.device_id = torch.cuda.current_device() if torch.cuda.is_available() else None
        self._stream = CopyStream(self.device_id)
        self._shards = ShardReader(store)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="reader")
        self._pipelines: dict[str | Kind, Pipeline] = {}
        self._lock = threading.Lock()  # a DALI pipeline serves one thread at a time

    def read(self, view: str, groups: Sequence[Group]) -> list[torch.Tensor]:
        planes, wanted = [], dict[str, set[int]]()
        for plans, _ in groups:
            planes.append(planes_of(self.store, view, plans))
            clip_length(plans)
            if self.store.linear_values(view) is not None:
                refuse_uneven(view, plans)
            for plan in plans:
                wanted.setdefault(plan.video_id, set()).update(plan.frames.tolist())

        def encoded(video_id: str) -> dict[Place, np.ndarray]:
            found = self._shards.encoded(video_id, view, sorted(wanted[video_id]))
            return {(video_id, number): stream for number, stream in found.items()}

        streams = {place: stream for found in self._pool.map(encoded, wanted) for place, stream in found.items()}
        with self._lock, self._stream.entered():
            try:
                images = self._images(view, planes[0], streams)
                return [
                    self._clips(view, of_group, plans, size, images)
                    for of_group, (plans, size) in zip(planes, groups, strict=True)
                ]
            except RuntimeError as error:
                self._pipelines.clear()  # DALI says that one is no longer valid
                raise self._refusal(view, streams, error) from error

    def close(self) -> None:
        self._pool.shutdown()
        self._shards.close()
        self._pipelines.clear()

    def _images(self, view: str, planes: Planes, streams: Mapping[Place, np.ndarray]) -> dict[Place, Any]:
        """Frames (P * H, W, C) as NumPy or DALI has them. Raises RuntimeError for one that does not decode."""
        if not isinstance(self.store.codec(view), JpegCodec):
            return self._decompressed(view, streams)
        sizes = [self.store.shape(video_id, view) for video_id, _ in streams]
        heights, widths = zip(*(shape[1:3] if planes.channels > 1 else shape[2:] for shape in sizes), strict=True)
        images = [(planes.count * height, width) for height, width in zip(heights, widths, strict=True)]
        if [jpeg_size(stream) for stream in streams.values()] != images:  # decoding takes memory for what is announced
            raise RuntimeError("a frame announces another size than the store records")
        pipeline = self._pipeline(view, len(streams), lambda made: _define_decoding(made, planes, self.decoding))
        (decoded,) = pipeline.run(streams=list(streams.values()))
        return {place: decoded[number] for number, place in enumerate(streams)}

    def _decompressed(self, view: str, streams: Mapping[Place, np.ndarray]) -> dict[Place, Any]:
        """As images, as JPEG holds frames: DALI does not know zstd."""
        decode = self.store.codec(view).decode_frame

        def image(place: Place) -> np.ndarray:
            shape = self.store.shape(place[0], view)[1:]
            try:
                return decode(streams[place], shape).reshape(-1, shape[-1], 1)
            except ValueError as error:
                raise self._corrupt(place[0], view, error) from error

        return dict(zip(streams, self._pool.map(image, streams), strict=True))

    def _clips(
        self, view: str, planes: Planes, plans: Sequence[ClipPlan], size: tuple[int, int], images: Mapping[Place, Any]
    ) -> torch.Tensor:
        """What `read` gives of a group."""
        filters = {plan.pixels.published.filter if plan.pixels.published else None for plan in plans}
        if len(filters) > 1:
            raise ValueError(f"the clips of a batch are resized by one filter, not {len(filters)}")
        kernel = filters.pop()
        inputs = _inputs(plans, images, planes)
        kind = (view, size, "taps" in inputs, kernel)
        table = self.store.linear_values(view)
        items = len(plans) * clip_length(plans)
        pipeline = self._pipeline(
            kind, items, lambda made: _define_cutting(made, planes, "taps" in inputs, size, kernel, table)
        )
        (frames,) = pipeline.run(**inputs)
        made: torch.Tensor = torch.from_dlpack(frames.as_tensor())  # rgb (N, h, w, 3), others (N, P, h, w, 1)
        made = self._stream.copied(made)
        clips = made.view(len(plans), -1, *made.shape[1:])
        shown = clips.permute(0, 4, 1, 2, 3) if planes.channels > 1 else clips[..., 0].permute(0, 2, 1, 3, 4)
        found = applied(shown, plans)
        self._stream.wait()
        del frames  # not before: DALI gives its memory to the next batch without waiting for torch's streams
        return found

    def _pipeline(self, kind: str | Kind, items: int, define: Callable[[Pipeline], None]) -> Pipeline:
        """One that takes so many items; inputs are given to `run`. DALI's default execution lets outputs outlive the
        next run."""
        pipeline = self._pipelines.get(kind)
        if pipeline is None or pipeline.max_batch_size < items:
            pipeline = Pipeline(items, self.threads, self.device_id, prefetch_queue_depth=1, seed=0)
            with pipeline:
                define(pipeline)
            self._pipelines[kind] = pipeline
        return pipeline

    def _refusal(self, view: str, streams: Mapping[Place, np.ndarray], error: Exception) -> Refusal:
        """DALI names an item at most, and not always: find the video whose frames do not decode."""
        codec = self.store.codec(view)
        for (video_id, _), stream in streams.items():
            try:
                codec.decode_frame(stream, self.store.shape(video_id, view)[1:])
            except ValueError as reason:
                return self._corrupt(video_id, view, reason)
        videos = sorted({video_id for video_id, _ in streams})
        return Refusal(
            f"DALI failed on a batch of view {view!r} although each frame decodes: {error}",
            where=f"{self.store.root}: {', '.join(videos[:8])}{', ...' if len(videos) > 8 else ''}",
            remedy="read with the executor opencv, or use a smaller batch if device memory ran out",
        )

    def _corrupt(self, video_id: str, view: str, reason: Exception) -> Refusal:
        return corrupt(self.store.root, video_id, self.store.path(video_id, view), reason)


def _inputs(plans: Sequence[ClipPlan], images: Mapping[Place, Any], planes: Planes) -> dict[str, Any]:
    """A batch for the pipeline, an item a frame of a clip: images, integer windows, flips and blurs."""
    drawn, length = [plan.pixels for plan in plans], clip_length(plans)
    windows = [_window(plan, size, images, planes) for plan, size in zip(plans, planes.sizes, strict=True)]
    inputs: dict[str, Any] = {
        "images": [images[plan.video_id, number] for plan in plans for number in plan.frames.tolist()],
        "windows": np.repeat(np.array(windows, np.int32), length, axis=0),
        "flips": np.repeat(np.array([pixels.flip for pixels in drawn], np.int32), length),
    }
    if any(pixels.blur for pixels in drawn):
        # One tap leaves a frame as it is; a deviation of 0 means to DALI "to be derived from the taps".
        inputs["taps"] = np.repeat(np.array([blur_taps(pixels.blur) for pixels in drawn], np.int32), length)
        inputs["sigmas"] = np.repeat(np.array([pixels.blur or 1.0 for pixels in drawn], np.float32), length)
    return inputs


def _window(plan: ClipPlan, size: tuple[int, int], images: Mapping[Place, Any], planes: Planes) -> PixelWindow:
    """Where a clip is cut; of several windows the fullest, see `train.augment.Choice`."""
    windows, choice = [pixel_window(window, *size) for window in plan.pixels.windows], plan.pixels.choice
    if choice is None:
        return windows[0]
    sums = torch.zeros(len(windows), dtype=torch.int64)
    for number in plan.frames.tolist():
        frame = torch.from_dlpack(images[plan.video_id, number]).view(planes.count, *size, planes.channels)
        distance = (frame.to(torch.int16) - choice.empty).abs_()
        cut = [distance[:, top : top + height, left : left + width] for top, left, height, width in windows]
        sums = sums.to(frame.device) + torch.stack([part.sum() for part in cut])
    return fullest(windows, sums.tolist())


def _define_decoding(pipeline: Pipeline, planes: Planes, decoding: Mapping[str, Any]) -> None:
    """JPEG streams -> images (P * H, W, C) on the device. decoding: of a GPU's decoder."""
    streams = fn.external_source(name="streams", dtype=DALIDataType.UINT8, ndim=1)
    on_gpu = {"device": "mixed", "jpeg_fancy_upsampling": True, **decoding}
    decoder: dict[str, Any] = {"device": "cpu"} if pipeline.device_id is None else on_gpu
    colours = DALIImageType.RGB if planes.channels > 1 else DALIImageType.GRAY
    pipeline.set_outputs(fn.decoders.image(streams, output_type=colours, adjust_orientation=False, **decoder))


def _define_cutting(
    pipeline: Pipeline,
    planes: Planes,
    blurs: bool,
    size: tuple[int, int],
    kernel: Filter | None,
    table: np.ndarray | None,
) -> None:
    """Images -> frames of clips, with the dtype of `Executor.read`: rgb (h, w, 3), others (P, h, w, 1)."""
    windows = fn.external_source(name="windows", dtype=DALIDataType.INT32, ndim=1)
    flips = fn.external_source(name="flips", dtype=DALIDataType.INT32, ndim=0)
    device = "cpu" if pipeline.device_id is None else "gpu"
    frames: Any = fn.external_source(name="images", dtype=DALIDataType.UINT8, ndim=3, layout="HWC", device=device)
    if planes.channels == 1:  # planes one above the other: a sequence of images
        frames = fn.expand_dims(frames, axes=[0])
        frames = fn.reshape(frames, rel_shape=[planes.count, 1 / planes.count, 1, 1], layout="FHWC")
    # Not resize's own region of interest, which reads pixels outside it: up to 5 gray levels off.
    frames = fn.slice(frames, start=windows[:2], shape=windows[2:], axis_names="HW")
    if table is not None:
        frames = fn.lookup_table(frames, keys=list(range(256)), values=table.tolist(), dtype=DALIDataType.FLOAT)
    frames = fn.resize(frames, size=size, interp_type=INTERPOLATION[kernel], antialias=kernel is not None)
    frames = fn.flip(frames, horizontal=flips)
    if blurs:
        taps = fn.external_source(name="taps", dtype=DALIDataType.INT32, ndim=0)
        sigmas = fn.external_source(name="sigmas", dtype=DALIDataType.FLOAT, ndim=0)
        frames = fn.gaussian_blur(frames, window_size=taps, sigma=sigmas)
    pipeline.set_outputs(frames)
