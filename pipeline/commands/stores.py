"""The commands of stage one; `python -m pipeline COMMAND --help` tells each one's options."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import pyarrow.compute as pc
from rich.progress import MofNCompleteColumn, Progress, track
from rich.table import Table

from pipeline import called, importers, storage, synthetic
from pipeline.arguments import (
    CountOrAll,
    Input,
    Name,
    Names,
    Number,
    OutputFile,
    OutputFolder,
    Positive,
    Seconds,
    Seed,
    StorePlace,
    Text,
)
from pipeline.commands.following import following
from pipeline.errors import Refusal, UsageError, counted, named
from pipeline.existing import open_source
from pipeline.extraction import quarantine
from pipeline.extraction.journal import Summary, last_run, same_bytes
from pipeline.importers.inventory import Extracted, Place
from pipeline.manifest import Manifest
from pipeline.show.preview import write_clips, write_contact_sheets
from pipeline.store import VideoStore, catalogue, compatibility, layout, open_store
from pipeline.store import verify as verification
from pipeline.terminal import Terminal, in_line, marked, visible
from pipeline.video import watchdog
from pipeline.video.decode import Undecodable
from pipeline.video.decode import decode as decode_video
from pipeline.video.decode import probe as probe_video
from pipeline.video.watchdog import watching
from pipeline.views import VIEWS, maps
from pipeline.views.maps import MapView

QUARANTINE_EXIT_CODE = 3
SHOWN = 5  # videos, or groups of them, that a note names
T = TypeVar("T")
console = Terminal()
errors = Terminal(stderr=True)


def manifest(
    out: OutputFile,
    videos: Input | None = None,
    frames: Input | None = None,
    dataset: Name = "folder",
    split: Positive | None = None,
    lists: Input | None = None,
    classes: Input | None = None,
) -> None:
    """List the videos of a data set in a manifest (CSV), with labels and splits; tell what lists and folder don't
    share.

    Args:
        out: Manifest to write; its class list is written beside it.
        videos: Folder that holds the videos.
        frames: Instead of the videos, their frames: an LMDB or folders of pictures, as `bring` takes them.
        dataset: Name of a file in data_manifests/, or the path of one like those.
        split: Which of the official splits, for data sets that have several.
        lists: Folder of the official lists; by default they are looked for in and beside `videos`.
        classes: Class list, one class a line, where its order is not official or not in the lists.
    """
    listed = importers.read(dataset, _place(videos, frames), split=split, lists=lists, classes=classes)
    listed.save(out)
    print_notes(listed)
    splits = Counter(row.split or "no split" for row in listed.rows)
    counts = ", ".join(f"{count} {name}" for name, count in sorted(splits.items()))
    found, said = counted(len(listed.rows), "video"), counted(len(listed.classes), "class", "classes")
    console.print(f"listed {found} ({counts}) of {said} in {out}")
    if videos is not None:
        place = f"stores/{videos.resolve().name}"
        errors.print(following("extract", videos=str(videos), manifest=str(out), store=place))


def _place(videos: Path | None, frames: Path | None) -> Place:
    if frames is None and videos is not None:
        return videos
    if frames is None or videos is not None:
        raise UsageError(
            "either the videos or their frames are listed",
            remedy=f"give {called.option('videos')}, or {called.option('frames')}",
        )
    with open_source(frames) as source:
        return Extracted(source.path, source.videos)


def status(
    store: StorePlace, annotations: Text = "", show: Literal["", "classes", "splits", "videos", "quarantine"] = ""
) -> None:
    """Tell what is in a store: videos, frames, size, settings, the last run, and what is in quarantine for which
    reason.

    Args:
        store: Folder of the store, or its URL.
        annotations: The annotation set whose labels and splits are told; by default that of extraction, or the only
            one.
        show: Instead of all that, one of these, a line each, with tabs between columns: classes with how many videos
            they have, splits likewise, videos with frames, label and split, or quarantine with reasons.
    """
    opened = open_store(store, annotations)
    if show:
        for entry in listing(opened, show):
            print(visible(entry))  # rich would make blanks of tabs
        return
    videos = opened.table
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    splits = opened.annotated.count_splits()
    table.add_row("videos", f"{len(videos)}  ({', '.join(f'{n} {name}' for name, n in sorted(splits.items()))})")
    if told := videos.told_of_missing():
        table.add_row("missing", marked(told, "yellow"))
    table.add_row("frames", f"{videos.lengths.sum(dtype=np.int64)}  ({videos.seconds() / 3600:.2f} hours)")
    table.add_row("classes", str(len(opened.classes)))
    if said := opened.annotated.name:
        told = "; ".join(filter(None, [f"{said}, digest {opened.annotated.digest[:16]}", opened.annotated.told()]))
        table.add_row("annotations", told)
    for lack in filter(None, [opened.annotated.without_split(), opened.annotated.without_recordings()]):
        table.add_row("", marked(lack, "yellow"))
    if others := [name for name in layout.annotations_written(opened.root) if name != said]:
        table.add_row("", f"others are {', '.join(others)}")
    cuts = pc.list_value_length(videos.cuts).to_numpy()
    if told := _told_of_same_bytes(opened):
        table.add_row("", marked(told, "yellow"))
    if cuts.any():
        table.add_row("cuts", f"{cuts.sum()} between shots, in {counted(int(np.count_nonzero(cuts)), 'video')}")
    if partial := int(np.count_nonzero(videos.partial)):
        table.add_row("partial", f"{counted(partial, 'video')} whose files break off; what was readable is stored")
    for name in [name for name in VIEWS if name in opened.settings and name not in opened.views]:
        there = np.count_nonzero(videos.of_kinds([name in kind.shapes for kind in videos.kinds], bool))
        table.add_row(name, f"in {there} of {len(videos)} videos; `extract --views {name}` goes on")
    if of_people := [name for name in opened.views if isinstance(VIEWS[name], MapView)]:
        for name, told in maps.told_of_nobody(of_people, _records(opened)).items():
            table.add_row(name, told)
    size = sum(file.size for file in storage.files_below(opened.root / "videos"))
    table.add_row("size", f"{size / 2**20:.1f} MiB")
    table.add_row("last run", _told_of_last_run(opened.root))
    for name, settings in opened.settings.items():
        table.add_row(name, ", ".join(f"{key} {value}" for key, value in settings.items()))
    table.add_row("settings", opened.settings_hash)
    table.add_row("software", ", ".join(f"{name} {version}" for name, version in opened.software.items()))
    for difference in compatibility.version_differences(opened):
        table.add_row("", marked(difference, "yellow"))
    console.print(table)
    refused = list(opened.quarantine_entries())
    if refused:
        console.print(marked(f"{counted(len(refused), 'video')} in quarantine", "bold"))
        reasons = {entry["video_id"]: entry["reason"] for entry in refused}
        for line in quarantine.lines(
            reasons, {entry["video_id"]: called.of_module(entry["reproduce"]) for entry in refused}
        ):
            console.print(line)


def _records(store: VideoStore) -> Iterator[dict[str, Any]]:
    """The commit records of its videos."""
    return (catalogue.read_record(layout.record_path(store.root, name)) or {} for name in store.videos)


def listing(store: VideoStore, what: str) -> Iterator[str]:
    """Lines of `status --show`, columns between tabs."""
    said = store.annotated
    if what == "classes":
        counts = np.bincount(said.labels[said.labels >= 0], minlength=len(store.classes))
        yield from (f"{in_line(name)}\t{count}" for name, count in zip(store.classes, counts.tolist(), strict=True))
    elif what == "splits":
        yield from (f"{name}\t{count}" for name, count in sorted(said.count_splits().items()))
    elif what == "videos":
        for row, video in enumerate(store.videos):
            yield f"{in_line(video)}\t{store.table.lengths[row]}\t{in_line(said.label(row))}\t{said.split(row)}"
    else:
        yield from (f"{in_line(video)}\t{in_line(reason)}" for video, reason in store.quarantine.items())


def verify(store: StorePlace, threads: CountOrAll = 0, time_limit: Seconds = 600.0) -> int:
    """Check a store like fsck: every byte against its digest, every count. Exit code 1 when damaged.

    Args:
        store: Folder of the store, or its URL.
        threads: Videos that are read at once; 0 takes 2 from a disk and 32 from an object store, which answers late.
        time_limit: Seconds to wait for the next video, in case its disk hangs; 0 waits for ever.
    """
    opened = open_store(store)
    began, videos, read, damage = time.perf_counter(), 0, 0, []
    total = sum(1 for _ in catalogue.record_files(opened.root))
    threads = threads or (2 if storage.is_local(opened.root) else 32)
    checked = _watched(verification.verify(opened, threads), store, time_limit)
    for _, size, found in track(checked, "verify", total, console=errors, disable=not errors.is_terminal):
        videos, read = videos + 1, read + size
        damage += found
    for item in damage:
        console.print(marked("damaged", "red", f"{in_line(item.video_id)}: {item.what}"))
        console.print(marked(f"  {item.path}", "dim"))
    rate = read / max(time.perf_counter() - began, 1e-9) / 2**20
    verdict = f"{len({d.video_id for d in damage})} damaged" if damage else "all whole"
    console.print(
        f"verified {counted(videos, 'video')}, {read / 2**20:.1f} MiB at {rate:.0f} MiB/s: {verdict} ({store})"
    )
    return 1 if damage else 0


def _watched(checked: Iterator[T], store: str, time_limit: float) -> Iterator[T]:
    """The same. A wait for a disk cannot be broken off: a long one is told, and one too long ends this process."""

    def tell() -> None:
        errors.print(
            marked("note", "yellow", f"no further video could be read for {watchdog.QUIET:g} s: the disk may hang")
        )

    def give_up() -> None:
        try:
            errors.print(
                f"pipeline verify: no further video could be read for {time_limit:g} s\n  where: {store}\n  to do: see"
                " whether its disk answers; `--time_limit 0` waits for ever"
            )
        finally:
            os._exit(1)

    with watching(time_limit, give_up, tell=tell) as guard:
        while True:
            with guard:
                found = next(checked, None)
            if found is None:
                return
            yield found


def preview(
    store: StorePlace,
    out: OutputFolder = Path("preview"),
    videos: Names | None = None,
    count: Positive = 8,
    clip: bool = False,
    annotations: Text = "",
) -> None:
    """Write contact sheets (PNG): frames of videos above their other views, flow as colours.

    Args:
        store: Folder of the store, or its URL.
        out: Folder for the pictures.
        videos: Ids of the videos to show; by default `count` of them, evenly over the store.
        count: How many videos to show when none are named.
        clip: `--clip true` also writes the first five seconds of each as MP4, frames beside the other views.
        annotations: The annotation set whose labels are shown; by default that of extraction, or the only one.
    """
    opened = open_store(store, annotations)
    if videos is None:
        step = max(1, len(opened.videos) // count)
        videos = opened.videos[::step][:count]
    if not videos:
        raise Refusal("the store holds no videos", where=store, remedy=f"run `{called.command('extract')}` first")
    videos = opened.own_names(videos)
    written = write_contact_sheets(opened, videos, out)
    clips = f" and {counted(len(write_clips(opened, videos, out)), 'clip')}" if clip else ""
    console.print(f"wrote {counted(len(written), 'contact sheet')}{clips} below {out}, the first is {written[0]}")


def probe(file: Input) -> int:
    """Decode one video as extraction does and tell what it holds, or why it is refused.

    Args:
        file: The video.
    """
    try:
        header = probe_video(file)
        console.print(f"{header.codec}, {header.width}x{header.height}, {header.fps:.4g} fps, {header.duration:.2f} s")
        frames, height, width = 0, 0, 0
        for block in decode_video(file):
            frames, (height, width) = frames + len(block), block.shape[1:3]
    except Undecodable as error:
        raise Refusal(error.reason, where=str(file), remedy="repair or replace the file") from error
    console.print(f"decoded {counted(frames, 'frame')} of {width}x{height} from {file}")
    return 0


def make_synthetic(
    out: OutputFolder,
    train_per_class: Number = 80,
    test_per_class: Number = 30,
    seed: Seed = 1,
    workers: CountOrAll = 0,
    truth: OutputFolder | None = None,
) -> None:
    """Make the embedded data set: short H.264 videos whose class is defined by motion alone.

    Args:
        out: Folder for the videos, as train/<class>/ and test/<class>/.
        train_per_class: Training videos of each class.
        test_per_class: Test videos of each class.
        seed: Another seed, other videos.
        workers: Processes; 0 takes all cores.
        truth: Folder for masks and key points of what moves in them, for the views segmentation and pose with
            `estimator: files`.
    """
    count = workers or len(os.sched_getaffinity(0))
    total = (train_per_class + test_per_class) * len(synthetic.CLASSES)
    with Progress(*Progress.get_default_columns(), MofNCompleteColumn(), console=errors) as bar:
        task = bar.add_task("make videos", total=total)
        made = synthetic.generate(
            out,
            train_per_class,
            test_per_class,
            seed,
            count,
            progress=lambda done, _: bar.update(task, completed=done),
            truth=truth,
        )
    console.print(f"made {made} of {total} videos ({counted(len(synthetic.CLASSES), 'class', 'classes')}) in {out}")


def print_notes(listed: Manifest) -> None:
    """What an importer noticed."""
    for note in listed.notes:
        errors.print(marked("note", "yellow", note))


def _told_of_last_run(store: Path) -> str:
    try:
        run = last_run(store)
    except Refusal as refusal:
        return f"{refusal.what} ({refusal.where}): {refusal.remedy}"
    if run is None:
        return "its journal is not here"
    began = time.strftime("%Y-%m-%d %H:%M", time.localtime(run.began))
    rate = f"{run.videos / max(run.seconds, 1e-3):.2f} videos/s, {run.frames / max(run.seconds, 1e-3):.0f} frames/s"
    pending = f"; {run.todo - run.videos} pending, run it again to go on" if run.todo > run.videos else ""
    return f"{began}: {run.videos} of {run.todo} videos in {run.seconds:.0f} s ({rate}){pending}"


def _told_of_same_bytes(store: VideoStore) -> str:
    groups = same_bytes(store.root, store.listing.table)
    if not groups:
        return ""
    shown = named([" = ".join(ids) for ids in groups], SHOWN)
    count = sum(map(len, groups)) - len(groups)
    return f"{counted(count, 'video')} with the same bytes as another one: {shown}; `remove` takes out one of them"


def print_summary(summary: Summary, store: str) -> None:
    """The end of a run that wrote into a store: what it refused, and one line of what it did."""
    for what, videos in (("quarantined", summary.quarantined), ("stored in part", summary.partial)):
        if videos:
            errors.print(marked(what, "yellow", counted(len(videos), "video")))
        for line in quarantine.lines(videos, {}):
            errors.print(line)
    if summary.lost:
        told = f"{counted(len(summary.lost), 'stored video')} gone, and not listed by this run"
        errors.print(marked("missing", "yellow", f"{told}: {named([repr(name) for name in summary.lost], SHOWN)}"))
    if summary.stored:
        if told := _told_of_same_bytes(open_store(store)):
            errors.print(marked("note", "yellow", told))
        for difference in compatibility.version_differences(open_store(store)):
            errors.print(marked("note", "yellow", f"{difference}: videos of this run may differ in their last bits"))
    parts = [f"stored {counted(summary.stored, 'video')} ({counted(summary.frames, 'frame')})"]
    if summary.partial:
        parts.append(f"{len(summary.partial)} of them in part")
    if summary.skipped:
        parts.append(f"{summary.skipped} {'was' if summary.skipped == 1 else 'were'} there already")
    if summary.annotated:
        parts.append(
            f"{summary.annotated} {'has' if summary.annotated == 1 else 'have'} another label, source or split now"
        )
    if summary.quarantined or summary.in_quarantine:
        parts.append(f"{len(summary.quarantined) + summary.in_quarantine} in quarantine")
    console.print(f"{', '.join(parts)}, in {summary.wall:.1f} s: {store}")
