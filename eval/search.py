"""Search by example, and near-duplicates: what representations are for. No label is needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from eval import embed, filmstrips, streams
from eval.bank import FeatureBank
from eval.filmstrips import Picture
from eval.report import render
from eval.retrieval import unit_rows
from eval.table import Table
from pipeline import called, storage
from pipeline.errors import Refusal, UsageError
from pipeline.store import VideoStore

PAIRS_AT_ONCE = 2**26  # similarities that are looked at together: 256 MiB
MOST_PAIRS = 100_000


@dataclass(frozen=True)
class Found:
    """A video of the store, and its similarity to the query: a cosine, -1 to 1, the mean over streams."""

    video_id: str
    label: str
    split: str
    similarity: float


@dataclass(frozen=True)
class Pair:
    """Two videos of a store that are nearly the same."""

    first: str
    second: str
    similarity: float
    splits: tuple[str, str]


def gallery(run: Path, store: VideoStore, reader: str = "auto", threads: int = 0) -> dict[str, FeatureBank]:
    """Features of all videos of a store, kept with the run."""
    videos, _ = embed.usable(store)
    return embed.embed(run, store, videos, run / "features" / "search" / store.root.resolve().name, reader, threads)


def search(
    query: Mapping[str, np.ndarray], banks: Mapping[str, FeatureBank], store: VideoStore, count: int
) -> list[Found]:
    """The `count` videos that are most like the query, nearest first; among equal ones that which comes first by name.

    query: of each stream of `banks` the features (D,) of a video.

    Both are compared by their cosine after the mean of all videos of the store is taken off, stream by stream; the mean
    over streams decides.

    Raises:
        UsageError: a count below 1. Refusal: a store of fewer than two videos.
    """
    if count < 1:
        raise UsageError(f"{count} videos are asked for", where="neighbours", remedy="at least 1")
    _refuse_few(banks)
    total = np.zeros(len(next(iter(banks.values())).video_ids))
    for stream, bank in banks.items():
        mean = bank.features.mean(0)
        rows = unit_rows(bank.features - mean, False, "gallery")
        asked = unit_rows((query[stream] - mean)[None], False, "query")
        total += (rows.double() @ asked[0].double()).numpy() / len(banks)
    ids = next(iter(banks.values())).video_ids
    nearest = np.argsort(-total, kind="stable")[:count]
    infos = [store.info(ids[row]) for row in nearest]
    return [
        Found(ids[row], info.label, info.split, float(total[row])) for row, info in zip(nearest, infos, strict=True)
    ]


def duplicates(banks: Mapping[str, FeatureBank], store: VideoStore, least: float) -> list[Pair]:
    """All pairs of videos whose similarity, as in `search`, is at least this, the most similar ones first.

    Rows are compared in blocks, so that memory does not grow with the square of the videos.

    Raises:
        UsageError: `least` is not between 0 and 1. Refusal: fewer than two videos, or more than MOST_PAIRS pairs.
    """
    if not 0 < least <= 1:
        raise UsageError(f"a similarity of {least} cannot be asked for", where="least", remedy="above 0, at most 1")
    _refuse_few(banks)
    ids = next(iter(banks.values())).video_ids
    # A product of rows that lie beside each other is the sum of their products.
    rows = torch.cat([unit_rows(bank.features, True, "gallery").float() for bank in banks.values()], 1)
    rows /= len(banks) ** 0.5
    step = max(1, PAIRS_AT_ONCE // len(rows))
    found: list[tuple[float, int, int]] = []
    for start in range(0, len(rows), step):
        scores = rows[start : start + step] @ rows[start:].T
        for one, other in (scores >= least - 1e-6).nonzero().tolist():  # rounding of float32
            if other > one:
                found.append((min(1.0, float(scores[one, other])), start + one, start + other))
        if len(found) > MOST_PAIRS:
            raise Refusal(
                f"more than {MOST_PAIRS:,} pairs are that similar",
                where=str(store.root),
                remedy="ask for a higher similarity: --least .999",
            )
    found.sort(key=lambda pair: (-pair[0], pair[1:]))
    return [
        Pair(ids[one], ids[other], score, (store.info(ids[one]).split, store.info(ids[other]).split))
        for score, one, other in found
    ]


def found_table(found: Sequence[Found]) -> Table:
    rows = [(place, one.video_id, one.label, one.split, round(one.similarity, 4)) for place, one in enumerate(found, 1)]
    return Table(
        "Nearest videos", ("", "video", "label", "split", "similarity"), [(*row[:4], f"{row[4]:.3f}") for row in rows]
    )


def pairs_table(pairs: Sequence[Pair]) -> Table:
    rows = [(pair.first, pair.second, f"{pair.similarity:.4f}", *pair.splits) for pair in pairs]
    return Table("Near-duplicates", ("video", "near-duplicate", "similarity", "split", "its split"), rows)


def write_page(
    query: tuple[VideoStore, str, Path],
    found: Sequence[Found],
    store: VideoStore,
    banks: Mapping[str, FeatureBank],
    run: Path,
    out: Path,
) -> None:
    """Write the query and what was found as one HTML page of moving strips that needs no other file.

    query: its store, its id there, and the file that it was.
    """
    frames = max(int(b.attributes["clip.length"]) * int(b.attributes["clip.stride"]) for b in banks.values())

    def picture(of: VideoStore, video: str) -> Picture:
        return filmstrips.picture(of, video, of.views[0], frames)

    content = {
        "query": picture(query[0], query[1]),
        "file": str(query[2]),
        "name": query[2].name,
        "found": [(one, picture(store, one.video_id)) for one in found],
        "store": str(store.root),
        "videos": len(next(iter(banks.values())).video_ids),
        "run": str(run),
        "streams": [streams.in_words(stream) for stream in streams.in_order(banks)],
    }
    with storage.writing("the page", out):
        storage.write_atomically(out, render("search.html", content).encode())


def _refuse_few(banks: Mapping[str, FeatureBank]) -> None:
    bank = next(iter(banks.values()))
    if len(bank.video_ids) < 2:
        raise Refusal(
            f"the store has {len(bank.video_ids)} video to look among",
            where=bank.stream,
            remedy=f"extract more videos into it: {called.command('extract', videos='', store='')}",
        )
