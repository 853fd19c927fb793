"""Which videos are trained on, and what is known of each: one owner, in arrays."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np

from pipeline import called
from pipeline.errors import Refusal, UsageError
from pipeline.manifest import SPLITS
from pipeline.store import VideoStore
from pipeline.store.annotated import Annotated
from train.order import Order, OrderSettings
from train.sampling import Sampling
from train.sampling.columns import Column
from train.sampling.groups import Groups

SHOWN = 5  # videos that a message names
HELD_OUT = 0x6E6E  # keeps the choice of held-out videos apart from other users of the same seed


def write_labels() -> str:
    """What is done where videos lack classes."""
    return f"write labels of a manifest beside the videos: {called.command('annotate', store='', manifest='')}"


def extract_longer() -> str:
    """What is done where no video is long enough."""
    return f"extract videos of two frames or more: {called.command('extract', videos='', store='')}"


class Videos:
    """N videos of a store. A number of a video is a place in `rows`, int32 (N,), which are those of the store's
    listing.

    frames: that all stored views have. labels: class index, -1 without. sources: number of the recording, in the order
    of their names.
    """

    def __init__(self, annotated: Annotated, rows: np.ndarray) -> None:
        self.annotated, self.rows = annotated, rows.astype(np.int32, copy=False)
        self.frames = Column(annotated.table.frames, self.rows)
        self.labels, self.sources = (Column(values, self.rows) for values in (annotated.labels, annotated.sources))

    def __len__(self) -> int:
        return len(self.rows)

    def id(self, number: int) -> str:
        return self.annotated.table.id(int(self.rows[number]))

    @property
    def ids(self) -> list[str]:
        """Of all of them: text that takes more memory than all else."""
        return self.annotated.table.names(self.rows)

    def frame_size(self, number: int) -> tuple[int, int]:
        """Height and width of a video's frames."""
        return self.annotated.table.kind(int(self.rows[number])).frame_size

    def take(self, numbers: np.ndarray) -> Videos:
        return Videos(self.annotated, self.rows[numbers])

    def digest(self) -> str:
        """Tells these videos, byte for byte and with what is said of them, from all others."""
        return self.annotated.digest_of(self.rows)


def of_splits(store: VideoStore, splits: Sequence[str]) -> Videos:
    """All videos of these splits. Raises Refusal when there are none."""
    chosen = np.flatnonzero(np.isin(store.annotated.splits, [SPLITS.index(split) for split in splits]))
    if not chosen.size:
        present = sorted(name or '""' for name in (SPLITS[place] for place in np.unique(store.annotated.splits)))
        raise Refusal(
            f"no video of the splits {list(splits)} is in the store",
            where=str(store.root),
            remedy=f"its videos are of the splits {', '.join(present) or 'none at all'}; see `splits` in the recipe",
        )
    return Videos(store.annotated, chosen)


