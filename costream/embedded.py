"""Features of videos by a network, and which of them are most alike."""

from __future__ import annotations

import contextlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from costream.trained import Network  # first: it mends torchvision before anything imports it

# isort: split
import numpy as np

from eval import embed
from eval import features as computing
from eval.retrieval import unit_rows
from pipeline import called, importers, storage
from pipeline.errors import Refusal, UsageError, refuse_unknown
from pipeline.manifest import Manifest, Video
from pipeline.store import VideoStore, open_store, there_is_a_store
from pipeline.store.settings import ExtractionSettings
from train import reader
from train.hardware import reading_threads


@dataclass(frozen=True, repr=False)
class Features:
    """Of N videos. videos: ids. rows: float32 (N, D), the mean over a video's windows. labels, splits: N, or empty."""

    videos: list[str]
    rows: np.ndarray
    labels: list[str]
    splits: list[str]

    def __repr__(self) -> str:
        return f"Features({len(self.videos)} videos, {self.rows.shape[1]} numbers each)"

    def nearest(self, video: str, count: int = 5) -> list[tuple[str, float]]:
        """The videos that are most like one of them: ids and similarities, nearest first, the video itself left out.

        Similarity: the cosine after the mean of all rows is taken off, -1 to 1. Raises UsageError for an unknown id.
        """
        if video not in self.videos:
            refuse_unknown("video", video, self.videos)
        if count < 1:
            raise UsageError(f"{count} videos are asked for", where="count", remedy="at least 1")
        own = self.videos.index(video)
        unit = unit_rows(self.rows, True, "gallery")
        scores = (unit @ unit[own]).numpy()
        order = [row for row in np.argsort(-scores, kind="stable") if row != own]
        return [(self.videos[row], float(scores[row])) for row in order[:count]]


def features(
    videos: VideoStore | str | os.PathLike[str],
    network: Network,
    *,
    split: str | None = None,
    store: str | os.PathLike[str] | None = None,
    threads: int = 0,
) -> Features:
    """Features of all windows of videos, by `network` on the device where it is; what `make features` writes.

    Args:
        videos: a store, or its folder; or a video file or a folder of them, which are extracted first, as those that
            the network was trained on.
        split: of a store, the one whose videos are taken; None: all.
        store: of videos that are extracted, where their store is kept, so that it is made once; by default it is
            thrown away.
        threads: that read; 0 takes one for each core, eight at most.

    Raises:
        Refusal: a store without the view that the network is shown, no usable video, or a network that does not say how
            its videos were extracted.
        UsageError: an unknown split, and `store` or `split` where they say nothing.
    """
    if not isinstance(videos, VideoStore) and not there_is_a_store(storage.location(videos)):
        if split is not None:
            raise UsageError("videos that are yet to be extracted have no split", where="split", remedy="leave it out")
        return _of_files(Path(videos), network, store, threads)
    if store is not None:
        raise UsageError("the videos are in a store already", where="store", remedy="leave it out")
    opened = videos if isinstance(videos, VideoStore) else open_store(videos)
    clips = network.clips(opened, split=split)  # refuses what cannot be shown
    return _computed(opened, clips.videos, network, threads or clips.threads)


def _of_files(place: Path, network: Network, kept: str | os.PathLike[str] | None, threads: int) -> Features:
    if not place.exists():
        raise Refusal("there is no such video or folder", where=str(place), remedy="give another path, or a store")
    settings = network.origin.facts.get("store_settings")
    if not settings:
        raise Refusal(
            "the network does not say how the videos that it was trained on were extracted",
            where=str(network.origin.source),
            remedy=f"extract these with `{called.command('extract')}`, as those were, and give their store",
        )
    wanted = ExtractionSettings.from_dict(settings).only({network.shown.view})
    single = place.is_file()
    listed = Manifest([Video(place.stem, place.name)], []) if single else importers.listed("folder", place)
    root = place.parent if single else place
    with contextlib.ExitStack() as stack:
        target = Path(kept) if kept else Path(stack.enter_context(tempfile.TemporaryDirectory())) / "store"
        opened, _ = embed.extracted(listed, root, target, wanted, workers=1 if single else 0)
        return _computed(opened, embed.usable(opened)[0], network, threads)


def _computed(store: VideoStore, videos: list[str], network: Network, threads: int) -> Features:
    seen = computing.Seen(network.stream, network.spec, network.sampling)
    threads = reading_threads(threads)
    with contextlib.closing(reader.create("auto", store, threads)) as executor:
        title = f"{network.stream} features"
        blocks = computing.compute(
            [network.inner], seen, network.layer, store, videos, embed.LOOK, executor, seed=0, title=title
        )
        rows = np.concatenate([block for (block,) in blocks])
    infos = [store.info(video) for video in videos]
    return Features(list(videos), rows, [info.label for info in infos], [info.split for info in infos])
