"""The commands of stage three; `python -m eval COMMAND --help` tells each one's options."""

from __future__ import annotations

import dataclasses
import logging
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from eval import classification, embed
from eval import compare as comparing
from eval import search as searching
from eval.evaluate import add_means
from eval.evaluate import evaluate as run_evaluation
from eval.protocols import PROTOCOLS
from eval.published import tables as published_tables
from eval.report import verdicts, write_report
from eval.runs import stages
from eval.splits import judged
from pipeline import called, environment, importers
from pipeline.arguments import (
    CountOrAll,
    Input,
    Inputs,
    Name,
    Names,
    OutputFile,
    OutputFolder,
    Positive,
    Similarity,
    StorePlace,
    StorePlaceOrNone,
    Text,
    Weights,
)
from pipeline.commands.following import following
from pipeline.commands.stores import QUARANTINE_EXIT_CODE, print_summary
from pipeline.errors import UsageError, counted, named, refuse_unknown
from pipeline.manifest import SPLITS, Manifest, Video
from pipeline.store import VideoStore, open_store
from pipeline.terminal import Terminal
from train.provenance import data_of

console = Terminal()
errors = Terminal(stderr=True)
SHOWN_PAIRS = 50


def evaluate(
    run: Input,
    store: StorePlace,
    protocols: Names | None = None,
    reader: Name = "auto",
    threads: CountOrAll = 0,
    annotations: list[Text] | Text = "",
    half: bool = False,
) -> None:
    """All that applies to a run, then the report: retrieval and linear probe of its networks, trained and untrained,
    and the test of its classifiers. Safe to repeat. What is left out is told, and why.

    Test videos look for training videos of their class. Without the split test a part of the others is held out, whole
    recordings; without labels there are features, neighbours and clusters.
    Features are kept in RUN/features and computed again only when something that they depend on has changed.

    Args:
        run: Folder of the run.
        store: Folder of the store, or its URL.
        protocols: How videos are looked at and compared: clean (all windows of every video), or as a paper's code does
            it: coclr, vicc, goca, slic, cocon. By default clean and the one of the run's method; others as
            `--protocols [clean,slic]`.
        reader: Executor of clip plans: opencv, dali or auto (opencv; with a CUDA device the faster one).
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
        count = f"{counted(len(stages(run)), 'stage')}, {counted(len(records), 'measurement')}"
        console.print(f"evaluated {count}: {page}")
        if tested := tested_videos(judged(opened)[0]):
            clean = [record for record in records if record.protocol == "clean"]
            made = verdicts.verdicts(clean, [stage.name for stage in stages(run)], tested)
            for line in verdicts.sentences(made):
                console.print(f"verdict: {line}")
    if len(names) > 1:
        for mean in add_means(run, opened, names):
            if mean.metric in ("R@1", "linear_top1"):
                who = f"{mean.stage}, {mean.stream}, {mean.network}, protocol {mean.protocol}"
                console.print(f"{who}: {mean.metric} {100 * mean.value:.1f} %, {mean.set_name}")
    tell_of_next(run, store)


def tell_of_next(run: Path, store: str) -> None:
    """What to do with a run that is evaluated."""
    errors.print(following("search", query="/path/to/clip.mp4", run=str(run), store=store))


def tested_videos(store: VideoStore) -> int:
    """Test videos with a label."""
    said = store.annotated
    return int(np.count_nonzero((said.labels >= 0) & (said.splits == SPLITS.index("test"))))


def fuse(
    inputs: Names,
    store: StorePlace,
    weights: Weights | None = None,
    protocol: Name = "clean",
    out: OutputFile | None = None,
    annotations: Text = "",
) -> None:
    """Class probabilities of several streams, runs or files as one, video by video, by their ids; what they are worth.

    A video that one of them lacks is an error. With one input and `out`, its probabilities are written as CoCLR's test
    writes them.

    Example: `fuse --inputs '[runs/rgb-finetune,runs/flow-finetune,others-prob-ten.json]' --weights '[2,2,1]' --store
    stores/ucf101 --protocol coclr`.

    Args:
        inputs: Evaluated runs that end in classifiers, RUN or RUN:STREAM where it has several; or JSON files of class
            probabilities as CoCLR and ViCC write them, in the store's class order.
        store: Folder of the store, or its URL, that all were tested on.
        weights: A number >= 0 for each input; by default all count alike.
        protocol: By which the runs were evaluated.
        out: JSON file to write the result to, in the layout of CoCLR's test.
        annotations: The annotation set that the runs were evaluated with.
    """
    if protocol not in PROTOCOLS:
        refuse_unknown("protocol", protocol, PROTOCOLS)
    opened, _ = judged(open_store(store, annotations))
    parts = [_probabilities(given, opened, protocol) for given in inputs]
    whole = classification.fused(parts, weights)
    labels = {video: opened.info(video).label for video in whole.video_ids if opened.info(video).label}
    if labels:
        shares = ", ".join(f"top-{k} {100 * share:.1f} %" for k, share in whole.accuracy(labels).items())
        console.print(f"{shares} of {len(labels)} videos, {len(inputs)} inputs, protocol {protocol}")
    if out is not None:
        classification.write_json(whole, out)
        console.print(f"wrote class probabilities of {counted(len(whole.video_ids), 'video')}: {out}")


def _probabilities(given: str, store: VideoStore, protocol: str) -> classification.Probabilities:
    if given.endswith(".json"):
        return classification.read_json(Path(given), store)
    run, stream = Path(given), ""
    if not run.is_dir() and ":" in given:
        name, _, stream = given.rpartition(":")
        run = Path(name)
    return classification.of_run(run, stages(run), store, protocol, stream)


def report(
    run: Input | None = None,
    store: StorePlaceOrNone = "",
    annotations: Text = "",
    runs: Inputs | None = None,
    out: OutputFile = Path("comparison.html"),
    protocol: Name = "clean",
) -> None:
    """Write the report of an evaluated run again, from its results and features; or of several runs what `compare`
    does, and class by class what changed between them.

    The tables of a run lie in RUN/tables as CSV, Markdown and LaTeX, too.

    Args:
        run: Folder of the run.
        store: Folder of the store, or its URL.
        annotations: The annotation set that the run was evaluated with.
        runs: Instead of one, folders of several runs.
        out: The page to write of several runs.
        protocol: Whose numbers are shown of several runs.
    """
    if bool(run) == bool(runs) or not store:
        remedy = f"{called.option('run')} {called.option('store')}, or {called.option('runs')} {called.option('store')}"
        raise UsageError("a report is of one run or of several, and of a store", remedy=remedy)
    environment.require_one_faiss()
    opened, _ = judged(open_store(store, annotations))
    if runs:
        comparison = comparing.compare(runs, protocol, data_of(opened), opened.annotated.name)
        comparing.write_page(comparison, out, opened)
        console.print(f"{_compared(runs, comparison)}: {out}")
        return
    assert run is not None
    console.print(f"wrote {write_report(run, opened)}")


def compare(
    runs: Inputs,
    out: OutputFile = Path("comparison.html"),
    protocol: Name = "clean",
    data: Text = "",
    annotations: Text = "",
) -> None:
    """Evaluated runs side by side, as a page and as a Markdown table: recipes as lines, seeds as mean and spread.

    Runs whose recipes differ in nothing but the seed are one line. All must have been evaluated on one store. Runs of
    one recipe and seed by several annotation sets, as fine-tuning on each split of UCF101, count as one: their mean.

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
    console.print(f"{_compared(runs, comparison)} on {comparison.tested}: {out}")


