"""One stored video for other tools: as MP4, as NumPy array, as a folder of images."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from pipeline import storage
from pipeline.errors import Refusal, UsageError, refuse_unknown
from pipeline.show.flow_files import unwritable
from pipeline.show.npy import GrowingArray
from pipeline.store import VideoStore
from pipeline.video import mp4
from pipeline.views import VIEWS, View
from pipeline.views.colour import measured_pairs

BLOCK_FRAMES, BLOCK_PIXELS = 64, 2**21  # at once; flow takes 68 bytes a pixel on its way to colours, so 140 MB
MEASURED_PIXELS = 2**16  # of a frame, evenly over it, in which the scale of the colours is measured

Advance = Callable[[int], None]


def export(store: VideoStore, video_id: str, out: Path, view: str = "", advance: Advance = lambda frames: None) -> str:
    """Write one view of a video (by default its first), all of it or nothing; returns in words what was written.

    The ending of `out` decides. `.mp4`: H.264 at the stored frame rate, as `View.coloured` shows it. `.npy`: what
    `View.measured` gives: rgb uint8 (F, H, W, 3), flow float32 (F-1, 2, H, W) in pixels. None, a folder: what
    `View.files` gives: rgb's stored JPEGs as img_00001.jpg and so on; flow in denseflow's layout, flow_x_00001.jpg and
    flow_y_00001.jpg, gray JPEGs in the papers' mapping, encoded again.

    `advance(n)` is called whenever n more frames are done. Raises UsageError for another ending or an unknown view, and
    Refusal for a video that is not there or has nothing to write, for an `out` that is there, and where it cannot be
    written.
    """
    if out.suffix.lower() not in _WRITERS or out.name.lower() in _WRITERS:
        raise UsageError(
            f"a video cannot be exported as {out.suffix or out.name!r}",
            where=str(out),
            remedy="give a name that ends in .mp4 or .npy, or one without ending for a folder of images",
        )
    if view and view not in VIEWS:
        refuse_unknown("view", view, VIEWS)
    chosen = VIEWS[view or store.info(video_id).views[0]]
    frames = len(store.indices(video_id, chosen.name, slice(None)))
    if not frames:
        others = [name for name, shape in store.info(video_id).shapes.items() if shape[0]]
        raise Refusal(
            f"video {video_id!r} has a single frame, so no {chosen.name}",
            where=str(store.root),
            remedy=f"export its view {' or '.join(others)}" if others else "export another video",
        )
    if os.path.lexists(out):
        raise Refusal("it is there already", where=str(out), remedy="remove it, or give another --out")
    try:
        told = _WRITERS[out.suffix.lower()](
            store, video_id, chosen, out, _counted(spans(store, video_id, frames), advance)
        )
    except OSError as error:
        raise unwritable(out, error) from error
    height, width = frame_size(store, video_id, chosen.name)
    return f"{frames} {chosen.name} frames of {width}x{height}, {told}"


def frame_size(store: VideoStore, video_id: str, view: str) -> tuple[int, int]:
    """Height and width of the view's frames."""
    return VIEWS[view].frame_size(store.shape(video_id, view))


def spans(store: VideoStore, video_id: str, frames: int) -> Iterator[slice]:
    """The first `frames` frames of a video in pieces that fit into memory, however large they are."""
    pixels = max(math.prod(frame_size(store, video_id, view)) for view in store.info(video_id).views)
    size = max(1, min(BLOCK_FRAMES, BLOCK_PIXELS // pixels))
    for start in range(0, frames, size):
        yield slice(start, min(start + size, frames))


def picture_scale(store: VideoStore, video_id: str, view: View, frames: int) -> float:
    """The scale on which the pictures of the view's first `frames` frames are shown; 0 where they have none."""
    if not view.scaled:
        return 0.0
    step = math.ceil(math.sqrt(math.prod(frame_size(store, video_id, view.name)) / MEASURED_PIXELS))
    numbers = measured_pairs(frames)
    seen = [measured(store, video_id, view, numbers[i : i + 1])[0, :, ::step, ::step] for i in range(len(numbers))]
    return view.scale(np.stack(seen))


def _counted(pieces: Iterable[slice], advance: Advance) -> Iterator[slice]:
    """Told when the next piece is asked for, or the end: then the one before is done."""
    for piece in pieces:
        yield piece
        advance(piece.stop - piece.start)


def _write_mp4(store: VideoStore, video_id: str, view: View, out: Path, pieces: Iterator[slice]) -> str:
    info = store.info(video_id)
    rate = f"at {float(mp4.rate(info.fps)):.4g} fps" + ("" if info.fps else " (the video's own rate is not known)")
    if any(side % 2 for side in frame_size(store, video_id, view.name)):
        rate += ", edges repeated to make the size even"
    scale = picture_scale(store, video_id, view, info.shapes[view.name][0])
    blocks = (view.coloured(measured(store, video_id, view, piece), scale) for piece in pieces)
    mp4.write(out, blocks, info.fps)
    return ", ".join(filter(None, [view.scale_in_words(scale), f"H.264 {rate}"]))


def measured(store: VideoStore, video_id: str, view: View, frames: slice | np.ndarray) -> np.ndarray:
    """`View.measured` of stored frames."""
    return view.measured(store.read(video_id, view.name, frames), store.settings[view.name])


def _write_npy(store: VideoStore, video_id: str, view: View, out: Path, pieces: Iterator[slice]) -> str:
    with storage.writing_aside(out) as aside:
        array = GrowingArray(aside)
        for piece in pieces:
            array.add(measured(store, video_id, view, piece))
        array.finish()
    return f"{array.dtype} {array.shape}" + (f" in {view.unit}" if view.unit else "")


def _write_folder(store: VideoStore, video_id: str, view: View, out: Path, pieces: Iterator[slice]) -> str:
    shape, settings, codec = store.shape(video_id, view.name)[1:], store.settings[view.name], store.codec(view.name)
    with storage.writing_aside(out) as aside:
        aside.mkdir()
        for piece in pieces:
            for number, encoded in enumerate(store.encoded(video_id, view.name, piece), start=piece.start + 1):
                files = view.files(encoded, functools.partial(codec.decode_frame, encoded, shape), settings)
                for name, image in files.items():
                    (aside / f"{name}_{number:05d}.jpg").write_bytes(image.data)
    return view.files_in_words()


_WRITERS = {".mp4": _write_mp4, ".npy": _write_npy, "": _write_folder}
