"""Which videos are trained on, and what is known of each: one owner, in arrays."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import Refusal, UsageError
from pipeline.store import VideoStore
from train.groups import Groups
from train.order import Order, OrderSettings
from train.sampling import Sampling

if TYPE_CHECKING:
    from train.recipe import Recipe, StageSettings

HELD_OUT = 0x6E6E  # keeps the choice of held-out videos apart from other users of the same seed
AT_ONCE = 65536  # videos whose names are put together for a digest


@dataclass(frozen=True, eq=False)
class Videos:
    """N videos. ids: by number. frames: that all stored views have, int (N,). frame_sizes: height and width of a frame, int
    (N, 2). labels: class index, int64 (N,), -1 without. sources: number of the recording, in the order of their names,
    int64 (N,). digests: of the commit records, by number.
    """

    ids: Sequence[str]
    frames: np.ndarray
    frame_sizes: np.ndarray
    labels: np.ndarray
    sources: np.ndarray
    digests: Sequence[str]

    def __len__(self) -> int:
        return len(self.frames)

    def take(self, rows: np.ndarray) -> Videos:
        """Some of them, int (M,)."""
        if np.array_equal(rows, np.arange(len(self))):
            return self
        return Videos(
            Taken(self.ids, rows),
            self.frames[rows],
            self.frame_sizes[rows],
            self.labels[rows],
            self.sources[rows],
            Taken(self.digests, rows),
        )


def digest_of(ids: Sequence[str], digests: Sequence[str]) -> str:
    """Tells videos, byte for byte, from all others: changes when one is added, removed or extracted again.

    digests: of their commit records.
    """
    found = hashlib.sha256()
    for first in range(0, len(ids), AT_ONCE):
        numbers = range(first, min(first + AT_ONCE, len(ids)))
        found.update("".join(f"{ids[i]}\0{digests[i]}\n" for i in numbers).encode())
    return found.hexdigest()[:16]


class Taken(Sequence[str]):
    """Some rows of a column of text, without a copy."""

    def __init__(self, column: Sequence[str], rows: np.ndarray) -> None:
        self._column, self._rows = column, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, place: Any) -> Any:
        return Taken(self._column, self._rows[place]) if isinstance(place, slice) else self._column[self._rows[place]]


def stored_videos(store: VideoStore) -> tuple[Videos, np.ndarray]:
    """Every video of a store, in the store's order, and the split of each, text (N,)."""
    infos = store.infos
    class_index = {name: index for index, name in enumerate(store.classes)}
    recordings = {source: number for number, source in enumerate(sorted({info.source for info in infos.values()}))}
    videos = Videos(
        ids=list(infos),
        # Of all views, so that a sample's frames do not depend on which are read.
        frames=np.array([min(shape[0] for shape in info.shapes.values()) for info in infos.values()], np.int64),
        frame_sizes=np.array([(info.height, info.width) for info in infos.values()], np.int32).reshape(-1, 2),
        labels=np.array([class_index.get(info.label, -1) for info in infos.values()], np.int64),
        sources=np.array([recordings[info.source] for info in infos.values()], np.int64),
        digests=[info.digest for info in infos.values()],
    )
    return videos, np.array([info.split for info in infos.values()])


def of_splits(store: VideoStore, splits: Sequence[str]) -> Videos:
    """All videos of these splits. Raises Refusal when there are none."""
    videos, split = stored_videos(store)
    chosen = np.flatnonzero(np.isin(split, list(splits)))
    if not chosen.size:
        present = sorted({name or '""' for name in np.unique(split).tolist()})
        raise Refusal(
            f"no video of the splits {list(splits)} is in the store",
            where=str(store.root),
            remedy=f"its videos are of the splits {', '.join(present) or 'none at all'}; see `splits` in the recipe",
        )
    return videos.take(chosen)