def _compared(runs: Sequence[Path], comparison: comparing.Comparison) -> str:
    return f"compared {counted(len(runs), 'run')} of {counted(len(comparison.recipes), 'recipe')}"


def embed_folder(
    videos: Input,
    run: Input,
    out: OutputFolder,
    store: StorePlaceOrNone = "",
    manifest: Input | None = None,
    workers: CountOrAll = 0,
    reader: Name = "auto",
    threads: CountOrAll = 0,
) -> int:
    """Features of a folder of new videos, in one go: they are extracted into OUT/store and shown to a run's networks.

    Writes OUT/features.parquet, one row a video, and OUT/<stream>.h5. Safe to repeat: only new videos are extracted,
    features are computed anew only if something that they depend on has changed. Labels are not needed. A broken video
    is left out, with its reason in OUT/store/quarantine; the exit code is then 3.

    Args:
        videos: Folder that holds the videos.
        run: Folder of the run, whose last stage of each stream is taken.
        out: Folder to write.
        store: A store whose settings the videos are extracted with; by default those that the run was trained on.
        manifest: Use this manifest; its paths are relative to `videos`. By default all videos of the folder.
        workers: Videos in extraction at once; 0 takes all cores.
        reader: Executor of clip plans: opencv, dali or auto (opencv; with a CUDA device the faster one).
        threads: Of the reader; 0 takes one for each core, eight at most.
    """
    _show_log()
    settings = embed.extraction_settings(run, open_store(store) if store else None)
    listed = importers.listed("folder", videos, manifest=manifest)
    cache, summary = embed.extracted(listed, videos, out / "store", settings, workers)
    print_summary(summary, str(cache.root))
    chosen, empty = embed.usable(cache)
    if empty:
        errors.print(
            f"left out, without a frame that all views have: {counted(len(empty), 'video')}, {named(empty, 5)}"
        )
    banks = embed.embed(run, cache, chosen, out, reader, threads)
    embed.write_parquet(banks, cache, out / "features.parquet")
    sizes = ", ".join(f"{bank.features.shape[1]} of {stream}" for stream, bank in banks.items())
    console.print(f"features of {counted(len(chosen), 'video')} ({sizes}): {out / 'features.parquet'}")
    return QUARANTINE_EXIT_CODE if cache.quarantine or empty else 0


