"""Kinetics-400, -600, -700 by their CSVs (`label,youtube_id,time_start,time_end,split`), wherever files lie."""

from __future__ import annotations

import math
from pathlib import Path

from pipeline import storage
from pipeline.importers import lists as official
from pipeline.importers.inventory import Place
from pipeline.importers.matching import Entry, match
from pipeline.manifest import Manifest

FOLDER = "annotations"
SHAPE = "label,youtube_id,time_start,time_end,split"
LONGEST = 10**6  # seconds; names have six digits


def read(videos: Place, lists: Path | None = None, classes: Path | None = None) -> Manifest:
    """The videos that the CSVs name and that are there.

    A file is `<youtube_id>_<start, 6 digits>_<end, 6 digits>` or `<youtube_id>`, with any extension of a video, in
    `<class>/` (with blanks or underscores) or flat, at any depth below `train/`, `val/` or `test/`.

    lists: one CSV, or a folder of them; without it they are looked for in and beside `videos`, also in `annotations/`.
    classes: a class list whose order is taken; by default labels are sorted, which is the usual order. Raises Refusal.
    """
    found = official.find(
        videos, lists, _is_kinetics, f"CSVs of Kinetics with the columns {SHAPE}", (FOLDER,), one_will_do=True
    )
    rows = [(path, number, row) for path in found for number, row in official.csv_rows(path)]
    labels = {row["label"] for _, _, row in rows if row.get("label")}
    names = official.class_names(classes) if classes else sorted(labels)
    by_spelling = official.official_names(names)
    entries = [_entry(path, number, row, by_spelling) for path, number, row in rows]
    return match(videos, entries, names, case_matters=True)  # it does in the ids of YouTube


def _is_kinetics(path: Path) -> bool:
    if path.suffix.lower() != ".csv":
        return False
    try:
        with storage.open_text(path, newline="") as file:
            return "youtube_id" in file.readline()
    except (OSError, UnicodeDecodeError):
        return False


def _entry(path: Path, number: int, row: dict[str, str], by_spelling: dict[str, str]) -> Entry:
    video, label = row.get("youtube_id", ""), row.get("label", "")
    if not video or "/" in video:
        raise official.bad_line(path, number, f"{video!r} is no YouTube id", SHAPE)
    label = official.official_name(label, by_spelling, f"{path}, line {number}") if label else ""
    split = official.SPLITS.get(row["split"].lower()) if row.get("split") else official.split_in_name(path)
    if split is None:
        raise official.bad_line(path, number, f"split {row['split']!r} is none of train, validate or test", SHAPE)
    folder = f"{label}/" if label else ""
    name = video
    if row.get("time_start") and row.get("time_end"):
        try:
            times = [float(row[key]) for key in ("time_start", "time_end")]
        except ValueError:
            times = [math.nan]
        if not all(0 <= time < LONGEST for time in times):
            raise official.bad_line(path, number, f"the times are not numbers of seconds below {LONGEST:,}", SHAPE)
        name += "".join(f"_{int(time):06d}" for time in times)
    return Entry(f"{folder}{name}.mp4", label, split, source=video, other_name=f"{folder}{video}.mp4")
