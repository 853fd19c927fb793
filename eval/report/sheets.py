"""The tables of a report: each is shown on the page, where it sorts, and goes along as CSV, Markdown and LaTeX."""

from __future__ import annotations

import base64
import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from eval.classes import ClassScore
from eval.clusters import ALGORITHMS, BETWEEN
from eval.published import Quoted
from eval.results import Record
from eval.table import SUFFIXES, Cell, Table

MIME = {".csv": "text/csv", ".md": "text/markdown", ".tex": "application/x-tex"}
SCORES = {"nmi": "NMI", "ami": "AMI", "ari": "ARI", "accuracy": "accuracy", "purity": "purity"}
WORDS = {
    "linear_top1": "linear",
    "knn_top1": "kNN",
    "probe_top1": "probe",
    "probe_top5": "probe top-5",
    "finetune_top1": "fine-tuned",
    "finetune_top5": "fine-tuned top-5",
}
QUOTED = ("R@1", "probe_top1", "finetune_top1")  # beside which published numbers stand
SHOWN_INSTEAD = 3
CLUSTERINGS = ALGORITHMS | {BETWEEN: "k-means of each, with each other"}
CLUSTERED = re.compile(rf"({'|'.join(sorted(CLUSTERINGS, key=len, reverse=True))})_({'|'.join(SCORES)})")
SIZED = re.compile(r"finch_purity@(\d+)-(\d+)")


@dataclass(frozen=True)
class Sheet:
    """A table as a page shows it. `kinds`: "trained", "untrained", "chance" or "" of each row; the last rows that are
    "chance" stay where they are when the table is sorted. `name`: of its files."""

    name: str
    table: Table
    kinds: tuple[str, ...]

    @functools.cached_property
    def numeric(self) -> list[bool]:
        """Of each column, whether it holds numbers, which stand on the right."""
        return [self.table.numeric(column) for column in range(len(self.table.head))]

    @property
    def downloads(self) -> list[tuple[str, str]]:
        """(file name, data URI) of each form."""
        made = {".csv": self.table.csv(), ".md": self.table.markdown(), ".tex": self.table.latex()}
        return [
            (f"{self.name}{suffix}", f"data:{MIME[suffix]};base64,{base64.b64encode(text.encode()).decode()}")
            for suffix, text in made.items()
        ]


def write(sheets: Sequence[Sheet], folder: Path) -> None:
    """Every table in every form into a folder. Raises Refusal where it cannot be written."""
    for sheet in sheets:
        for suffix in SUFFIXES:
            sheet.table.write(folder / f"{sheet.name}{suffix}")


def plain(name: str, title: str, head: Sequence[str], rows: Sequence[Sequence[Cell]]) -> Sheet:
    return Sheet(name, Table(title, tuple(head), rows), ("",) * len(rows))


def of_results(protocol: str, records: Sequence[Record]) -> Sheet:
    """Retrieval and probes by one protocol, in percent, networks as rows; where there are published numbers of QUOTED,
    those too."""
    own = [record for record in records if record.protocol == protocol and not _of_clusters(record.metric)]
    metrics = list(dict.fromkeys(record.metric for record in own))
    ordered = sorted(metrics, key=lambda name: (not name.startswith("R@"), metrics.index(name)))
    quoted = [m for m in QUOTED if any(r.published is not None for r in own if r.metric == m)]
    rows: list[list[Cell]] = []
    kinds = []
    for (stream, stage, network), found in _grouped(own).items():
        values = {record.metric: 100 * record.value for record in found}
        published = {r.metric: 100 * r.published for r in found if r.published is not None}
        quotes = (published.get(name) for name in quoted)
        rows.append([stream, stage, network, *(values.get(name) for name in ordered), *quotes])
        kinds.append(network)
    chance = {record.metric: 100 * record.chance for record in own if record.chance is not None}
    rows.append(["any", None, "guessing", *(chance.get(name) for name in ordered), *(None for _ in quoted)])
    head = ["stream", "stage", "network", *(WORDS.get(name, name) for name in ordered)]
    head += [f"published {WORDS.get(name, name)}" for name in quoted]
    return Sheet(f"results-{protocol}", Table(f"Protocol {protocol}", tuple(head), rows), (*kinds, "chance"))


