"""A stored video, its views together: one below the other in a contact sheet (PNG), side by side in a clip (MP4)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from pipeline import storage
from pipeline.show.export import measured, picture_scale, spans
from pipeline.show.flow_files import unwritable
from pipeline.store import VideoInfo, VideoStore, layout
from pipeline.video import mp4
from pipeline.views import VIEWS, View
from pipeline.views.rgb import RGB

LINE = 20  # pixels, of text
KEY = 56  # pixels of what explains colours, beside the caption
LETTER = 0.45  # size of letters, of OpenCV's font
HIGHEST = 150  # pixels: what stands upright is shown narrower than the others
GAP = 4
CLIP_SECONDS = 5
CLIP_WIDTH = 200  # pixels, as tiles have: frames of a clip are at least so wide


def contact_sheet(store: VideoStore, video_id: str, columns: int = 8, width: int = 200) -> np.ndarray:
    """RGB picture (H, W, 3): `columns` frames evenly over the video, below each what the other views have at that
    place, then its number and time.

    Every tile is `width` pixels wide, or as wide as one of HIGHEST pixels is. Flow's colours are those of the key right
    of the caption: hue is direction, strength is length, full strength at the 99th percentile of the frames shown.
    """
    info, views = store.info(video_id), _shown(store.info(video_id))
    last = min(info.shapes[view.name][0] for view in views) - 1
    frames = np.unique(np.linspace(0, last, columns).round().astype(int))
    told = [video_id, f"{info.length} frames  {info.width}x{info.height}  {info.fps:.4g} fps  {info.label or '-'}"]
    rows: list[np.ndarray] = []
    keys = []
    for view in views:
        values = measured(store, video_id, view, frames)
        scale = view.scale(values)
        rows.append(_drawn(view, view.coloured(values, scale), rows, views))
        told.append(", ".join(filter(None, [view.described(store.settings[view.name]), view.scale_in_words(scale)])))
        keys.append(view.key(KEY))
    width = min([width, *(max(1, round(HIGHEST * row.shape[2] / row.shape[1])) for row in rows)])
    tiles = [np.hstack([_pad(_fit(tile, *_scaled(tile, width))) for tile in row]) for row in rows]
    places = [
        _text([f"{frame}  {frame / info.fps:.2f} s" if info.fps else str(frame)], width + GAP) for frame in frames
    ]
    below = np.hstack(places)
    banner = _banner(told, below.shape[1], next((key for key in keys if key is not None), None))
    widest = max(banner.shape[1], below.shape[1])
    return np.vstack([_pad_right(part, widest) for part in (banner, *tiles, below)])


def write_contact_sheets(store: VideoStore, video_ids: list[str], out: Path) -> list[Path]:
    """One PNG per video below `out`, named like the video. Returns the files."""
    written = []
    for video_id in video_ids:
        path = out / f"{layout.quoted(video_id)}.png"
        _, png = cv2.imencode(".png", cv2.cvtColor(contact_sheet(store, video_id), cv2.COLOR_RGB2BGR))
        try:
            storage.write_atomically(path, png.tobytes())
        except OSError as error:
            raise unwritable(path, error) from error
        written.append(path)
    return written


def clip(store: VideoStore, video_id: str) -> Iterator[np.ndarray]:
    """The first seconds of a video, RGB (n, H, W, 3) a block: each frame, to its right what the other views have there.

    All have the first view's size; a view's scale is that which `picture_scale` finds in what is shown.
    """
    info, views = store.info(video_id), _shown(store.info(video_id))
    there = min(info.shapes[view.name][0] for view in views)
    frames = min(there, max(1, int(CLIP_SECONDS * mp4.rate(info.fps))))
    scales = [picture_scale(store, video_id, view, frames) for view in views]
    for piece in spans(store, video_id, frames):
        shown: list[np.ndarray] = []
        for view, scale in zip(views, scales, strict=True):
            shown.append(_drawn(view, view.coloured(measured(store, video_id, view, piece), scale), shown, views))
        height, width = _scaled(shown[0][0], max(info.width, CLIP_WIDTH))
        yield np.stack([np.hstack([_fit(tile, height, width) for tile in tiles]) for tiles in zip(*shown, strict=True)])


def write_clips(store: VideoStore, video_ids: list[str], out: Path) -> list[Path]:
    """One MP4 per video below `out`, named like the video, at the stored frame rate. Returns the files."""
    written = []
    for video_id in video_ids:
        path = out / f"{layout.quoted(video_id)}.mp4"
        try:
            mp4.write(path, clip(store, video_id), store.info(video_id).fps)
        except OSError as error:
            raise unwritable(path, error) from error
        written.append(path)
    return written


def _shown(info: VideoInfo) -> list[View]:
    """Its views that have a frame: of a single frame there is no flow."""
    return [VIEWS[name] for name, shape in info.shapes.items() if shape[0]]


def _drawn(view: View, picture: np.ndarray, before: list[np.ndarray], views: list[View]) -> np.ndarray:
    """A view's picture as people see it: over the frames, which come first, where it means little by itself."""
    return view.drawn_over(picture, before[0]) if before and views[0] is RGB else picture


