"""What extraction of a video costs one core, against loops without any of our classes, and what it takes on the disk.

All ratios are of times taken in turn, video by video, on one core.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import lmdb
import msgpack
import numpy as np
import pytest

from pipeline import flow, synthetic
from pipeline.extraction.job import extract_video
from pipeline.manifest import Video
from pipeline.store import open_store
from pipeline.store.settings import ExtractionSettings
from pipeline.store.writing import create_store
from pipeline.video.decode import decode
from pipeline.views.flow import FlowSettings
from pipeline.views.rgb import RgbSettings
from pipeline.views.size import SHORT_SIDE, resize

ACTIONS = Path(__file__).resolve().parents[3] / "shared" / "data" / "actions"
PAPERS_QUALITY = 100  # of CoCLR's JPEGs


@dataclass(frozen=True)
class Spent:
    """Seconds."""

    wall: float
    cpu: float


Work = Callable[[Path], Spent]


def real_clips(count: int) -> list[Path]:
    """Action clips of a few seconds and few pixels, where they lie beside the checkout."""
    clips = sorted(ACTIONS.rglob("*.mp4")) if ACTIONS.is_dir() else []
    return clips[:: max(1, len(clips) // count)][:count]


def as_large_as_ucf101(folder: Path, count: int) -> list[Path]:
    """Synthetic videos of 180 frames of 320x240."""
    folder.mkdir()
    made = []
    for number in range(count):
        name = synthetic.CLASSES[number % len(synthetic.CLASSES)]
        made.append(folder / f"{number}.mp4")
        synthetic.write_mp4(made[-1], synthetic.video(name, number, frames=180, height=240, width=320))
    return made


def measure(videos: list[Path], scratch: Path, estimator: str, flow_videos: int) -> dict[str, float]:
    """`flow_videos`: of how many the flow is computed, which takes far longer than all the rest."""
    with one_core():
        rgb = ExtractionSettings({"rgb": RgbSettings()}).resolved()
        extracted, bare = in_turn(videos, storing(scratch / "rgb", rgb), bare_loop)
        few = videos[:flow_videos]
        both = ExtractionSettings({"rgb": RgbSettings(), "flow": FlowSettings(estimator=estimator)}).resolved()
        pure: list[Spent] = []
        with estimating(estimator, pure):
            (with_flow,) = in_turn(few, storing(scratch / "both", both), before=pure.clear)
    stored, papers = sizes(scratch / "both", few, scratch / "papers")
    return {
        "RGB: rate against a bare loop (wall)": bare.wall / extracted.wall,
        "RGB: rate against a bare loop (CPU)": bare.cpu / extracted.cpu,
        f"{estimator}: all but flow against flow (wall)": with_flow.wall / sum(one.wall for one in pure) - 1,
        f"{estimator}: all but flow against flow (CPU)": with_flow.cpu / sum(one.cpu for one in pure) - 1,
        "bytes of RGB against the papers' LMDB": stored["rgb"] / papers["rgb"],
        "bytes of flow against the papers' LMDB": stored["flow"] / papers["flow"],
    }


def in_turn(videos: list[Path], *works: Work, before: Callable[[], object] = lambda: None) -> list[Spent]:
    """What each kind of work took for all videos, each going first in its turn. All are called once before to warm up.

    `before` is called between the two.
    """
    for work in works:
        work(videos[0])
    before()
    spent = [Spent(0.0, 0.0) for _ in works]
    for number, video in enumerate(videos):
        for turn in range(len(works)):
            place = (number + turn) % len(works)
            one = works[place](video)
            spent[place] = Spent(spent[place].wall + one.wall, spent[place].cpu + one.cpu)
    return spent


def clocked(work: Callable[[], object]) -> Spent:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Spent(time.perf_counter() - wall, time.process_time() - cpu)


def storing(store: Path, settings: ExtractionSettings) -> Work:
    """Extraction of one video, from the file to the commit record on the disk."""
    create_store(store, settings)

    def work(video: Path) -> Spent:
        row = Video(video.stem, video.name, "", "", "")
        return clocked(lambda: extract_video(str(video.parent), str(store), row, settings.as_dict(running=True)))

    return work


def bare_loop(video: Path) -> Spent:
    """Decoding, shrinking and encoding as one would write it down, with nothing stored."""

    def work() -> None:
        with av.open(str(video)) as container:
            for frame in container.decode(video=0):
                picture = frame.to_ndarray(format="rgb24")
                scale = SHORT_SIDE / min(picture.shape[:2])
                if scale < 1:
                    size = (round(picture.shape[1] * scale), round(picture.shape[0] * scale))
                    picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
                cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 95])

    return clocked(work)


@contextlib.contextmanager
def estimating(name: str, spent: list[Spent]) -> Iterator[None]:
    """Clock every call of the estimator, frames in and flow out, within extraction itself: no noise comes between."""
    kind = type(flow.create(name))
    estimate = kind.estimate

    def clocked_estimate(self: flow.FlowEstimator, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        found: list[np.ndarray] = []
        spent.append(clocked(lambda: found.append(estimate(self, first, second))))
        return found[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kind, "estimate", clocked_estimate)
        yield


def sizes(store: Path, videos: list[Path], scratch: Path) -> tuple[dict[str, int], dict[str, int]]:
    """Bytes of each view in our store, and in LMDBs as CoCLR has them, of the same frames and the same flow."""
    opened = open_store(store)
    views: dict[str, Callable[[Path], list[np.ndarray]]] = {
        "rgb": lambda video: [frame[..., ::-1] for block in decode(video) for frame in resize(block, SHORT_SIDE, None)],
        "flow": lambda video: [papers_flow(planes) for planes in opened.read(video.stem, "flow", slice(None))],
    }
    ours, papers = {}, {}
    for view, images in views.items():
        ours[view] = sum(file.stat().st_size for file in (store / "videos").rglob(f"*/{view}/**/*") if file.is_file())
        file = scratch / f"{view}.lmdb"
        file.parent.mkdir(exist_ok=True)
        with lmdb.open(str(file), subdir=False, map_size=2**34) as environment, environment.begin(write=True) as change:
            for number, video in enumerate(videos):
                packed = [encoded(image) for image in images(video)]
                change.put(b"%09d" % number, msgpack.packb(packed, use_bin_type=False))
        papers[view] = file.stat().st_size
    return ours, papers


def papers_flow(planes: np.ndarray) -> np.ndarray:
    """u and v as two channels of a colour picture, the third one gray."""
    return np.dstack([*planes, np.full_like(planes[0], 128)])


def encoded(image: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, PAPERS_QUALITY])[1].tobytes()


@contextlib.contextmanager
def one_core() -> Iterator[None]:
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)
