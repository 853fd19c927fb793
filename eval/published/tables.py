"""Every table of the five papers: the command that makes each number, and what stands in its place here."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from eval import published, results
from eval.protocols import PROTOCOLS
from eval.published import SUPERVISED, UNSTATED, Paper, PaperTable, Quoted, Row
from eval.results import Record
from eval.table import Table
from pipeline import called
from pipeline.errors import UsageError, refuse_unknown
from train import recipe as recipes
from train.__main__ import COMMANDS

OF_THE_PAPERS = frozenset({"coclr", "infonce", "ubernce", "cmc", "vicc", "goca", "slic", "dpc", "cocon", SUPERVISED})
TRAINED_BY = {"probe_top1": "probe", "finetune_top1": "finetune"}  # the command of `train` that a metric needs
OF_COCLR = frozenset({"coclr", "infonce", "ubernce", "cmc"})  # whose classifiers are trained by CoCLR's recipes
WORDS = {"probe_top1": "linear", "finetune_top1": "fine-tuned"}
KINDS = ("measured", "not run", "cannot be run")
NOT_SEEN = "the values could not be seen"


@dataclass(frozen=True)
class Line:
    """One number of a table, or a row without any (`number` None): `here` is what stands in its place and begins with
    one of KINDS, `value` where that was measured."""

    paper: Paper
    table: PaperTable
    row: Row
    number: Quoted | None
    commands: tuple[str, ...]
    here: str
    value: float | None = None

    @property
    def kind(self) -> str:
        return next(kind for kind in KINDS if self.here.startswith(kind))


def listing(runs: Sequence[Path] = (), paper: str = "") -> list[Line]:
    """Every number of the papers' tables, in their order.

    runs: evaluated ones, whose results are looked at for numbers that stand for these. paper: one of PAPERS alone.

    Raises:
        UsageError: an unknown paper. Refusal: a run that was not evaluated.
    """
    if paper and paper not in published.PAPERS:
        refuse_unknown("paper", paper, published.PAPERS)
    measured = [(run, record) for run in runs for record in results.read(run / "results.json")]
    chosen = [published.papers()[published.PAPERS.index(paper)]] if paper else published.papers()
    return [line for each in chosen for table in each.tables for line in _lines(each, table, measured)]


def as_table(lines: Sequence[Line]) -> Table:
    """One row for each number, in percent."""
    head = (
        "paper table model method stream pre-trained_on network clip protocol splits data metric published certainty"
        " source here measured note commands"
    )
    rows = []
    for line in lines:
        number = line.number
        own = (line.paper.paper, line.table.title, line.row.model, line.row.method, line.row.stream,
               line.row.pretraining, line.row.network, line.row.clip, line.row.protocol, line.row.splits)  # fmt: skip
        said = (
            (number.data, number.metric, round(100 * number.value, 2), number.certainty, number.source)
            if number
            else (None,) * 5
        )
        rows.append(
            (
                *own,
                *said,
                line.here,
                None if line.value is None else round(100 * line.value, 2),
                line.row.note or None,
                " && ".join(line.commands),
            )
        )
    return Table("Tables of the five papers", tuple(name.replace("_", " ") for name in head.split()), rows)


def text(lines: Sequence[Line]) -> str:
    """For a terminal: papers, tables, rows, and below each row its numbers and commands."""
    shown: list[str] = []
    paper = table = row = None
    for place, line in enumerate(lines):
        if line.paper is not paper:
            paper = line.paper
            shown.append(f"\n{paper.paper}: {paper.title}, arXiv {paper.arxiv}")
        if line.table is not table:
            table = line.table
            shown.append(f"\n  {table.title}")
        if line.row is not row:
            row = line.row
            about = [
                row.stream,
                f"pre-trained on {row.pretraining}",
                f"{row.network} {row.clip}",
                f"splits {row.splits}",
            ]
            shown.append(f"    {row.model}: {', '.join(about)}{f' ({row.note})' if row.note else ''}")
        if line.number:
            said = f"{line.number.data} {WORDS.get(line.number.metric, line.number.metric)}".ljust(18)
            said += f"{100 * line.number.value:6.2f}  {line.number.certainty} ({line.number.source})"
            shown.append(f"      {said.ljust(56)}  here: {line.here}")
        else:
            shown.append(f"      {NOT_SEEN}; here: {line.here}")
        following = lines[place + 1].row if place + 1 < len(lines) else None
        if following is not row:
            commands = dict.fromkeys(command for each in lines if each.row is row for command in each.commands)
            shown += [f"        {command}" for command in commands]
    return "\n".join(shown).lstrip("\n")


def _lines(paper: Paper, table: PaperTable, measured: Sequence[tuple[Path, Record]]) -> Iterator[Line]:
    for row in table.rows:
        found: list[Quoted | None] = [*published.quoted(paper, row)]
        for number in found or [None]:
            reason = _cannot(row, number.metric if number else "")
            commands = () if reason else _commands(row, number)
            hit = next(((run, record) for run, record in measured if number and _stands_for(record, number)), None)
            if hit:
                run, record = hit
                here = f"measured, {100 * record.value:.1f} ({run})"
                yield Line(paper, table, row, number, commands, here, record.value)
            else:
                yield Line(paper, table, row, number, commands, f"cannot be run: {reason}" if reason else "not run")


def _stands_for(record: Record, number: Quoted) -> bool:
    """Evaluation itself tells which published number a record is the counterpart of."""
    wanted = (number.metric, number.data, number.stream, number.protocol, number.value)
    return (record.metric, record.data, record.stream, record.protocol, record.published) == wanted


def _never(row: Row) -> str:
    if row.method not in OF_THE_PAPERS:
        return "another paper's method, quoted for comparison"
    return ""


def _cannot(row: Row, metric: str) -> str:
    """Why a row cannot be made with what is here; "" if it can."""
    if reason := _never(row):
        return reason
    kind = "finetune" if row.method == SUPERVISED else TRAINED_BY.get(metric)
    if kind and kind not in COMMANDS:
        return f"there is no command {kind}"
    if kind and not (recipes.FOLDER / kind / f"{_classifier(row)}.yaml").is_file():
        return f"train/recipes/{kind} has none of {_classifier(row)}"
    if metric.startswith("R@") and row.protocol not in PROTOCOLS:
        return f"there is no protocol {row.protocol}"
    if row.released:
        return ""
    recipe = _recipe(*_place(row))
    if recipe is None:
        return f"train/recipes/{_place(row)[0]} has none of {_place(row)[1]}"
    if row.clip != UNSTATED and int(row.clip.split("x")[0]) != recipe.clips.length:
        return f"the recipe's clips have {recipe.clips.length} frames"
    if row.method == SUPERVISED and row.network != UNSTATED and (own := _network(recipe)) != row.network:
        return f"the recipe's network is {own}"
    return ""


def _place(row: Row) -> tuple[str, str]:
    """Folder and name of the recipe that trains a row's network."""
    if row.method == SUPERVISED:
        return "finetune", _classifier(row)
    own = f"{row.pretraining}-{row.network}"
    return own if (recipes.FOLDER / own / f"{row.method}.yaml").is_file() else row.pretraining, row.method


