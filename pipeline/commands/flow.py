"""The commands that compute flow outside a store, and that measure estimators."""

from __future__ import annotations

import json as json_format
import os
import platform
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from pipeline import environment, storage
from pipeline.arguments import Input, Name, OutputFile, OutputPlace, Pixels, Positive
from pipeline.bench import measuring
from pipeline.bench.pairs import (
    Pair,
    estimate,
    flow_of_video,
    read_pair,
    synthetic_pairs,
    true_pairs,
    video_pairs,
)
from pipeline.commands.stores import console, errors
from pipeline.errors import Refusal, UsageError, counted, refuse_unknown
from pipeline.extraction.progress import counting_bar
from pipeline.flow import ESTIMATORS, create
from pipeline.flow.estimator import FlowEstimator
from pipeline.show.flow_files import unwritable
from pipeline.show.flow_output import PICTURE, Output
from pipeline.terminal import marked
from pipeline.video.decode import Undecodable, probe
from pipeline.views.size import LARGEST, SMALLEST

MOST_PIXELS = 2**29  # of all pairs of a size, which are held at once: 3 GiB


def flow(
    first: Input,
    second: Input | None = None,
    /,
    *,
    out: OutputPlace,
    estimator: Name = "tvl1",
    parameters: dict[str, Any] | None = None,
    longest: Pixels = 0.0,
) -> None:
    """Optical flow of two images, or of every pair of consecutive frames of a video.

    The ending of `out` says what is written: `.npy`, float32 pixels (2, H, W), u (right) before v (down); `.flo`,
    Middlebury's format; `.kitti.png`, KITTI's 16-bit format; any other `.png`, a picture: hue is direction, strength is
    length. A video gives ONE `.npy` of (F-1, 2, H, W), or, for the others, a FOLDER: `--out walk.png` writes
    walk/000000.png, walk/000001.png and so on, each numbered like the first frame of its pair, counted from 0.

    Examples: `flow frame1.png frame2.png --out flow.png`; `flow walk.mp4 --out walk.npy --estimator dis`.

    Args:
        first: The first image, or a video.
        second: The second image, of the same size; leave it out for a video.
        out: What to write; folders above it are made.
        estimator: tvl1 (the fastest TV-L1 there is), or a name that `bench-flow` lists.
        parameters: Settings of the estimator that differ from its defaults, such as `--parameters.warps 2`.
        longest: Flow of so many pixels gets full colour in pictures; 0 takes the 99th percentile of all lengths.
    """
    chosen = create(estimator, **(parameters or {}))
    tally = _Tally()
    with Output(out, single=second is not None, longest=longest) as output:
        pair = read_pair(first, second) if second else None
        with errors.status(f"preparing {chosen.name}"):
            chosen.prepare()
        if pair is None:
            _flow_of_video(chosen, first, output, tally)
        else:
            began = time.perf_counter()
            values = estimate(chosen, pair.first[None], pair.second[None], f"{first}, {second}")
            tally.add(values, time.perf_counter() - began)
            output.add(values)
        output.finish()
    colours = f", full colour at {output.longest:.1f} px" if output.ending == PICTURE else ""
    console.print(f"{tally.told(chosen.name)}{colours}: {output.path}")


