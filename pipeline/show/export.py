"""One stored video for other tools: as MP4, as NumPy array, as a folder of JPEGs."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from pipeline import storage
from pipeline.errors import Refusal, UsageError, refuse_unknown
from pipeline.flow.quantisation import quantise
from pipeline.show.flow_files import unwritable
from pipeline.show.npy import GrowingArray
from pipeline.store import VideoStore
from pipeline.video import mp4
from pipeline.views import codec
from pipeline.views.colour import colour_code, full_colour, measured_pairs

VIEWS = ("rgb", "flow")
BLOCK_FRAMES, BLOCK_PIXELS = 64, 2**21  # at once; flow takes 68 bytes a pixel on its way to colours, so 140 MB
MEASURED_PIXELS = 2**16  # of a pair, evenly over it, in which the scale of the colours is measured
PAPERS_BOUND = 20.0  # pixels
PAPERS_QUALITY = 95  # denseflow leaves it to OpenCV, whose default this is

Advance = Callable[[int], None]


def export(
    store: VideoStore, video_id: str, out: Path, view: str = "rgb", advance: Advance = lambda frames: None
) -> str:
    """Write one view of a video, all of it or nothing; returns in words what was written.

    The ending of `out` decides. `.mp4`: H.264 at the stored frame rate, flow as colours. `.npy`: rgb uint8 (F, H, W, 3),
    flow float32 (F-1, 2, H, W) in pixels. None, a folder: the stored JPEGs as img_00001.jpg and so on; flow in denseflow's
    layout, flow_x_00001.jpg and flow_y_00001.jpg, gray JPEGs in the papers' mapping, encoded again.

    `advance(n)` is called whenever n more frames are done. Raises UsageError for another ending or an unknown view, and
    Refusal for a video that is not there or has nothing to write, for an `out` that is there, and where it cannot be written.
    """
    if out.suffix.lower() not in _WRITERS:
        raise UsageError(
            f"a video cannot be exported as {out.suffix!r}",
            where=str(out),
            remedy="give a name that ends in .mp4 or .npy, or one without ending for a folder of JPEGs",
        )
    if view not in VIEWS:
        refuse_unknown("view", view, VIEWS)
    frames = len(store.indices(video_id, view, slice(None)))
    if not frames:
        raise Refusal(
            f"video {video_id!r} has a single frame, so no flow", where=str(store.root), remedy="export its view rgb"
        )
    if os.path.lexists(out):
        raise Refusal("it is there already", where=str(out), remedy="remove it, or give another --out")
    try:
        told = _WRITERS[out.suffix.lower()](
            store, video_id, view, out, _counted(spans(store, video_id, frames), advance)
        )
    except OSError as error:
        raise unwritable(out, error) from error
    height, width = frame_size(store, video_id, view)
    return f"{frames} {view} frames of {width}x{height}, {told}"


def frame_size(store: VideoStore, video_id: str, view: str) -> tuple[int, int]:
    """Height and width of the view's frames."""
    shape = store.info(video_id).shapes[view]
    return (shape[1], shape[2]) if view == "rgb" else (shape[2], shape[3])


def spans(store: VideoStore, video_id: str, frames: int) -> Iterator[slice]:
    """The first `frames` frames of a video in pieces that fit into memory, however large they are."""
    pixels = max(math.prod(frame_size(store, video_id, view)) for view in store.info(video_id).views)
    size = max(1, min(BLOCK_FRAMES, BLOCK_PIXELS // pixels))
    for start in range(0, frames, size):
        yield slice(start, min(start + size, frames))


def colour_scale(store: VideoStore, video_id: str, pairs: int) -> float:
    """The length in pixels that gets full colour when the flow of the first `pairs` pairs is shown."""
    step = math.ceil(math.sqrt(math.prod(frame_size(store, video_id, "flow")) / MEASURED_PIXELS))
    shown = [store.flow(video_id, [pair])[0, :, ::step, ::step] for pair in measured_pairs(pairs).tolist()]
    return full_colour(np.stack(shown))


def _counted(pieces: Iterable[slice], advance: Advance) -> Iterator[slice]:
    """Told when the next piece is asked for, or the end: then the one before is done."""
    for piece in pieces:
        yield piece
        advance(piece.stop - piece.start)


def _write_mp4(store: VideoStore, video_id: str, view: str, out: Path, pieces: Iterator[slice]) -> str:
    info = store.info(video_id)
    rate = f"at {float(mp4.rate(info.fps)):.4g} fps" + ("" if info.fps else " (the video's own rate is not known)")
    if any(side % 2 for side in frame_size(store, video_id, view)):
        rate += ", edges repeated to make the size even"
    if view == "rgb":
        mp4.write(out, (store.read(video_id, "rgb", piece) for piece in pieces), info.fps)
        return f"H.264 {rate}"
    longest = colour_scale(store, video_id, info.shapes["flow"][0])
    mp4.write(out, (colour_code(store.flow(video_id, piece), longest) for piece in pieces), info.fps)
    return f"as colours, full at {longest:.1f} px, H.264 {rate}"


def _write_npy(store: VideoStore, video_id: str, view: str, out: Path, pieces: Iterator[slice]) -> str:
    with storage.writing_aside(out) as aside:
        array = GrowingArray(aside)
        for piece in pieces:
            array.add(store.read(video_id, "rgb", piece) if view == "rgb" else store.flow(video_id, piece))
        array.finish()
    return f"{array.dtype} {array.shape}" + (" in pixels" if view == "flow" else "")


def _write_folder(store: VideoStore, video_id: str, view: str, out: Path, pieces: Iterator[slice]) -> str:
    with storage.writing_aside(out) as aside:
        aside.mkdir()
        for piece in pieces:
            files = _rgb_files if view == "rgb" else _flow_files
            for name, stream in files(store, video_id, piece):
                (aside / name).write_bytes(stream.data)
    if view == "rgb":
        return "the stored JPEGs as img_00001.jpg and so on"
    return f"as flow_x_00001.jpg, flow_y_00001.jpg and so on, bound {PAPERS_BOUND:g} px, JPEG quality {PAPERS_QUALITY}"


def _rgb_files(store: VideoStore, video_id: str, piece: slice) -> Iterator[tuple[str, np.ndarray]]:
    for number, stream in enumerate(store.encoded(video_id, "rgb", piece), start=piece.start + 1):
        yield f"img_{number:05d}.jpg", stream


def _flow_files(store: VideoStore, video_id: str, piece: slice) -> Iterator[tuple[str, np.ndarray]]:
    values = quantise(store.flow(video_id, piece), PAPERS_BOUND)
    for number, planes in enumerate(values, start=piece.start + 1):
        for axis, plane in zip("xy", planes, strict=True):
            yield f"flow_{axis}_{number:05d}.jpg", codec.encode(plane[None], "stacked", PAPERS_QUALITY)


_WRITERS = {".mp4": _write_mp4, ".npy": _write_npy, "": _write_folder}
