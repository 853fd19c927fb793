"""The commands of stage three; `python -m eval COMMAND --help` tells each one's options."""

from __future__ import annotations

import logging
from pathlib import Path

from eval import compare as comparing
from eval.evaluate import evaluate as run_evaluation
from eval.protocols import PROTOCOLS
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
    annotations: str = "",
) -> None:
    """Retrieval and linear probe of a run's networks, trained and untrained, then the report. Safe to repeat.

    Test videos look for training videos of their class, so the store needs labels and the splits train and test.
    Features are kept in RUN/features and computed again only when something that they depend on has changed.

    Args:
        run: Folder of the run.
        store: Folder of the store, or its URL.
        protocols: How features are taken: clean (all windows of every video), coclr (as the CoCLR paper's code does
            it); by default both; one alone as `--protocols [clean]`.
        reader: Executor of clip plans: opencv, dali or auto (dali with a CUDA device).
        threads: Of the reader; 0 takes one for each core, eight at most.
        annotations: The annotation set of the store whose labels and splits count; by default that of extraction, or
            the only one.
    """
    environment.require_one_faiss()
    _show_log()
    names = protocols or list(PROTOCOLS)
    errors.print(f"evaluating {run} on {store}, protocols {' and '.join(names)}")
    page, records = run_evaluation(run, open_store(store, annotations), names, reader, threads)
    console.print(f"evaluated {len(stages(run))} stages, {len(records)} measurements: {page}")


def report(run: Path, store: str, annotations: str = "") -> None:
    """Write the report of an evaluated run again, from its results and features.

    Args:
        run: Folder of the run.
        store: Folder of the store, or its URL.
        annotations: The annotation set that the run was evaluated with.
    """
    environment.require_one_faiss()
    console.print(f"wrote {write_report(run, open_store(store, annotations))}")


def compare(runs: list[Path], out: Path = Path("comparison.html"), protocol: str = "clean") -> None:
    """Evaluated runs side by side, as a page and as a Markdown table: recipes as lines, seeds as mean and spread.

    Runs whose recipes differ in nothing but the seed are one line. All must have been evaluated on one store.

    Example: `compare --runs '[runs/infonce-0,runs/infonce-1,runs/coclr-0,runs/coclr-1]'`.

    Args:
        runs: Folders of runs that were evaluated.
        out: The page to write; it needs no other file.
        protocol: Whose numbers are shown.
    """
    comparison = comparing.compare(runs, protocol)
    comparing.write_page(comparison, out)
    console.print(comparison.table())
    console.print(f"compared {len(runs)} runs of {len(comparison.recipes)} recipes: {out}")


def _show_log() -> None:
    """Messages of this package, such as why features are computed again, go to the terminal."""
    logger = logging.getLogger("eval")
    logger.setLevel(logging.INFO)
    logger.handlers = [_Log()]
    logger.propagate = False


class _Log(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        errors.print(self.format(record))