class TrainingSet:
    """The videos that a stage trains on, and those that are held out.

    videos: trained on; a number of a video is a place in them. held_out: whole recordings that `share` keeps from training.
    groups: such as pseudo-labels make, of `videos`; None until someone sets them. short: how many of all videos have fewer
    than `least` frames. Constructed from all videos of the recipe's splits.

    Raises Refusal where no video is left.
    """

    def __init__(
        self, videos: Videos, where: str, *, least: int = 1, drop: bool = False, share: float = 0.0, seed: int = 0
    ) -> None:
        self.all, self.where, self.least = videos, where, least
        short = videos.frames < least
        self.short = int(short.sum())
        if drop:
            videos = self._without(videos, short)
        held = _held_out(videos.sources, share, seed, where) if share else np.zeros(len(videos), bool)
        self.videos, self.held_out = videos.take(np.flatnonzero(~held)), videos.take(np.flatnonzero(held))
        self.groups: Groups | None = None

    @classmethod
    def of(cls, recipe: Recipe, stage: StageSettings, store: VideoStore) -> TrainingSet:
        """Of a stage of a recipe."""
        sampling = recipe.sampling_of(stage)
        return cls(
            of_splits(store, recipe.splits),
            str(store.root),
            least=sampling.least(recipe.clips),
            drop=sampling.short == "drop",
            share=recipe.neighbours.share if recipe.neighbours.every else 0.0,
            seed=recipe.seed,
        )

    def __len__(self) -> int:
        return len(self.videos)

    @functools.cached_property
    def digest(self) -> str:
        """Of all videos of the recipe's splits."""
        return digest_of(self.all.ids, self.all.digests)

    def order(self, settings: OrderSettings, batch: int, seed: int, accumulate: int = 1) -> Order:
        """The order in which they are trained on. Raises Refusal and UsageError where the settings do not suit them."""
        if settings.limit > len(self):
            raise UsageError(
                f"{settings.limit} videos cannot be drawn from {len(self)}",
                where="order.limit",
                remedy="a smaller limit, or 0 for all of them",
            )
        unlabelled = np.flatnonzero(self.videos.labels < 0)
        if settings.balanced and unlabelled.size:
            first = self.videos.ids[int(unlabelled[0])]
            raise Refusal(
                f"{unlabelled.size} videos have no class to balance by, the first of them is {first!r}",
                where=self.where,
                remedy="order.balanced: false in the recipe, or a manifest with labels (`--overwrite true` stores them)",
            )
        return Order(settings, self.videos.labels, batch, seed, accumulate)

    def told_of_short(self, sampling: Sampling) -> str:
        """What becomes of the videos that have fewer frames than `sampling` needs, in a sentence."""
        fate = f"{sampling.fates[sampling.short]} (sampling.short: {sampling.short})"
        return f"{self.short} of {len(self.all)} videos are shorter than a clip: {fate}"

    def _without(self, videos: Videos, short: np.ndarray) -> Videos:
        if short.all():
            raise Refusal(
                f"all {len(videos)} videos are dropped: they have fewer than the {self.least} frames that a clip needs",
                where=self.where,
                remedy="shorter clips or a smaller stride in the recipe, or another choice for sampling.short",
            )
        return videos.take(np.flatnonzero(~short))


def _held_out(sources: np.ndarray, share: float, seed: int, where: str) -> np.ndarray:
    """Which videos are held out, bool (N,), whole recordings; which follows from the seed.

    Raises Refusal where there are too few recordings to do without one.
    """
    names, recordings, counts = np.unique(sources, return_inverse=True, return_counts=True)
    drawn = np.random.default_rng((HELD_OUT, seed)).permutation(len(names))[:-1]
    enough = np.searchsorted(counts[drawn].cumsum(), max(2, share * len(sources)))
    held = np.isin(recordings, drawn[: enough + 1])
    if held.sum() < 2:
        raise Refusal(
            f"{len(names)} recordings are too few to hold some out of training",
            where=where,
            remedy="neighbours: {every: 0} in the recipe",
        )
    return held
