"""The measurements of a run: typed records in RUN/results.json, one per number."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pipeline import storage
from pipeline.errors import Refusal
from pipeline.storage import sealed

NETWORKS = ("trained", "untrained")


@dataclass(frozen=True)
class Record:
    """One measurement.

    Attributes:
        metric: "R@1", "R@5", ..., "linear_top1".
        value: a fraction, 0..1.
        protocol: "clean" or "coclr".
        stream: of the network, such as "rgb"; of several fused, see `eval.streams.together`.
        network: "trained" or "untrained".
        stage: stage of the recipe; those of fused streams name their stages as "first+second".
        split: the split that was tested; the training split was the gallery, or what a probe was fitted to.
        data: name of the data set.
        checkpoint: digest of the checkpoint; of each, joined by "+", for fused streams.
        annotations: name and digest of the annotation set whose labels and splits counted, "extraction
            0123456789abcdef".
        chance: what guessing gives here: the same number for a random order of the gallery; None if not defined.
        published: the papers' number for this method, data and stream, if there is one (eval.published).
    """

    metric: str
    value: float
    protocol: str
    stream: str
    network: str
    stage: str
    split: str
    data: str
    checkpoint: str
    annotations: str
    chance: float | None = None
    published: float | None = None

    def __post_init__(self) -> None:
        for name in ("value", "chance", "published"):
            number = getattr(self, name)
            if number is None and name != "value":
                continue
            if isinstance(number, bool) or not isinstance(number, (int, float)) or not 0 <= number <= 1:
                raise Refusal(
                    f"{name} of {self.metric} is {number!r}, but it must be a fraction between 0 and 1",
                    where=f"{self.stage} / {self.stream} / {self.network} / {self.protocol}",
                    remedy="a percentage belongs divided by 100",
                )
        if self.network not in NETWORKS:
            raise Refusal(
                f"network is {self.network!r}, which is none of {NETWORKS}", where=f"{self.stage}, {self.metric}"
            )
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type == "str" and not (isinstance(value, str) and value):
                raise Refusal(
                    f"{field.name} of a result is {value!r}, but it must be a text", where=self.metric or "Record"
                )


def write(path: Path, records: Iterable[Record]) -> None:
    """Write records sorted (protocol, stream, network, stage, metric), aside and then renamed; the same records give
    the same bytes.

    In the file the last record has one key more: `digest`, of all records.

    Raises:
        Refusal: two records of one measurement, a disk that is full.
    """
    ordered = sorted(records, key=_order)
    for one, other in itertools.pairwise(ordered):
        if _order(one) == _order(other):
            raise Refusal(f"two results claim to be {one.metric}", where=" / ".join(map(str, _order(one)[:4])))
    rows = [dataclasses.asdict(record) for record in ordered]
    with storage.writing("the results", path):
        storage.write_atomically(path, sealed.seal_records(rows))


def read(path: Path) -> list[Record]:
    """The records of a results.json.

    Raises:
        Refusal: no such file, not a list of records, an unknown or missing field, a value out of range, a
            file whose bytes are not those that were written.
    """
    remedy = "run the evaluation: make evaluate RUN=... STORE=..."
    if not path.is_file():
        raise Refusal("there are no results yet", where=str(path), remedy=remedy)
    try:
        records = [Record(**row) for row in sealed.records(path.read_bytes())]
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise Refusal(f"this is not a list of results: {error}", where=str(path), remedy=remedy) from error
    except Refusal as refusal:
        raise Refusal(refusal.what, where=f"{path}: {refusal.where}", remedy=refusal.remedy or remedy) from refusal
    if not records:
        raise Refusal("the list of results is empty", where=str(path), remedy=remedy)
    return records


def _order(record: Record) -> tuple:
    metric, k = record.metric, math.inf
    if match := re.fullmatch(r"(R@)(\d+)", record.metric):
        metric, k = match[1], int(match[2])  # R@5 before R@10
    return record.protocol, record.stream, record.network, record.stage, record.split, record.data, metric, k