@functools.cache
def _recipe(folder: str, name: str) -> recipes.Recipe | None:
    try:
        return recipes.load(recipes.find(folder, name))
    except UsageError:
        return None


def _network(recipe: recipes.Recipe) -> str:
    return " and ".join(sorted({each.backbone for each in recipe.stages[-1].settings.networks.values()}))


def _set(row: Row) -> list[str]:
    """What of the recipe is set otherwise for a row's network and size of frames."""
    recipe = _recipe(*_place(row))
    if recipe is None:
        return []
    changes = []
    if row.network not in (UNSTATED, _network(recipe)):
        changes.append(f"stages.*.settings.backbone={row.network}")
    size = tuple(map(int, row.clip.split("x")[1:])) if row.clip != UNSTATED else recipe.clips.size
    if size != tuple(recipe.clips.size):
        changes.append(f"clips.size=[{size[0]},{size[1]}]")
    return changes


def _classifier(row: Row) -> str:
    """The recipe of a row's classifier."""
    if row.method == SUPERVISED:
        return "scratch"
    return "coclr" if row.method in OF_COCLR else row.method


def _commands(row: Row, number: Quoted | None) -> tuple[str, ...]:
    data = number.data if number else row.pretraining
    tested = {"store": f"stores/{data}", "protocols": f"[{row.protocol}]"}
    if row.method == SUPERVISED:
        run = f"runs/scratch-{data}"
        return (
            called.command("finetune", recipe=_classifier(row), store=f"stores/{data}", out=run),
            called.command("evaluate", run=run, **tested),
        )
    folder, changes = _place(row)[0], _set(row)
    run = f"runs/{row.method}-{folder}" + (f"-{row.network}" if changes else "")
    place = {"store": f"stores/{row.pretraining}", "run": run, **({"set": changes} if changes else {})}
    begin = called.command("pretrain", method=row.method, recipe=folder, **place)
    if row.released:
        run = f"runs/released-{row.method}-{row.pretraining}"
        begin = called.command("import", **{row.stream: "FILE", "pretraining": row.pretraining, "run": run})
    if not number:
        return (begin,)
    if kind := TRAINED_BY.get(number.metric):
        into = f"{run}-{kind}-{data}"
        trained = called.command(kind, recipe=_classifier(row), run=run, store=f"stores/{data}", out=into)
        return begin, trained, called.command("evaluate", run=into, **tested)
    return begin, called.command("evaluate", run=run, **tested)
