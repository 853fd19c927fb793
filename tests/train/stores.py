"""Small stores of known frames, written with the pipeline's own writer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pipeline.store import VideoStore, open_store
from pipeline.store.settings import ExtractionSettings, settings_hash
from pipeline.store.writing import VideoWriter, create_store
from pipeline.views.codec import Chroma
from pipeline.views.flow import FlowSettings
from pipeline.views.rgb import RgbSettings
from tests.toy_view import ToySettings


def smooth_noise(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Images (..., H, W, C) with gradients everywhere, uint8: shifts, flips and wrong windows show in each pixel."""
    noise = rng.integers(0, 256, shape, dtype=np.uint8)
    smooth = np.stack([cv2.GaussianBlur(image, (0, 0), 3) for image in noise.reshape(-1, *shape[-3:])])
    low, high = smooth.min(), smooth.max()
    return ((smooth.astype(np.float32) - low) * (255 / (high - low))).astype(np.uint8).reshape(shape)


def write_store(
    root: Path,
    sizes: dict[str, tuple[int, int, int]],
    seed: int = 0,
    chroma: Chroma = "4:2:0",
    planes: int = 0,
    **flow_settings: Any,
) -> VideoStore:
    """A store of videos id -> (frames, height, width) with arbitrary rgb, and flow of two thirds of that size.

    planes: of the view toy, of half that size; 0 for none.
    """
    rng = np.random.default_rng(seed)
    frames: dict[str, tuple[np.ndarray, ...]] = {}
    for video_id, (length, height, width) in sizes.items():
        rgb = smooth_noise(rng, length, height, width, 3)
        flow = smooth_noise(rng, length - 1, height * 2 // 3, width * 2 // 3, 2).transpose(0, 3, 1, 2)
        frames[video_id] = (rgb, flow)
        if planes:
            toy = smooth_noise(rng, length, height // 2, width // 2, planes).transpose(0, 3, 1, 2)
            frames[video_id] = (rgb, flow, toy)
    return write_frames(root, frames, chroma, **flow_settings)


def write_frames(
    root: Path, videos: Mapping[str, tuple[np.ndarray, ...]], chroma: Chroma = "4:2:0", **flow_settings: Any
) -> VideoStore:
    """A store of videos id -> bytes of rgb (F, H, W, 3), flow (F - 1, 2, h, w) and, if there is a third, toy (F, P, h,
    w)."""
    planes = [frames[2].shape[1] for frames in videos.values() if len(frames) > 2]
    kinds: dict[str, Any] = {
        "rgb": RgbSettings(chroma=chroma),
        "flow": FlowSettings(estimator="dis", **flow_settings),
        **({"toy": ToySettings(planes=planes[0])} if planes else {}),
    }
    settings = ExtractionSettings(kinds).resolved()
    create_store(root, settings)
    for i, (video_id, stored) in enumerate(videos.items()):
        writer, views = VideoWriter(root, video_id), settings.extractors(video_id)
        writer.begin()
        for view, frames in zip(views, stored, strict=True):
            writer.add(view, [view.codec.encode_frame(np.ascontiguousarray(frame)) for frame in frames])
            view.frame_shape = frames.shape[1:]
        facts = {"label": f"class {i % 2}", "source": video_id, "split": "train", "fps": 25.0, "length": len(stored[0])}
        writer.commit(views, facts | {"settings_hash": settings_hash(settings.as_dict())})
    return open_store(root)
