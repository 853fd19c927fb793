"""Film strips: some test videos and the training videos the network finds most similar, as small moving pictures."""

from __future__ import annotations

import base64
from dataclasses import dataclass

import cv2
import numpy as np

from eval.bank import FeatureBank, again
from eval.retrieval import nearest
from pipeline.errors import Refusal
from pipeline.store import VideoStore
from pipeline.views import VIEWS

FRAMES = 12
WIDTH = 128
HIGHEST = 128  # pixels of a frame: one that stands upright is narrower
NEIGHBOURS = 5
QUALITY = 72


@dataclass(frozen=True)
class Picture:
    """Frames of a clip side by side in one JPEG (`uri`); the page moves it behind a window of one frame."""

    uri: str
    frames: int
    width: int
    height: int
    seconds: float


@dataclass(frozen=True)
class Neighbour:
    """A training video that was found; `right` if it has the query's label."""

    video_id: str
    label: str
    right: bool
    similarity: float
    picture: Picture


@dataclass(frozen=True)
class Strip:
    """A query and its neighbours, nearest first; `before` says which neighbours of the untrained network were right."""

    video_id: str
    label: str
    picture: Picture
    neighbours: list[Neighbour]
    before: list[bool]


def choose_queries(bank: FeatureBank, count: int, seed: int = 0) -> list[str]:
    """Test videos of different classes, drawn from `seed` alone: nothing is picked for being right."""
    rng = np.random.default_rng(seed)
    rows = rng.permutation(bank.rows("test"))
    labels = bank.labels[rows]
    # How many videos of its class come before it: first one video of every class, then the second of each, ...
    turns = [int(np.sum(labels[:place] == label)) for place, label in enumerate(labels)]
    return [bank.video_ids[row] for row in rows[np.argsort(turns, kind="stable")][:count]]


def strips(
    store: VideoStore, trained: FeatureBank, untrained: FeatureBank, queries: list[str], centre: bool = True
) -> list[Strip]:
    """One strip per query, neighbours among the training videos; centre: as in `eval.retrieval.nearest`.

    Raises:
        Refusal: the two banks hold different videos.
    """
    if trained.video_ids != untrained.video_ids:
        raise Refusal("the feature banks hold different videos", where=trained.stream, remedy=again())
    place = {video: row for row, video in enumerate(trained.video_ids)}
    rows = [place[query] for query in queries]
    similarities, found = _search(trained, rows, centre)
    _, found_before = _search(untrained, rows, centre)
    clip_frames = int(trained.attributes["clip.length"]) * int(trained.attributes["clip.stride"])
    made = []
    for row, scores, neighbours, before in zip(rows, similarities, found, found_before, strict=True):
        label = trained.labels[row]
        shown = [
            Neighbour(
                trained.video_ids[n],
                store.info(trained.video_ids[n]).label,
                bool(trained.labels[n] == label),
                float(score),
                picture(store, trained.video_ids[n], trained.stream, clip_frames),
            )
            for n, score in zip(neighbours, scores, strict=True)
        ]
        video = trained.video_ids[row]
        query = picture(store, video, trained.stream, clip_frames)
        made.append(
            Strip(video, store.info(video).label, query, shown, [bool(trained.labels[n] == label) for n in before])
        )
    return made


def picture(store: VideoStore, video_id: str, stream: str, clip_frames: int) -> Picture:
    """Up to FRAMES frames of the store's first view from the middle `clip_frames` of a video; below each what the view
    of another stream has there, drawn over the frame where it means little without."""
    info = store.info(video_id)
    length = min(shape[0] for shape in info.shapes.values())
    covered = min(length, clip_frames)
    numbers = (length - covered) // 2 + np.unique(np.linspace(0, covered - 1, min(FRAMES, covered)).round().astype(int))
    first, *others = info.views
    width = min(WIDTH, info.width, max(1, round(HIGHEST * info.width / info.height)))
    frames = pictures(store, video_id, first, numbers)
    tiles = [_resized(frame, width) for frame in frames]
    if stream in others:
        shown = VIEWS[stream].drawn_over(pictures(store, video_id, stream, numbers), frames)
        tiles = [
            np.vstack([tile, _resized(below, width, tile.shape[0])]) for tile, below in zip(tiles, shown, strict=True)
        ]
    sheet = cv2.cvtColor(np.hstack(tiles), cv2.COLOR_RGB2BGR)
    done, jpeg = cv2.imencode(".jpg", sheet, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    assert done, video_id
    uri = "data:image/jpeg;base64," + base64.b64encode(jpeg.tobytes()).decode()
    return Picture(uri, len(tiles), width, tiles[0].shape[0], max(covered / (info.fps or 25.0), 0.4))


def pictures(store: VideoStore, video_id: str, view: str, frames: np.ndarray) -> np.ndarray:
    """Frames (N, H, W, 3) of a view for people."""
    return VIEWS[view].picture(store.read(video_id, view, frames), store.settings[view])


def _search(bank: FeatureBank, rows: list[int], centre: bool) -> tuple[np.ndarray, np.ndarray]:
    """Similarities and bank rows (len(rows), k) of the nearest training videos; centred over the whole test split."""
    gallery, tested = bank.rows("train"), bank.rows("test")
    scores, found = nearest(bank.features[tested], bank.features[gallery], NEIGHBOURS, centre)
    asked = np.searchsorted(tested, rows)
    return scores[asked], gallery[found[asked]]


def _resized(image: np.ndarray, width: int, height: int | None = None) -> np.ndarray:
    height = height or max(1, round(image.shape[0] * width / image.shape[1]))
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
