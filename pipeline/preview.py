"""Contact sheets: frames of a stored video above their colour-coded flow, as PNG."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from pipeline import layout
from pipeline.flow.colour import colour_code, key
from pipeline.store import VideoStore

CAPTION_HEIGHT = 26
GAP = 4


def contact_sheet(store: VideoStore, video_id: str, columns: int = 8, width: int = 200) -> np.ndarray:
    """RGB picture (H, W, 3): `columns` frames evenly over the video, below each the flow that starts there.

    Every tile is `width` pixels wide. The flow's colours are those of the key at the right end of the caption: hue is
    direction, strength is length, full strength at the 99th percentile of the frames shown.
    """
    info = store.info(video_id)
    frames = np.unique(np.linspace(0, max(info.length - 2, 0), columns).round().astype(int))
    rows = [store.read(video_id, "rgb", frames)]
    caption = f"{video_id}   {info.length} frames  {info.width}x{info.height}  {info.fps:.4g} fps  {info.label or '-'}"
    if "flow" in info.views and info.length > 1:
        flow = store.flow(video_id, frames)
        longest = float(max(np.percentile(np.hypot(flow[:, 0], flow[:, 1]), 99), 0.5))
        rows.append(colour_code(flow, longest))
        caption += f"   flow: {store.settings['flow']['estimator']}, full colour = {longest:.1f} px"
    tiles = [np.hstack([_pad(_fit(tile, width)) for tile in row]) for row in rows]
    sheet = np.vstack([_pad_right(row, tiles[0].shape[1]) for row in tiles])
    banner = _banner(caption, sheet.shape[1], with_key=len(rows) > 1)
    return np.vstack([banner, sheet])


def write_contact_sheets(store: VideoStore, video_ids: list[str], out: Path) -> list[Path]:
    """One PNG per video below `out`, named like the video. Returns the files."""
    written = []
    for video_id in video_ids:
        path = out / f"{layout.quoted(video_id)}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        _, png = cv2.imencode(".png", cv2.cvtColor(contact_sheet(store, video_id), cv2.COLOR_RGB2BGR))
        layout.write_atomically(path, png.tobytes())
        written.append(path)
    return written


def _fit(tile: np.ndarray, width: int) -> np.ndarray:
    height = max(1, round(tile.shape[0] * width / tile.shape[1]))
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
