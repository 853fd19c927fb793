"""What there is to say of videos without labels: the nearest training videos of every test video, and clusters, as
tables."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from eval import clusters, retrieval
from eval.bank import FeatureBank
from eval.features import GALLERY
from eval.splits import TESTED
from pipeline import storage

COUNT = 10  # neighbours of a video
AT_ONCE = 1024  # test videos


def write(bank: FeatureBank, centre: bool, beside: Path) -> tuple[Path, Path]:
    """Write both as CSV beside the bank's file, and give their paths. centre: neighbours are looked for after each side
    has lost its own mean."""
    found = clusters.cluster(bank.features, bank.labels, seed=int(bank.attributes["seed"]))
    rows = zip(bank.video_ids, *(one.assignments.tolist() for one in found), strict=True)
    grouped = _table(beside, "clusters", ("video_id", *(one.algorithm for one in found)), rows)
    head = ("video_id", "rank", "neighbour", "similarity")
    return _table(beside, "neighbours", head, _neighbours(bank, centre)), grouped


def _neighbours(bank: FeatureBank, centre: bool) -> Iterator[tuple[str, int, str, str]]:
    splits = np.array(bank.splits)
    tested, gallery = np.flatnonzero(splits == TESTED), np.flatnonzero(splits == GALLERY)
    queries = retrieval.unit_rows(bank.features[tested], centre, "query")
    found = retrieval.unit_rows(bank.features[gallery], centre, "gallery")
    for first in range(0, len(tested), AT_ONCE):
        nearest = torch.topk(queries[first : first + AT_ONCE] @ found.T, min(COUNT, len(gallery)), dim=1)
        for row, (values, places) in enumerate(zip(nearest.values.tolist(), nearest.indices.tolist(), strict=True)):
            for rank, (value, place) in enumerate(zip(values, places, strict=True), start=1):
                query, neighbour = (bank.video_ids[number] for number in (tested[first + row], gallery[place]))
                yield query, rank, neighbour, f"{value:.6f}"


def _table(beside: Path, kind: str, head: Sequence[str], rows: Iterable[Sequence[object]]) -> Path:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(head)
    writer.writerows(rows)
    path = beside.with_name(f"{beside.stem}-{kind}.csv")
    with storage.writing(f"the {kind}", path):
        storage.write_atomically(path, text.getvalue().encode())
    return path
