"""Runs side by side: runs of one recipe with several seeds become one line, with mean and spread; runs that differ in
nothing but the annotation set, as those of the three splits of UCF101, become their mean first."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from eval import changes, compared_runs, streams
from eval.bank import FeatureBank
from eval.charts import Bar
from eval.compared_runs import Run
from eval.protocols import PROTOCOLS
from eval.report import render
from eval.report.pictures import drawn_map
from eval.report.sheets import QUOTED, WORDS, Sheet
from eval.report.training import curves
from eval.results import MEAN
from eval.retrieval import KS
from eval.runs import bank_path, stages
from eval.table import Cell, Table
from pipeline import storage
from pipeline.errors import refuse_unknown
from pipeline.store import VideoStore

METRICS = ("R@1", "linear_top1", "probe_top1", "finetune_top1", *(f"R@{k}" for k in KS if k > 1))


@dataclass(frozen=True)
class Line:
    """One network of one recipe: `values` by metric, a fraction for each of the `seeds`; `published` numbers that stand
    beside them."""

    stream: str
    recipe: str
    stage: str
    network: str
    seeds: tuple[int | str, ...]
    runs: tuple[Path, ...]
    values: dict[str, tuple[float, ...]]
    published: dict[str, float]

    def mean(self, metric: str) -> float:
        return statistics.fmean(self.values[metric])

    def spread(self, metric: str) -> float | None:
        """Standard deviation over the seeds, with n - 1; None of one."""
        values = self.values[metric]
        return statistics.stdev(values) if len(values) > 1 else None

    def words(self, metric: str) -> str:
        """Mean and spread in percent; a dash for what was not measured."""
        if metric not in self.values:
            return "–"
        spread = self.spread(metric)
        return f"{100 * self.mean(metric):.1f}" + (f" ± {100 * spread:.1f}" if spread is not None else "")


@dataclass(frozen=True)
class Comparison:
    """Lines of a stream stand together, untrained networks first, then by mean R@1, the best first; `chance` by
    metric; recipes by name, without seed. `over`: annotation sets, with runs of their own each, whose mean is compared.
    """

    data: str
    over: tuple[str, ...]
    protocol: str
    lines: list[Line]
    chance: dict[str, float]
    recipes: dict[str, dict[str, Any]]

    @property
    def tested(self) -> str:
        return self.data + (f", mean over {', '.join(self.over)}" if self.over else "")

    @property
    def metrics(self) -> list[str]:
        """Those of METRICS that any line has."""
        return [metric for metric in METRICS if any(metric in line.values for line in self.lines)]

    def sheet(self) -> Sheet:
        """All figures, in percent, mean and spread over the seeds, and published ones."""
        rows: list[list[Cell]] = []
        quoted = [metric for metric in QUOTED if any(metric in line.published for line in self.lines)]
        for line in self.lines:
            words = (line.words(metric) if metric in line.values else None for metric in self.metrics)
            quotes = (100 * line.published[metric] if metric in line.published else None for metric in quoted)
            own = [line.stream, line.recipe, line.stage, line.network, " ".join(map(str, line.seeds))]
            rows.append([*own, *words, *quotes])
        guesses = (self.chance.get(metric) for metric in self.metrics)
        guessing = (None if guess is None else 100 * guess for guess in guesses)
        rows.append(["any", None, None, "guessing", None, *guessing, *(None for _ in quoted)])
        names = [WORDS.get(metric, metric) for metric in self.metrics]
        names += [f"published {WORDS.get(metric, metric)}" for metric in quoted]
        head = ("stream", "recipe", "stage", "network", "seeds", *names)
        kinds = (*(line.network for line in self.lines), "chance")
        return Sheet("comparison", Table(f"Runs on {self.tested}, protocol {self.protocol}", head, rows), kinds)

    def by_class(self, store: VideoStore) -> dict[str, changes.Classwise]:
        """Of each stream what the trained network of each recipe's last stage finds class by class, over all seeds; of
        a single recipe, of each seed. Raises Refusal where features are not there."""
        made = {}
        for stream, last in self.last_stages().items():
            columns = {name: tuple((run, line.stage) for run in line.runs) for name, line in last.items()}
            if len(last) == 1:
                (line,) = last.values()
                columns = {
                    f"seed {seed}": ((run, line.stage),) for seed, run in zip(line.seeds, line.runs, strict=True)
                }
            made[stream] = changes.by_class(columns, stream, self.protocol, store)
        return made

    def last_stages(self) -> dict[str, dict[str, Line]]:
        """Stream -> recipe -> the trained network of its last stage on it that retrieves; recipes in one order of all
        streams, so that what changed is told in one direction."""
        found: dict[str, dict[str, Line]] = {}
        for line in self.lines:
            order = [stage["name"] for stage in self.recipes[line.recipe]["stages"]]
            fused = line.stream in streams.FUSED or line.stage not in order  # which have no features of their own
            if line.network == "trained" and not fused and "R@1" in line.values:
                held = found.setdefault(line.stream, {}).setdefault(line.recipe, line)
                if order.index(line.stage) > order.index(held.stage):
                    found[line.stream][line.recipe] = line
        return {stream: {name: held[name] for name in self.recipes if name in held} for stream, held in found.items()}

    def maps(self, store: VideoStore) -> dict[str, dict[str, Any]]:
        """Recipe -> the `map` of its first seed's features, by the `stream` of the highest R@1; none of too few."""
        best: dict[str, Line] = {}
        for recipes in self.last_stages().values():
            for name, line in recipes.items():
                best[name] = max(best.get(name, line), line, key=lambda line: line.mean("R@1"))
        made: dict[str, dict[str, Any]] = {}
        for name, line in best.items():
            path = bank_path(line.runs[0], store, line.stage, "trained", self.protocol, line.stream)
            drawn = drawn_map(FeatureBank.load(path), store, "test", PROTOCOLS[self.protocol].centre)
            made |= {name: {"map": drawn, "stream": line.stream}} if drawn else {}
        return made

    def runs_of(self) -> dict[str, list[Path]]:
        """Recipe -> its runs."""
        return {
            name: list(dict.fromkeys(run for line in self.lines if line.recipe == name for run in line.runs))
            for name in self.recipes
        }

    def table(self) -> str:
        """R@1 and what classifiers get right as a Markdown table, in percent, with R@1 of each seed."""
        classified = [metric for metric in self.metrics if not metric.startswith("R@")]
        words = (WORDS.get(metric, metric) for metric in classified)
        head = ("stream", "recipe", "stage", "network", "seeds", "R@1", "R@1 of each", *words)
        rows = [
            (line.stream, line.recipe, line.stage, line.network, " ".join(map(str, line.seeds)), line.words("R@1"),
             " ".join(f"{100 * value:.1f}" for value in line.values.get("R@1", ())), *map(line.words, classified))
            for line in self.lines
        ]  # fmt: skip
        return Table(f"Runs on {self.tested}", head, rows).markdown()


