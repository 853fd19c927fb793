"""Loaders as others write them, for the reader to be held against: of the papers (CoCLR's description, specs of its
storage and augmentation), and of those who decode video files while they train.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import cv2
import lmdb
import msgpack
import numpy as np
import psutil
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from pipeline.store import VideoStore
from tests.benchmarks.one_core import encoded, papers_flow
from train.augment import IMAGENET_MEAN, IMAGENET_STD, ClipPlan, pixel_window


def write_lmdb(path: Path, store: VideoStore, view: str) -> None:
    """A view of a store as the papers have it: a record a video, a msgpack list of JPEGs of quality 100; flow in
    colour."""
    with lmdb.open(str(path), subdir=False, map_size=2**34) as environment, environment.begin(write=True) as change:
        for video_id in store.videos:
            frames = store.read(video_id, view, slice(None))
            images = [frame[..., ::-1] if view == "rgb" else papers_flow(frame) for frame in frames]
            packed = msgpack.packb([encoded(image) for image in images], use_bin_type=False)
            change.put(video_id.encode(), packed)


class PapersClips(Dataset):
    """Clips of plans: the whole record is unpacked, PIL decodes, crops (bicubic) and mirrors a frame after the other.

    A clip is float32 (3, T, h, w), normalised, for each of the LMDBs, {view: path}.
    """

    def __init__(self, files: dict[str, Path], plans: list[ClipPlan], size: tuple[int, int]) -> None:
        self.files, self.plans, self.size = files, plans, size
        self._open: dict[str, lmdb.Environment] = {}

    def __len__(self) -> int:
        return len(self.plans)

    def __getitem__(self, index: int) -> list[torch.Tensor]:
        return [self._clip(view, self.plans[index]) for view in self.files]

    def _clip(self, view: str, plan: ClipPlan) -> torch.Tensor:
        if view not in self._open:  # in the worker, because an environment does not survive a fork
            self._open[view] = lmdb.open(str(self.files[view]), subdir=False, readonly=True, lock=False)
        with self._open[view].begin() as reading:
            record = msgpack.loads(reading.get(plan.video_id.encode()), raw=True)
        return torch.stack([self._frame(record[number], plan, view) for number in plan.frames], dim=1)

    def _frame(self, stream: bytes, plan: ClipPlan, view: str) -> torch.Tensor:
        image = Image.open(io.BytesIO(stream)).convert("RGB")
        pixels = plan.pixels
        top, left, height, width = pixel_window(pixels.window, image.height, image.width)
        image = image.crop((left, top, left + width, top + height)).resize(self.size[::-1], Image.Resampling.BICUBIC)
        if pixels.flip:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        values = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().to(torch.float32).div(255)
        mean, std = (torch.tensor(one, dtype=torch.float32)[:, None, None] for one in (IMAGENET_MEAN, IMAGENET_STD))
        return values.sub_(mean).div_(std)


class PapersLoader:
    """A pass over all clips, in batches of a few, by a torch DataLoader whose workers stay alive."""

    def __init__(self, clips: PapersClips, workers: int) -> None:
        self._loader = DataLoader(clips, batch_size=2, num_workers=workers, persistent_workers=True)
        self._before = set(psutil.Process().children())

    def __call__(self) -> None:
        for _ in self._loader:
            pass

    def cpu_seconds(self) -> float:
        """Spent by the workers so far."""
        workers = set(psutil.Process().children()) - self._before
        return sum(sum(one.cpu_times()[:2]) for one in workers)


def decode_with_pyav(path: Path, frames: np.ndarray) -> Iterator[np.ndarray]:
    """Frames of consecutive numbers, uint8 RGB: from the keyframe before the first one on."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_count = 1
        rate = float(stream.average_rate or 0) * float(stream.time_base or 0)  # frames a tick
        start = stream.start_time or 0
        container.seek(start + int(frames[0] / rate), stream=stream)
        for frame in container.decode(stream):
            number = round(((frame.pts or 0) - start) * rate)
            if number > frames[-1]:
                return
            if number >= frames[0]:
                yield frame.to_ndarray(format="rgb24")


def decode_with_torchcodec(path: Path, frames: np.ndarray) -> Iterator[np.ndarray]:
    """The same by torchcodec. Raises ImportError where it is not installed."""
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(str(path), dimension_order="NHWC", num_ffmpeg_threads=1)
    yield from decoder.get_frames_in_range(int(frames[0]), int(frames[-1]) + 1).data.numpy()


def clips_of_files(
    decode: Callable[[Path, np.ndarray], Iterator[np.ndarray]],
    files: dict[str, Path],
    plans: list[ClipPlan],
    size: tuple[int, int],
) -> np.ndarray:
    """uint8 (B, T, h, w, 3): frames of the video files, cut and resized by OpenCV."""
    clips = np.empty((len(plans), len(plans[0].frames), *size, 3), np.uint8)
    for plan, clip in zip(plans, clips, strict=True):
        pixels = plan.pixels
        for frame, target in zip(decode(files[plan.video_id], plan.frames), clip, strict=True):
            top, left, height, width = pixel_window(pixels.window, *frame.shape[:2])
            cut = frame[top : top + height, left : left + width]
            cv2.resize(cut, size[::-1], dst=target, interpolation=cv2.INTER_LINEAR)
            if pixels.flip:
                cv2.flip(target, 1, dst=target)
    return clips


def papers_loaders(
    folder: Path, store: VideoStore, plans: list[ClipPlan], size: tuple[int, int], workers: int
) -> dict[str, PapersLoader]:
    """The papers' loader of RGB alone, and of RGB and flow."""
    files = {view: folder / f"{view}.lmdb" for view in ("rgb", "flow")}
    for view, path in files.items():
        if not path.exists():
            write_lmdb(path, store, view)
    kinds = {"rgb": {"rgb": files["rgb"]}, "rgb + flow": files}
    return {kind: PapersLoader(PapersClips(chosen, plans, size), workers) for kind, chosen in kinds.items()}
