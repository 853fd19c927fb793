"""The measurements of a run: typed records in RUN/results.json, one per number."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import math
import re
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.status import Status

from pipeline import called, storage
from pipeline.errors import Refusal
from pipeline.storage import exclusive, sealed
from pipeline.store import VideoStore
from pipeline.terminal import Terminal
from train.provenance import data_of

NETWORKS = ("trained", "untrained")
ADJUSTED = ("_ami", "_ari")  # ends of names of scores that are 0 by chance, and may be below
TURN = ".results"  # file in RUN that is held by who changes its results
MEAN = "mean of "  # begins what stands for the annotation set where several are averaged


@dataclass(frozen=True)
class Record:
    """One measurement.

    Attributes:
        metric: "R@1", "R@5", ..., "linear_top1", "kmeans_nmi", ... (`eval.clusters.measure`).
        value: a fraction, 0..1; scores of clusters that are adjusted for chance may be below 0.
        protocol: a name in `eval.protocols.PROTOCOLS`.
        stream: of the network, such as "rgb"; of several fused, see `eval.streams.together`.
        network: "trained" or "untrained".
        stage: stage of the recipe; those of fused streams name their stages as "first+second".
        split: the split that was tested; the training split was the gallery, or what a probe was fitted to.
        data: name of the data set.
        checkpoint: digest of the checkpoint; of each, joined by "+", for fused streams.
        annotations: name and digest of the annotation set whose labels and splits counted, "extraction
            0123456789abcdef"; or "mean of split1, split2 " and a digest of theirs.
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

    @property
    def set_name(self) -> str:
        """The name of the annotation set."""
        return self.annotations.rpartition(" ")[0]

    def __post_init__(self) -> None:
        for name in ("value", "chance", "published"):
            number = getattr(self, name)
            if number is None and name != "value":
                continue
            least = -1 if self.metric.endswith(ADJUSTED) else 0
            if isinstance(number, bool) or not isinstance(number, (int, float)) or not least <= number <= 1:
                raise Refusal(
                    f"{name} of {self.metric} is {number!r}, but it must be a fraction between {least} and 1",
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


def told(store: VideoStore) -> str:
    """Name and digest of the annotation set in use, as records have it."""
    return f"{store.annotated.name} {store.annotated.digest[:16]}"


def of(records: Iterable[Record], store: VideoStore) -> list[Record]:
    """The records that were measured on this store by its annotation set."""
    here = data_of(store), store.annotated.name
    return [record for record in records if (record.data, record.set_name) == here]


def means(records: Iterable[Record], names: Sequence[str]) -> list[Record]:
    """Of every measurement that was made on one store by all of these annotation sets, the mean over them."""
    groups: dict[tuple, dict[str, Record]] = {}
    for record in records:
        if record.set_name in names:
            key = dataclasses.astuple(
                dataclasses.replace(record, value=0.0, annotations="-", chance=None, published=None)
            )
            groups.setdefault(key, {})[record.set_name] = record
    made = []
    for group in groups.values():
        if len(group) == len(set(names)):
            parts = [group[name] for name in names]
            digests = "".join(part.annotations.rpartition(" ")[2] for part in parts)
            guesses = [part.chance for part in parts if part.chance is not None]
            made.append(
                dataclasses.replace(
                    parts[0],
                    value=statistics.fmean(part.value for part in parts),
                    annotations=f"{MEAN}{', '.join(names)} {hashlib.sha256(digests.encode()).hexdigest()[:16]}",
                    chance=statistics.fmean(guesses) if len(guesses) == len(parts) else None,
                    published=None,
                )
            )
    return made


@contextlib.contextmanager
def in_turn(run: Path) -> Iterator[None]:
    """What is read of a run's results is written again before another evaluation of it, by another annotation set
    perhaps, reads them: those that end at one moment wait for each other. Raises Refusal."""
    with contextlib.ExitStack() as stack:
        with storage.writing("the results", run):
            stack.enter_context(exclusive.in_turn(run / TURN, _waiting))
        yield


def _waiting() -> Status:
    return Terminal(stderr=True).status("waiting for another evaluation of this run to write its results")


def write(path: Path, records: Iterable[Record]) -> None:
    """Write records sorted (protocol, stream, network, stage, data, set, metric), aside and then renamed; the same
    records give the same bytes.

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
    remedy = f"run the evaluation: {called.command('evaluate', run='', store='')}"
    if not path.is_file():
        raise Refusal("there are no results yet", where=str(path), remedy=remedy)
    try:
        records = [Record(**row) for row in sealed.records(storage.read_regular(path))]
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
    where = record.protocol, record.stream, record.network, record.stage, record.split, record.data
    return *where, record.set_name, metric, k