def _scaled(tile: np.ndarray, width: int) -> tuple[int, int]:
    """Height and width of the tile at that width."""
    return max(1, round(tile.shape[0] * width / tile.shape[1])), width


def _fit(tile: np.ndarray, height: int, width: int) -> np.ndarray:
    shrinks = width < tile.shape[1]
    return cv2.resize(tile, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)


def _pad(tile: np.ndarray) -> np.ndarray:
    return cv2.copyMakeBorder(tile, 0, GAP, 0, GAP, cv2.BORDER_CONSTANT, value=(255, 255, 255))


def _pad_right(row: np.ndarray, width: int) -> np.ndarray:
    return cv2.copyMakeBorder(row, 0, 0, 0, width - row.shape[1], cv2.BORDER_CONSTANT, value=(255, 255, 255))


def _banner(told: list[str], width: int, key: np.ndarray | None) -> np.ndarray:
    """What is told, in as many lines as it needs, and right of it the key: neither covers the other."""
    beside = 0 if key is None else KEY + 2 * GAP
    lines = [""]
    for part in told:
        longer = f"{lines[-1]}   {part}".strip()
        if lines[-1] and _wide(longer) > width - beside:
            lines.append(part)
        else:
            lines[-1] = longer
    text = _text(lines, max([width - beside, *map(_wide, lines)]))
    if key is None:
        return text
    high = max(text.shape[0], KEY + GAP)
    framed = cv2.copyMakeBorder(key, 0, high - KEY, GAP, GAP, cv2.BORDER_CONSTANT, value=(255, 255, 255))
    return np.hstack([_pad_below(text, high), framed])


def _text(lines: list[str], width: int) -> np.ndarray:
    picture = np.full((LINE * len(lines) + GAP, width, 3), 255, np.uint8)
    for number, line in enumerate(lines):
        at, font = (GAP, LINE * number + 15), cv2.FONT_HERSHEY_SIMPLEX
        cv2.putText(picture, _plain(line), at, font, LETTER, (30, 30, 30), 1, cv2.LINE_AA)
    return picture


def _wide(line: str) -> int:
    return cv2.getTextSize(_plain(line), cv2.FONT_HERSHEY_SIMPLEX, LETTER, 1)[0][0] + 2 * GAP


def _plain(line: str) -> str:
    return line.encode("ascii", "replace").decode()  # OpenCV's built-in font has no other letters


def _pad_below(picture: np.ndarray, height: int) -> np.ndarray:
    below = height - picture.shape[0]
    return cv2.copyMakeBorder(picture, 0, below, 0, 0, cv2.BORDER_CONSTANT, value=(255, 255, 255))