def bench_flow(
    videos: Input | None = None,
    pairs: Input | None = None,
    estimators: Name = "all",
    size: Name = "128x171",
    count: Positive = 16,
    json: OutputFile | None = None,
) -> None:
    """Measure flow estimators against tvl1-opencv: speed, agreement, and error where the true flow is known.

    All estimators do the same pairs of consecutive frames, one after the other, pair by pair. CPU estimators take one
    thread and are timed in CPU time; those on a GPU in wall time, in batches. `agreement` is with the flow of
    tvl1-opencv: mean distance in pixels, share of the bytes as stored that are equal, and that differ by one at most.
    `UCF101` is the cost of its 2.5 million pairs at this size, on one core or one GPU. Without `videos` and `pairs` the
    pairs are synthetic.

    Args:
        videos: Take the pairs from the videos in this folder, scaled to `size`.
        pairs: Take pairs with true flow from this folder and those below it, at their own sizes: two images and a flow
            file (Middlebury's .flo or KITTI's 16-bit .png) together in one folder.
        estimators: Names with commas between them, or all.
        size: Height x width of the frames; several with commas between them, such as 128x171,224x288.
        count: How many pairs of each size.
        json: Write the figures here.
    """
    names = list(ESTIMATORS) if estimators == "all" else _names(estimators)
    sizes = _sizes(size, count)
    if videos and pairs:
        raise UsageError("give --videos or --pairs, not both")
    sets: dict[str, tuple[list[Pair], list[str]]]
    if pairs:
        sets = {"true flow": true_pairs(pairs)}
    elif videos:
        sets = {f"{height}x{width}": video_pairs(videos, (height, width), count) for height, width in sizes}
    else:
        sets = {f"{height}x{width}": (synthetic_pairs((height, width), count), []) for height, width in sizes}
    source = str(pairs or videos or "synthetic videos")
    figures = {}
    for name, (chosen, left_out) in sets.items():
        for line in left_out:
            errors.print(marked("left out", "yellow", line))
        if not chosen:
            raise Refusal("no video gave a pair of frames", where=source, remedy="give a folder of whole videos")
        results = _measure(chosen, names)
        _print_results(
            f"{_counted(len(chosen))} of {source}, {name}, against {measuring.REFERENCE}", results, with_cost=not pairs
        )
        if pairs:
            _print_errors(chosen, results)
        figures[name] = {result.name: result.figures(results[0]) for result in results}
    if json:
        _write_figures(json, source, figures)
    told = f", figures in {json}" if json else ""
    total = _counted(sum(len(chosen) for chosen, _ in sets.values()))
    console.print(f"measured {len(results)} estimators on {total}{told}")


class _Tally:
    """What the summary line tells of the flow."""

    def __init__(self) -> None:
        self.pairs, self.seconds, self.sum, self.largest = 0, 0.0, 0.0, 0.0
        self.size = ""

    def add(self, flow: np.ndarray, seconds: float) -> None:
        lengths = np.hypot(flow[:, 0], flow[:, 1])
        self.pairs += len(flow)
        self.seconds += seconds
        self.sum += float(lengths.mean(axis=(1, 2), dtype=np.float64).sum())
        self.largest = max(self.largest, float(lengths.max()))
        self.size = f"{flow.shape[3]}x{flow.shape[2]}"

    def told(self, estimator: str) -> str:
        mean, speed = self.sum / self.pairs, 1e3 * self.seconds / self.pairs
        lengths = f"mean {mean:.2f} px, largest {self.largest:.2f} px"
        return f"{estimator} flow of {_counted(self.pairs)} of {self.size}, {speed:.1f} ms a pair, {lengths}"


def _counted(pairs: int) -> str:
    return f"{pairs} pair{'s' if pairs != 1 else ''}"


def _flow_of_video(estimator: FlowEstimator, video: Path, output: Output, tally: _Tally) -> None:
    try:
        header = probe(video)
    except Undecodable as error:
        remedy = "give two images, or one video"
        raise Refusal(error.reason, where=str(video), remedy=remedy) from error
    claimed = (header.frames or round(header.duration * header.fps)) - 1
    with counting_bar("pairs", errors) as bar:
        task = bar.add_task(estimator.name, total=claimed if claimed > 0 else None, rate="")
        for flow, seconds in flow_of_video(estimator, video):
            tally.add(flow, seconds)
            output.add(flow)
            bar.update(task, advance=len(flow), rate=f"{tally.pairs / tally.seconds:.1f} pairs/s")
    if not tally.pairs:
        raise Refusal("it has a single frame, so no pair", where=str(video), remedy="give two images, or one video")


def _names(estimators: str) -> list[str]:
    names = [name.strip() for name in estimators.split(",")]
    for name in names:
        if name not in ESTIMATORS:
            refuse_unknown("flow estimator", name, ["all", *ESTIMATORS])
    return names


