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

CAPTION_HEIGHT = 26
GAP = 4
CLIP_SECONDS = 5
CLIP_WIDTH = 200  # pixels, as tiles have: frames of a clip are at least so wide


def contact_sheet(store: VideoStore, video_id: str, columns: int = 8, width: int = 200) -> np.ndarray:
    """RGB picture (H, W, 3): `columns` frames evenly over the video, below each what the other views have at that
    place.

    Every tile is `width` pixels wide. Flow's colours are those of the key at the right end of the caption: hue is
    direction, strength is length, full strength at the 99th percentile of the frames shown.
    """
    info, views = store.info(video_id), _shown(store.info(video_id))
    last = min(info.shapes[view.name][0] for view in views) - 1
    frames = np.unique(np.linspace(0, last, columns).round().astype(int))
    caption = f"{video_id}   {info.length} frames  {info.width}x{info.height}  {info.fps:.4g} fps  {info.label or '-'}"
    rows, keys = [], []
    for view in views:
        values = measured(store, video_id, view, frames)
        scale = view.scale(values)
        rows.append(view.coloured(values, scale))
        told = [view.described(store.settings[view.name]), view.scale_in_words(scale)]
        caption += f"   {', '.join(filter(None, told))}"
        keys.append(view.key(CAPTION_HEIGHT))
    tiles = [np.hstack([_pad(_fit(tile, *_scaled(tile, width))) for tile in row]) for row in rows]
    sheet = np.vstack([_pad_right(row, tiles[0].shape[1]) for row in tiles])
    banner = _banner(caption, sheet.shape[1], next((key for key in keys if key is not None), None))
    return np.vstack([banner, sheet])


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
        shown = [
            view.coloured(measured(store, video_id, view, piece), scale)
            for view, scale in zip(views, scales, strict=True)
        ]
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


def _banner(text: str, width: int, key: np.ndarray | None) -> np.ndarray:
    banner = np.full((CAPTION_HEIGHT, width, 3), 255, np.uint8)
    plain = text.encode("ascii", "replace").decode()  # OpenCV's built-in font has no other letters
    cv2.putText(banner, plain, (4, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (30, 30, 30), 1, cv2.LINE_AA)
    if key is not None and width > 4 * CAPTION_HEIGHT:
        banner[:, -CAPTION_HEIGHT:] = key
    return banner