def of_clusters(protocol: str, records: Sequence[Record]) -> Sheet:
    """Agreement of clusters with classes, and of those of several streams with each other, by one protocol, in percent;
    a row for each network and algorithm."""
    rows: list[list[Cell]] = []
    kinds = []
    for (stream, stage, network), found in _grouped(r for r in records if r.protocol == protocol).items():
        scores: dict[str, dict[str, float]] = {}
        for record in found:
            if match := CLUSTERED.fullmatch(record.metric):
                scores.setdefault(match[1], {})[match[2]] = 100 * record.value
        for name, words in CLUSTERINGS.items():
            if name in scores:
                rows.append([stream, stage, network, words, *(scores[name].get(score) for score in SCORES)])
                kinds.append(network)
    head = ("stream", "stage", "network", "clusters", *SCORES.values())
    return Sheet(f"clusters-{protocol}", Table(f"Clusters, protocol {protocol}", head, rows), tuple(kinds))


def of_sizes(protocol: str, records: Sequence[Record]) -> Sheet:
    """Purity of FINCH's first partition by the size of clusters, in percent."""
    own = [record for record in records if record.protocol == protocol and SIZED.fullmatch(record.metric)]
    sizes = sorted({_size(record.metric) for record in own})
    rows: list[list[Cell]] = []
    kinds = []
    for (stream, stage, network), found in _grouped(own).items():
        values = {_size(record.metric): 100 * record.value for record in found}
        rows.append([stream, stage, network, *(values.get(size) for size in sizes)])
        kinds.append(network)
    head = ("stream", "stage", "network", *(f"{a} to {b}" if b > a else str(a) for a, b in sizes))
    return Sheet(f"cluster-sizes-{protocol}", Table(f"Purity by size, protocol {protocol}", head, rows), tuple(kinds))


def of_classes(
    stream: str, names: Sequence[str], trained: Sequence[ClassScore], untrained: Sequence[ClassScore]
) -> Sheet:
    """R@1 of each class after and before training, in percent, and what was found instead most often."""
    before = {score.label: score for score in untrained}
    rows: list[list[Cell]] = []
    for score in trained:
        was = before[score.label].recall
        instead = ", ".join(f"{names[label]} ({count})" for label, count in score.instead[:SHOWN_INSTEAD])
        change = f"{100 * (score.recall - was):+.1f}"
        rows.append([names[score.label], score.queries, 100 * score.recall, 100 * was, change, instead])
    head = ("class", "test videos", "R@1", "before training", "change", "found instead")
    return plain(f"classes-{stream}", f"Class by class, {stream}", head, rows)


def of_published(data: str, quotes: Sequence[Quoted]) -> Sheet:
    rows = [
        (
            f"{row.model} (by a user)" if row.by_users else row.model,
            row.pretraining, row.stream, WORDS.get(row.metric, row.metric), 100 * row.value, row.network, row.clip,
            row.protocol, row.splits, f"{row.certainty}: {row.source}", row.note or None,
        )
        for row in quotes
    ]  # fmt: skip
    head = (
        "model", "pre-trained on", "stream", "metric", "published %", "network", "clips", "protocol", "splits",
        "source", "note",
    )  # fmt: skip
    return plain("published", f"Published numbers on {data}", head, rows)


def _grouped(records: Iterable[Record]) -> Mapping[tuple[str, str, str], list[Record]]:
    groups: dict[tuple[str, str, str], list[Record]] = {}
    for record in records:
        groups.setdefault((record.stream, record.stage, record.network), []).append(record)
    return groups


def _of_clusters(metric: str) -> bool:
    return bool(CLUSTERED.fullmatch(metric) or SIZED.fullmatch(metric))


def _size(metric: str) -> tuple[int, int]:
    match = SIZED.fullmatch(metric)
    assert match, metric
    return int(match[1]), int(match[2])
