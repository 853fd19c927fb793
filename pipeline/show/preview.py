"""Frames of a stored video with their colour-coded flow: below them in a contact sheet (PNG), beside them in a clip (MP4)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from pipeline import storage
from pipeline.show.export import colour_scale, spans
from pipeline.show.flow_files import unwritable
from pipeline.store import VideoInfo, VideoStore, layout
from pipeline.video import mp4
from pipeline.views.colour import colour_code, full_colour, key

CAPTION_HEIGHT = 26
GAP = 4
CLIP_SECONDS = 5
CLIP_WIDTH = 200  # pixels, as tiles have: frames and flow of a clip are at least so wide


def contact_sheet(store: VideoStore, video_id: str, columns: int = 8, width: int = 200) -> np.ndarray:
    """RGB picture (H, W, 3): `columns` frames evenly over the video, below each the flow that starts there.

    Every tile is `width` pixels wide. The flow's colours are those of the key at the right end of the caption: hue is
    direction, strength is length, full strength at the 99th percentile of the frames shown.
    """
    info = store.info(video_id)
    frames = np.unique(np.linspace(0, max(info.length - 2, 0), columns).round().astype(int))
    rows = [store.read(video_id, "rgb", frames)]
    caption = f"{video_id}   {info.length} frames  {info.width}x{info.height}  {info.fps:.4g} fps  {info.label or '-'}"
    if _shows_flow(info):
        flow = store.flow(video_id, frames)
        longest = full_colour(flow)
        rows.append(colour_code(flow, longest))
        caption += f"   flow: {store.settings['flow']['estimator']}, full colour = {longest:.1f} px"
    tiles = [np.hstack([_pad(_fit(tile, *_scaled(tile, width))) for tile in row]) for row in rows]
    sheet = np.vstack([_pad_right(row, tiles[0].shape[1]) for row in tiles])
    banner = _banner(caption, sheet.shape[1], with_key=len(rows) > 1)
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
    """The first seconds of a video, RGB (n, H, W, 3) a block: each frame, to its right the flow that starts there.

    Flow has the frame's size; full colour is that length that `colour_scale` finds in what is shown. Frames alone where
    there is no flow.
    """
    info = store.info(video_id)
    shows_flow = _shows_flow(info)
    frames = min(info.length - shows_flow, max(1, int(CLIP_SECONDS * mp4.rate(info.fps))))
    longest = colour_scale(store, video_id, frames) if shows_flow else 0.0
    for piece in spans(store, video_id, frames):
        shown = [store.read(video_id, "rgb", piece)]
        if shows_flow:
            shown.append(colour_code(store.flow(video_id, piece), longest))
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


def _shows_flow(info: VideoInfo) -> bool:
    return "flow" in info.views and info.length > 1


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


def _banner(text: str, width: int, with_key: bool) -> np.ndarray:
    banner = np.full((CAPTION_HEIGHT, width, 3), 255, np.uint8)
    plain = text.encode("ascii", "replace").decode()  # OpenCV's built-in font has no other letters
    cv2.putText(banner, plain, (4, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (30, 30, 30), 1, cv2.LINE_AA)
    if with_key and width > 4 * CAPTION_HEIGHT:
        banner[:, -CAPTION_HEIGHT:] = key(CAPTION_HEIGHT)
    return banner
