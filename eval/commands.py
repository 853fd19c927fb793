"""The commands of stage three; `python -m eval COMMAND --help` tells each one's options."""

from __future__ import annotations

import logging
from pathlib import Path

from eval import compare as comparing
from eval.evaluate import add_means
from eval.evaluate import evaluate as run_evaluation
from eval.published import tables as published_tables
from eval.report import write_report
from eval.runs import stages
from pipeline import environment
from pipeline.store import open_store
from pipeline.terminal import Terminal

console = Terminal()
errors = Terminal(stderr=True)


def evaluate(
    run: Path,
    store: str,
    protocols: list[str] | None = None,
    reader: str = "auto",
    threads: int = 0,
    annotations: list[str] | str = "",
    half: bool = False,
) -> None:
    """Retrieval and linear probe of a run's networks, trained and untrained, then the report. Safe to repeat.

    Test videos look for training videos of their class, so the store needs labels and the splits train and test.
    Features are kept in RUN/features and computed again only when something that they depend on has changed.

    Args:
        run: Folder of the run.
        store: Folder of the store, or its URL.
        protocols: How videos are looked at and compared: clean (all windows of every video), or as a paper's code does
            it: coclr, vicc, goca, slic, cocon. By default clean and the one of the run's method; others as
            `--protocols [clean,slic]`.
        reader: Executor of clip plans: opencv, dali or auto (dali with a CUDA device).
        threads: Of the reader; 0 takes one for each core, eight at most.
        annotations: The annotation set of the store whose labels and splits count; by default that of extraction, or
            the only one. Several, as `--annotations [split1,split2,split3]`: each in turn, and their mean.
        half: Keep features as float16, in half the space.
    """
    environment.require_one_faiss()
    _show_log()
    names = [annotations] if isinstance(annotations, str) else list(dict.fromkeys(annotations)) or [""]
    for name in names:
        opened = open_store(store, name)
        errors.print(f"evaluating {run} on {store}, annotation set {opened.annotated.name}")
        page, records = run_evaluation(run, opened, protocols, reader, threads, half)
        console.print(f"evaluated {len(stages(run))} stages, {len(records)} measurements: {page}")
    if len(names) > 1:
        for mean in add_means(run, opened, names):
            if mean.metric in ("R@1", "linear_top1"):
                who = f"{mean.stage}, {mean.stream}, {mean.network}, protocol {mean.protocol}"
                console.print(f"{who}: {mean.metric} {100 * mean.value:.1f} %, {mean.set_name}")


def report(run: Path, store: str, annotations: str = "") -> None:
    """Write the report of an evaluated run again, from its results and features.

    Args:
        run: Folder of the run.
        store: Folder of the store, or its URL.
        annotations: The annotation set that the run was evaluated with.
    """
    environment.require_one_faiss()
    console.print(f"wrote {write_report(run, open_store(store, annotations))}")


def compare(
    runs: list[Path],
    out: Path = Path("comparison.html"),
    protocol: str = "clean",
    data: str = "",
    annotations: str = "",
) -> None:
    """Evaluated runs side by side, as a page and as a Markdown table: recipes as lines, seeds as mean and spread.

    Runs whose recipes differ in nothing but the seed are one line. All must have been evaluated on one store.

    Example: `compare --runs '[runs/infonce-0,runs/infonce-1,runs/coclr-0,runs/coclr-1]'`.

    Args:
        runs: Folders of runs that were evaluated.
        out: The page to write; it needs no other file.
        protocol: Whose numbers are shown.
        data: Name of the store, where runs were evaluated on several.
        annotations: Name of the annotation set, where runs were evaluated by several; by default their mean.
    """
    comparison = comparing.compare(runs, protocol, data, annotations)
    comparing.write_page(comparison, out)
    console.print(comparison.table())
    console.print(f"compared {len(runs)} runs of {len(comparison.recipes)} recipes: {out}")


def tables(runs: list[Path] | None = None, paper: str = "", out: Path | None = None) -> None:
    """Every table of the five papers, with the command that makes each line and what stands in its place here.

    Numbers are in percent, as published, with how sure they are: seen, reprinted, derived, or recalled, which nobody
    has checked. In a number's place stands what evaluation measured of `runs`, "not run", or why it cannot be.

    Args:
        runs: Folders of runs that were evaluated.
        paper: One paper alone: coclr, vicc, goca, slic or cocon.
        out: Also written to this file: .csv, .md or .tex.
    """
    lines = published_tables.listing(runs or [], paper)
    console.print(published_tables.text(lines))
    if out:
        published_tables.as_table(lines).write(out)
    numbers = [line for line in lines if line.number]
    measured = sum(line.value is not None for line in numbers)
    console.print(f"\n{len(numbers)} numbers, {measured} of them measured here" + (f": {out}" if out else ""))


def _show_log() -> None:
    """Messages of this package, such as why features are computed again, go to the terminal."""
    logger = logging.getLogger("eval")
    logger.setLevel(logging.INFO)
    logger.handlers = [_Log()]
    logger.propagate = False


class _Log(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        errors.print(self.format(record))