def search(
    query: Input,
    run: Input,
    store: StorePlace,
    neighbours: Positive = 10,
    out: OutputFile = Path("search.html"),
    reader: Name = "auto",
    threads: CountOrAll = 0,
) -> None:
    """The videos of a store that are most like a video file, in the terminal and as a page of moving strips.

    No label is needed. Features of the store's videos are computed once and kept with the run.

    Args:
        query: Video file.
        run: Folder of the run whose networks compare videos.
        store: Folder of the store, or its URL.
        neighbours: How many videos to find.
        out: The page to write; it needs no other file.
        reader: Executor of clip plans: opencv, dali or auto (opencv; with a CUDA device the faster one).
        threads: Of the reader; 0 takes one for each core, eight at most.
    """
    environment.require_one_faiss()
    _show_log()
    if not query.is_file():
        raise UsageError(
            "there is no such video", where=str(query), remedy=f"give a video file as {called.option('query')}"
        )
    opened = open_store(store)
    with tempfile.TemporaryDirectory() as folder:
        asked = Manifest([Video("query", query.name)], [])
        settings = embed.extraction_settings(run, opened)
        place, _ = embed.extracted(asked, query.parent, Path(folder) / "store", settings, workers=1)
        banks = searching.gallery(run, opened, reader, threads)  # what costs most comes last
        rows = embed.embed(run, place, ["query"], Path(folder), reader, threads)
        found = searching.search({name: bank.features[0] for name, bank in rows.items()}, banks, opened, neighbours)
        searching.write_page((place, "query", query), found, opened, banks, run, out)
    console.print(searching.found_table(found).markdown())
    console.print(f"found {len(found)} of {len(next(iter(banks.values())).video_ids)} videos: {out}")


def duplicates(
    run: Input,
    store: StorePlace,
    least: Similarity = 0.98,
    out: OutputFile | None = None,
    reader: Name = "auto",
    threads: CountOrAll = 0,
) -> None:
    """The pairs of a store's videos that are nearly the same, and their splits: test videos that were trained on, say.

    Args:
        run: Folder of the run whose networks compare videos.
        store: Folder of the store, or its URL.
        least: Similarity of a pair at least: the cosine of centred features, the mean over streams.
        out: Also written to this file: .csv, .md or .tex.
        reader: Executor of clip plans: opencv, dali or auto (opencv; with a CUDA device the faster one).
        threads: Of the reader; 0 takes one for each core, eight at most.
    """
    environment.require_one_faiss()
    _show_log()
    opened = open_store(store)
    pairs = searching.duplicates(searching.gallery(run, opened, reader, threads), opened, least)
    table = searching.pairs_table(pairs)
    if pairs:
        console.print(dataclasses.replace(table, rows=table.rows[:SHOWN_PAIRS]).markdown())
    if out:
        table.write(out)
    across = sum(set(pair.splits) == {"train", "test"} for pair in pairs)
    shown = f", the first {SHOWN_PAIRS} are shown" if len(pairs) > SHOWN_PAIRS else ""
    console.print(
        f"{counted(len(pairs), 'pair')} similar by {least} or more, {across} of them a training and a test video{shown}"
        + (f": {out}" if out else "")
    )


def tables(runs: Inputs | None = None, paper: Text = "", out: OutputFile | None = None) -> None:
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
    kinds = Counter(line.kind for line in lines)
    told = ", ".join(f"{kinds[kind]} {kind}" for kind in published_tables.KINDS)
    console.print(f"\n{len(lines)} numbers: {told}" + (f": {out}" if out else ""))


def _show_log() -> None:
    """Messages of this package, such as why features are computed again, go to the terminal."""
    logger = logging.getLogger("eval")
    logger.setLevel(logging.INFO)
    logger.handlers = [_Log()]
    logger.propagate = False


class _Log(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        errors.print(self.format(record))
