"""Numbers of the papers, quoted as published, to stand beside ours and never among them.

One YAML a paper: its tables line by line, each number with where it was read, and each line with its own network,
clips, protocol and splits. How sure a number is follows from where it was read:

* seen: in the authors' repository or an abstract;
* reprinted: in somebody else's table;
* derived: from a difference that an abstract states;
* recalled: from memory. These are listed by `python -m eval tables` to be checked, and quoted nowhere else.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, field_validator, model_validator

from eval.runs import Stage
from train.settings import Settings, cannot_be, read

FOLDER = Path(__file__).parent
PAPERS = ("coclr", "vicc", "goca", "slic", "cocon")
UNSTATED = "not stated"
CERTAINTIES = ("seen", "reprinted", "derived", "recalled")
QUOTABLE = CERTAINTIES[:3]
COMPARABLE = CERTAINTIES[:2]  # what `counterpart` gives
SUPERVISED = "supervised"  # the method of networks that were trained on labels from random weights
METRIC = re.compile(r"R@[1-9]\d*|probe_top1|finetune_top1")

Certainty = Literal["seen", "reprinted", "derived", "recalled"]


class Source(Settings):
    """Where numbers were read, and how sure that makes them."""

    what: str
    certainty: Certainty


class Row(Settings):
    """A line of a table: one model on one stream, measured in several ways.

    values: "DATA METRIC" -> [percent, source, ...]; empty where the line is known and its numbers are not.
    clip: frames x height x width. splits: which of the data's splits were measured. by_users: by others than the
    authors. released: with a file that the authors published.
    """

    model: str
    method: str
    stream: str
    pretraining: str
    network: str
    clip: str
    protocol: str
    splits: str
    note: str = ""
    by_users: bool = False
    released: bool = False
    values: dict[str, list[float | str]] = Field(default_factory=dict)

    @field_validator("values")
    @classmethod
    def _percent_and_sources(cls, given: dict[str, list[float | str]]) -> dict[str, list[float | str]]:
        for name, (percent, *sources) in given.items():
            data, _, metric = name.partition(" ")
            if not data or not METRIC.fullmatch(metric):
                raise cannot_be(f"{name!r} is no number's name", "a data set and a metric, such as `ucf101 R@1`")
            if not isinstance(percent, float) or not 0 < percent < 100:
                raise cannot_be(f"{name}: {percent!r} is no percentage", "a number between 0 and 100, such as 53.3")
            if not sources or not all(isinstance(source, str) for source in sources):
                raise cannot_be(f"{name} has no source", "name where it was read: [53.3, mvcgc]")
        return given


class PaperTable(Settings):
    """A table: `defaults` hold what its rows have in common."""

    title: str
    rows: list[Row]

    @model_validator(mode="before")
    @classmethod
    def _with_defaults(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        rest = {key: value for key, value in given.items() if key != "defaults"}
        return rest | {"rows": [given.get("defaults", {}) | row for row in given["rows"]]}


class Paper(Settings):
    paper: str
    title: str
    arxiv: str
    sources: dict[str, Source]
    tables: list[PaperTable]

    @model_validator(mode="after")
    def _known_sources(self) -> Paper:
        for table in self.tables:
            for row in table.rows:
                for name, (_, *sources) in row.values.items():
                    for source in sources:
                        if _kind(str(source)) not in self.sources:
                            raise cannot_be(
                                f"{row.model}, {name}: {source!r} is no source",
                                f"list it among the sources, {list(self.sources)}",
                            )
        return self


def _kind(source: str) -> str:
    """ "issue 19" is of the source "issue"; a name that ends with a number of its own stays."""
    return re.sub(r"^issue \d+$", "issue", source)


@dataclass(frozen=True)
class Quoted:
    """One published number: `value` is a fraction 0..1; `pretraining` and `data` name data sets; `metric` is "R@k",
    "probe_top1" (a linear classifier, trained end to end behind the frozen network) or "finetune_top1"; the rest as in
    `Row`."""

    paper: str
    model: str
    method: str
    stream: str
    pretraining: str
    network: str
    clip: str
    protocol: str
    splits: str
    data: str
    metric: str
    value: float
    source: str
    certainty: str
    by_users: bool
    released: bool
    note: str


@dataclass(frozen=True)
class Origin:
    """What a network of ours is, in the words of the papers' tables; `pretraining` is "" where nobody said it."""

    method: str
    pretraining: str
    network: str
    clip: str