def _sizes(text: str, count: int) -> list[tuple[int, int]]:
    sizes = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)x(\d+)\s*", part)
        if not match or not all(SMALLEST <= int(side) <= LARGEST for side in match.groups()):
            raise UsageError(
                f"{part!r} is no size",
                where="--size",
                remedy=f"sizes are HEIGHTxWIDTH, at least {SMALLEST} and at most {LARGEST}, such as 128x171,224x288",
            )
        if count * int(match[1]) * int(match[2]) > MOST_PIXELS:
            raise UsageError(
                f"no room in memory for {counted(count, 'pair')} of {part}",
                where="--count",
                remedy="fewer, or smaller ones",
            )
        sizes.append((int(match[1]), int(match[2])))
    return sizes


def _measure(pairs: list[Pair], names: list[str]) -> list[measuring.Result]:
    steps = len({measuring.REFERENCE, *names}) * (1 + len(pairs))
    with Progress(
        TextColumn("{task.description}", style="progress.description", markup=False),
        *Progress.get_default_columns()[1:],
        TimeElapsedColumn(),
        console=errors,
        transient=True,
        disable=not errors.is_terminal,
    ) as bar:
        task = bar.add_task("", total=steps)

        def begin(doing: str) -> None:
            bar.update(task, advance=1, description=doing)

        return measuring.measure(pairs, names, begin)


def _print_results(title: str, results: list[measuring.Result], with_cost: bool) -> None:
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    names = {result.name: f"{result.name} (GPU)" if result.gpu else result.name for result in results}
    table.add_column("estimator", no_wrap=True, min_width=max(map(len, names.values())))
    headings = ["ms a pair", "pairs/s", "times as fast", "apart, px", "bytes equal", "within one"]
    for heading in [*headings, "UCF101, hours" if with_cost else "error, px"]:
        table.add_column(heading, justify="right")
    for result in results:
        if result.problem:
            continue
        figures = result.figures(results[0])
        table.add_row(
            names[result.name],
            _cell(figures["ms_per_pair"], ".2f"),
            _cell(figures["pairs_per_second"], ".1f"),
            _cell(figures["times_reference"], ".2f"),
            _cell(figures["difference_px"], ".4f"),
            _cell(figures["bytes_equal"], ".2%"),
            _cell(figures["bytes_within_one"], ".2%"),
            _cell(figures["ucf101_hours" if with_cost else "error_px"], ".1f" if with_cost else ".3f"),
        )
    console.print(table)
    for result in results:
        if result.problem:  # a sentence would squeeze the columns of the others
            console.print(f"{result.name}  cannot run here: {result.problem}")
        for pair, reason in result.failures.items():
            errors.print(marked("failed", "yellow", f"{result.name}, {pair}: {reason}"))


def _print_errors(pairs: list[Pair], results: list[measuring.Result]) -> None:
    """Of every pair: the mean distance to its true flow, beside that flow's mean length, the error of no flow."""
    table = Table(title="error, px", title_justify="left", box=None, padding=(0, 2, 0, 0))
    table.add_column("pair", overflow="fold")
    shown = [result for result in results if not result.problem]
    for heading in ("size", "known", "no flow", *(result.name for result in shown)):
        table.add_column(heading, justify="right")
    for pair in pairs:
        truth = pair.truth if pair.truth is not None else np.full((2, 1, 1), np.nan)
        table.add_row(
            pair.name,
            f"{truth.shape[1]}x{truth.shape[2]}",
            f"{np.isfinite(truth[0]).mean():.0%}",
            f"{np.nanmean(np.hypot(*truth)):.3f}",
            *(_cell(result.errors.get(pair.name), ".3f") for result in shown),
        )
    console.print(table)


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _write_figures(path: Path, source: str, figures: dict[str, Any]) -> None:
    content = {
        "pairs": source,
        "reference": measuring.REFERENCE,
        "machine": {"processor": platform.processor() or platform.machine(), "cores": len(os.sched_getaffinity(0))},
        "versions": environment.versions(),
        "sizes": figures,
    }
    try:
        storage.write_atomically(path, (json_format.dumps(content, indent=2) + "\n").encode())
    except OSError as error:
        raise unwritable(path, error) from error