def compare(runs: Sequence[Path], protocol: str = "clean", data: str = "", annotations: str = "") -> Comparison:
    """Read the results of evaluated runs. Recipes that differ in nothing but the seed are one.

    data, annotations: name of the store and of its annotation set whose results are compared, where runs have several;
    by default the mean over sets, if there is one.

    Runs of one recipe and seed that were each evaluated by another annotation set, such as a fine-tuning on each split
    of UCF101, are one: the mean. Untrained networks that measured the same, as those of one seed and architecture do,
    are listed once.

    Raises:
        UsageError: an unknown protocol.
        Refusal: a run that was not evaluated by this protocol, one recipe and seed twice, or results on other videos.
    """
    if protocol not in PROTOCOLS:
        refuse_unknown("protocol", protocol, PROTOCOLS)
    found = compared_runs.read(runs, protocol, data, annotations)
    names = compared_runs.names(found)
    lines: list[Line] = []
    for recipe, name in names.items():
        group = sorted(
            (run for run in found if run.recipe == recipe),
            key=lambda run: [int(seed) for seed in str(run.seed).split("/")],
        )
        lines += _without_repeats(_lines(name, group), lines)
    chance = {metric: value for run in found for metric, value in run.chance().items()}
    order = streams.in_order(line.stream for line in lines)
    lines.sort(
        key=lambda line: (
            order.index(line.stream),
            line.network == "trained",
            -line.mean("R@1") if "R@1" in line.values else 0.0,
        )
    )
    data, told_by = found[0].test
    over = tuple(told_by.removeprefix(MEAN).split(", ")) if len(found[0].paths) > 1 else ()
    return Comparison(data, over, protocol, lines, chance, {n: yaml.safe_load(r) for r, n in names.items()})


