"""A map of a feature bank: t-SNE of test videos, and a frame of each for a page to show."""

from __future__ import annotations

import base64
from dataclasses import dataclass

import cv2
import numpy as np
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from eval.filmstrips import pictures
from eval.retrieval import unit_rows
from pipeline.store import VideoStore

MOST = 400  # videos that are shown: their frames make most of a page's bytes
ROUNDS = 500
TILE = 56  # pixels that a frame is wide
COLUMNS = 20
QUALITY = 60


@dataclass(frozen=True)
class FeatureMap:
    """Places (N, 2) in 0..100 of `rows` (N,) of a bank."""

    rows: np.ndarray
    places: np.ndarray


@dataclass(frozen=True)
class Sprite:
    """Frames of videos in one JPEG (`uri`), `columns` beside each other, each of `width` x `height`."""

    uri: str
    columns: int
    width: int
    height: int
    count: int


def feature_map(features: np.ndarray, rows: np.ndarray, centre: bool = True, seed: int = 0) -> FeatureMap | None:
    """t-SNE (van der Maaten and Hinton 2008, scikit-learn) of some rows of a bank: cosine distances of unit rows, which
    are centred as retrieval centres them, begun from their principal components. Above MOST rows, as many are drawn.

    The same features and seed give the same map. None where there is nothing to see: fewer than four videos, or
    all alike.
    """
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.permutation(rows)[:MOST])
    if len(chosen) < 4:
        return None
    units = unit_rows(features[chosen], centre, "map").float().cpu().numpy()
    if np.ptp(units, axis=0).max() < 1e-6:
        return None  # all at one place
    perplexity = min(30.0, (len(chosen) - 1) / 3)
    made = TSNE(init="pca", perplexity=perplexity, max_iter=ROUNDS, random_state=seed, n_jobs=1)
    with threadpool_limits(1):  # more threads wait for each other, and sum in another order
        places = made.fit_transform(units)
    low, high = places.min(0), places.max(0)
    return FeatureMap(chosen, 100 * (places - low) / np.maximum(high - low, 1e-9))


def sprite(store: VideoStore, videos: list[str]) -> Sprite:
    """The middle frame of each video, by the store's first view."""
    view = store.views[0]
    first = store.info(videos[0])
    height = max(1, round(TILE * first.height / first.width))
    lines = -(-len(videos) // COLUMNS)
    canvas = np.zeros((lines * height, min(COLUMNS, len(videos)) * TILE, 3), dtype=np.uint8)
    for place, video in enumerate(videos):
        (frame,) = pictures(store, video, view, np.array([store.shape(video, view)[0] // 2]))
        y, x = place // COLUMNS * height, place % COLUMNS * TILE
        canvas[y : y + height, x : x + TILE] = cv2.resize(frame, (TILE, height), interpolation=cv2.INTER_AREA)
    done, jpeg = cv2.imencode(".jpg", canvas[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    assert done
    uri = "data:image/jpeg;base64," + base64.b64encode(jpeg.tobytes()).decode()
    return Sprite(uri, min(COLUMNS, len(videos)), TILE, height, len(videos))