def load(path: Path) -> Paper:
    """A paper's tables. Raises UsageError naming file and key for what cannot be meant."""
    return read(Paper, yaml.safe_load(path.read_text(encoding="utf-8")), str(path))


@functools.cache
def papers() -> tuple[Paper, ...]:
    return tuple(load(FOLDER / f"{name}.yaml") for name in PAPERS)


@functools.cache
def numbers() -> tuple[Quoted, ...]:
    """All numbers of all papers, in the order of their tables."""
    return tuple(
        number for paper in papers() for table in paper.tables for row in table.rows for number in quoted(paper, row)
    )


def quoted(paper: Paper, row: Row) -> list[Quoted]:
    """The numbers of a row."""
    own = {name: getattr(row, name) for name in Row.model_fields if name != "values"}
    found = []
    for name, (percent, *sources) in row.values.items():
        data, _, metric = name.partition(" ")
        certainties = [paper.sources[_kind(str(source))].certainty for source in sources]
        surest = min(certainties, key=CERTAINTIES.index)
        value = round(float(percent) / 100, 4)
        listed = ", ".join(map(str, sources))
        found.append(
            Quoted(paper=paper.paper, data=data, metric=metric, value=value, source=listed, certainty=surest, **own)
        )
    return found


def about(data: str, first: str = "") -> list[Quoted]:
    """The quotable numbers on `data` ("ucf101", "hmdb51"), those of the method `first` at the head; empty for any other
    data set."""
    rows = [row for row in numbers() if row.data == data and row.certainty in QUOTABLE]
    return sorted(rows, key=lambda row: row.method != first)


def origin(stage: Stage, stream: str, pretraining: str) -> Origin:
    """Of a stage's network on a stream; an imported file's says what its authors trained, if that is known.

    pretraining: the data set that a stage of ours was trained on.
    """
    facts = stage.metadata
    imported = facts.get("published")
    clips = facts["clips"]
    size = "x".join(map(str, (clips["length"], *clips["size"])))
    network = facts.get("backbones", {}).get(stream, UNSTATED)  # older checkpoints do not say it
    if imported:  # what was fine-tuned is no longer what the papers retrieve by
        return Origin("" if imported.get("finetuned") else imported["method"], imported["pretraining"], network, size)
    return Origin(facts["method"], pretraining, network, size)


def classifier_origin(stage: Stage, stream: str, data: str) -> Origin:
    """The same of a network that ends in a classifier: of what it was begun with; one from random weights is
    `SUPERVISED`.

    data: the data set that the classifier of a stage of ours was trained on; "" where that is not the tested one, and
    nothing is its counterpart.
    """
    facts, made = stage.metadata, origin(stage, stream, data)
    if "published" in facts:
        return dataclasses.replace(made, method=facts["published"]["method"])
    begun = facts.get("begun")  # older checkpoints do not say it
    if not data or begun is None:
        return dataclasses.replace(made, method="")
    if not begun:
        return dataclasses.replace(made, method=SUPERVISED)
    return dataclasses.replace(made, **begun["network"])


def counterpart(origin: Origin, stream: str, data: str, metric: str, protocol: str) -> Quoted | None:
    """The first listed number of the authors of exactly this method, pre-training, network, clip, stream, data set,
    metric and protocol, that was seen or reprinted."""
    wanted = (origin.method, origin.pretraining, origin.network, origin.clip, stream, data, metric, protocol)
    for row in numbers():
        found = (row.method, row.pretraining, row.network, row.clip, row.stream, row.data, row.metric, row.protocol)
        if found == wanted and not row.by_users and row.certainty in COMPARABLE:
            return row
    return None