def write_page(comparison: Comparison, out: Path, store: VideoStore | None = None) -> None:
    """Write a comparison as one HTML page that needs no other file; with the store, class by class, with maps of the
    features and curves of training, too."""
    several = len(comparison.recipes) > 1
    chart: dict[str, list[Bar]] = {}
    for stream, lines in itertools.groupby(comparison.lines, key=lambda line: line.stream):
        chart[stream] = [
            Bar(
                _bar_name(line, several),
                line.network,
                line.mean("R@1"),
                line.spread("R@1"),
                line.values["R@1"] if len(line.seeds) > 1 else (),
            )
            for line in lines
            if "R@1" in line.values
        ]
        if "R@1" in comparison.chance:
            chart[stream].append(Bar("guessing", "chance", comparison.chance["R@1"], None))
    runs_of = comparison.runs_of()
    recipes = {
        name: yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True) for name, recipe in comparison.recipes.items()
    }
    content = {
        "comparison": comparison,
        "chart": chart,
        "sheet_of_all": comparison.sheet(),
        "by_class": comparison.by_class(store) if store else {},
        "maps": comparison.maps(store) if store else {},
        "curves": {name: curves([stages(run) for run in runs]) for name, runs in runs_of.items()} if store else {},
        "runs_of": runs_of,
        "stream_names": {line.stream: streams.in_words(line.stream) for line in comparison.lines},
        "recipes": recipes,
        "differences": changes.of_recipes(comparison.recipes),
        "protocol_words": PROTOCOLS[comparison.protocol].words,
    }
    with storage.writing("the comparison", out):
        storage.write_atomically(out, render("comparison.html", content).encode())


def _bar_name(line: Line, several: bool) -> str:
    name = f"{line.recipe}: {line.stage}" if several else line.stage
    return name if line.network == "trained" else f"{name}, {line.network}"


def _lines(name: str, group: list[Run]) -> Iterator[Line]:
    """One for each network that any of the runs has measured, in the order of their results."""
    networks = dict.fromkeys((r.stream, r.stage, r.network) for run in group for r in run.records)
    for stream, stage, network in networks:
        measured = {
            run.seed: {
                r.metric: r.value for r in run.records if (r.stream, r.stage, r.network) == (stream, stage, network)
            }
            for run in group
        }
        having = {seed: values for seed, values in measured.items() if values}
        values = {
            metric: tuple(each[metric] for each in having.values())
            for metric in METRICS
            if all(metric in each for each in having.values())
        }
        paths = {run.seed: run.paths for run in group}
        own = (r for run in group for r in run.records if (r.stream, r.stage, r.network) == (stream, stage, network))
        published = {r.metric: r.published for r in own if r.published is not None}
        made_by = tuple(path for seed in having for path in paths[seed])
        yield Line(stream, name, stage, network, tuple(having), made_by, values, published)


def _without_repeats(lines: Iterable[Line], earlier: list[Line]) -> list[Line]:
    kept: list[Line] = []
    for line in lines:
        same = [
            other
            for other in (*earlier, *kept)
            if (other.stream, other.network, other.seeds, other.values)
            == (line.stream, "untrained", line.seeds, line.values)
        ]
        if not same:
            kept.append(line)
    return kept