class TrainingSet:
    """The videos that a stage trains on, and those that are held out.

    videos: trained on; a number of a video is a place in them. held_out: whole recordings that `share` keeps from
    training. groups: such as pseudo-labels make, of `videos`; None until someone sets them. empty: how many of all
    videos have no frame that all views have, as a video of one frame has no flow: they are left out. short: how many
    others have fewer than `least` frames. unlabelled: how many have no class, which are left out where the method
    `needs_labels`. Constructed from all videos of the recipe's splits.

    Raises Refusal where no video is left.
    """

    def __init__(
        self,
        videos: Videos,
        where: str,
        *,
        least: int = 1,
        drop: bool = False,
        share: float = 0.0,
        seed: int = 0,
        needs_labels: bool = False,
    ) -> None:
        self.all, self.where, self.least = videos, where, least
        frames = np.asarray(videos.frames)
        empty, short = frames < 1, frames < least
        self.empty, self.short = int(empty.sum()), int((short & ~empty).sum())
        if empty.size and empty.all():
            raise Refusal(
                f"none of {len(videos)} videos has a frame that all its views have",
                where=where,
                remedy=extract_longer(),
            )
        left_out = empty | short if drop else empty
        if drop and self.short:
            self._refuse_all_short(short)
        self.unlabelled = 0
        if needs_labels:
            left_out = left_out | self._unlabelled(videos)
        if left_out.any():
            videos = videos.take(~left_out)
        held = _held_out(np.asarray(videos.sources), share, seed, where) if share else np.zeros(len(videos), bool)
        self.videos, self.held_out = (videos.take(~held) if share else videos, videos.take(held))
        self.groups: Groups | None = None

    def of_held_out(self) -> TrainingSet:
        """The held-out videos, to be read as the others are."""
        return TrainingSet(self.held_out, self.where, least=self.least)

    def __len__(self) -> int:
        return len(self.videos)

    @functools.cached_property
    def digest(self) -> str:
        """Of all videos of the recipe's splits."""
        return self.all.digest()

    def order(self, settings: OrderSettings, batch: int, seed: int, accumulate: int = 1) -> Order:
        """The order in which they are trained on. Raises Refusal and UsageError where the settings do not suit them."""
        if settings.limit > len(self):
            raise UsageError(
                f"{settings.limit} videos cannot be drawn from {len(self)}",
                where="order.limit",
                remedy="a smaller limit, or 0 for all of them",
            )
        labels = np.asarray(self.videos.labels) if settings.balanced else None
        if labels is not None and labels.min(initial=0) < 0:
            unlabelled = np.flatnonzero(labels < 0)
            first = self.videos.id(int(unlabelled[0]))
            raise Refusal(
                f"{unlabelled.size} videos have no class to balance by, the first of them is {first!r}",
                where=self.where,
                remedy=f"order.balanced: false in the recipe, or {write_labels()}",
            )
        return Order(settings, len(self), batch, seed, accumulate, labels)

    def told_of_empty(self) -> str:
        """What becomes of the videos that have no frame to show, in a sentence."""
        rows = np.flatnonzero(np.asarray(self.all.frames) < 1)[:SHOWN]
        first = ", ".join(repr(self.all.id(int(row))) for row in rows)
        more = ", ..." if self.empty > SHOWN else ""
        return (
            f"{self.empty} of {len(self.all)} videos have no frame that all views have, and are left out: {first}{more}"
        )

    def told_of_short(self, sampling: Sampling) -> str:
        """What becomes of the videos that have fewer frames than `sampling` needs, in a sentence."""
        fate = f"{sampling.fates[sampling.short]} (sampling.short: {sampling.short})"
        return f"{self.short} of {len(self.all)} videos are shorter than a clip: {fate}"

    def told_of_unlabelled(self) -> str:
        """What becomes of the videos without a class, in a sentence."""
        return f"{self.unlabelled} of {len(self.all)} videos have no class to learn, and are left out"

    def _unlabelled(self, videos: Videos) -> np.ndarray:
        """Which have no class, bool (N,)."""
        unlabelled = np.asarray(videos.labels) < 0
        self.unlabelled = int(unlabelled.sum())
        if unlabelled.all():
            raise Refusal(
                f"none of {len(videos)} videos has a class to learn",
                where=self.where,
                remedy=write_labels(),
            )
        return unlabelled

    def _refuse_all_short(self, short: np.ndarray) -> None:
        if short.all():
            raise Refusal(
                f"all {len(short)} videos are dropped: they have fewer than the {self.least} frames that a clip needs",
                where=self.where,
                remedy="shorter clips or a smaller stride in the recipe",
            )


def _held_out(sources: np.ndarray, share: float, seed: int, where: str) -> np.ndarray:
    """Which videos are held out, bool (N,), whole recordings; which follows from the seed.

    Raises Refusal where there are too few recordings to do without one.
    """
    sizes = np.bincount(sources).astype(np.int32)  # by recording; the videos of other splits leave gaps
    names = np.flatnonzero(sizes).astype(np.int32)
    recordings, enough = len(names), max(2, share * len(sources))
    order = np.random.default_rng((HELD_OUT, seed)).permutation(len(names))
    drawn = names[order[: min(len(names) - 1, math.ceil(enough))]]
    chosen = drawn[: np.searchsorted(sizes[drawn].cumsum(), enough) + 1]
    del sizes, names, order  # of ten million videos 160 MB
    held = np.isin(sources, chosen, kind="table")
    if held.sum() < 2:
        raise Refusal(
            f"{recordings} recordings are too few to hold some out of training",
            where=where,
            remedy="neighbours: {every: 0} in the recipe",
        )
    return held
