"""Tables, CSV or JSON, whose columns a YAML file names: something-something v2, Diving48, AVA, one's own."""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline import called, storage
from pipeline.errors import Refusal, UsageError, refuse_unknown
from pipeline.importers import lists as official
from pipeline.importers.inventory import Place, stem
from pipeline.importers.matching import Entry, match
from pipeline.manifest import Manifest
from pipeline.validation import parse_json

FOLDERS = ("annotations", "labels")  # where such tables usually lie


def read(
    videos: Place,
    path: str = "path",
    label: str = "label",
    subset: str = "split",
    columns: str = "",
    files: str = r".+\.(csv|json|jsonl)",
    lists: Path | None = None,
    classes: Path | None = None,
    class_files: str = "",
    drop: str = "",
    recording: str = "",
    val_is: str = "val",
) -> Manifest:
    """The videos that the tables name.

    path, label, subset: columns. A table without the column of labels has none; without that of subsets (train, val or
    test) its own name tells them. columns: their names, with commas between, of CSVs that have no header.

    files: the names of tables, a regular expression. lists: one table, or a folder of them; without it they are looked
    for in and beside `videos`, also in `annotations/` and `labels/`. classes: a class list; class_files: its name
    beside the tables, a regular expression; by default the labels, sorted. A label may be the place of its class in
    that list, from 0. drop: characters that labels have and class names do not. recording: a regular expression that
    finds, as its first group, the recording in a video's name. val_is: the split that `val` stands for.

    Raises Refusal and UsageError.
    """
    if val_is not in ("val", "test"):
        refuse_unknown("split", val_is, ["val", "test"], where="setting val_is")
    names, in_video, beside = (_compiled(text) for text in (files, recording, class_files))
    found = official.find(
        videos, lists, lambda file: bool(names.fullmatch(file.name)), f"tables ({files})", FOLDERS, one_will_do=True
    )
    class_list = classes or _beside(found[0].parent, beside)
    table = [(file, number, row) for file in found for number, row in rows(file, columns)]
    if table and not any(row.get(path) for _, _, row in table):
        raise Refusal(
            f"the tables have no column {path!r}",
            where=f"{found[0]}: {', '.join(table[0][2]) or 'it has none'}",
            remedy="name the column that has the videos' names as `path` in the data set's settings",
        )
    labels = {text.translate(str.maketrans("", "", drop)) for _, _, row in table if (text := row.get(label, ""))}
    known = class_names(class_list) if class_list else sorted(labels, key=_order)
    by_spelling = official.official_names(known)
    entries = []
    for file, number, row in table:
        where = f"{file}, row {number}"
        if not row.get(path):
            raise Refusal("a row names no video", where=where, remedy=f"give it a value in the column {path}")
        text = row.get(label, "").translate(str.maketrans("", "", drop))
        told = split_of(row[subset], where) if row.get(subset) else official.split_in_name(file)
        name = in_video.fullmatch(posixpath.basename(stem(row[path])))
        entries.append(
            Entry(
                row[path],
                class_of(text, known, by_spelling, where),
                val_is if told == "val" else told,
                name[1] if name and name.re.groups else "",
            )
        )
    return match(videos, entries, known, case_matters=True)


def rows(path: Path, columns: str = "") -> Iterator[tuple[int, dict[str, str]]]:
    """Number, from 1, and values of each row: of a CSV, a JSON list of objects, or a line of JSON each (.jsonl).

    columns: the names, with commas between, where a CSV has no header. What is neither text nor a whole number is left
    out. Raises Refusal.
    """
    try:
        if path.suffix.lower() == ".csv":
            objects: list[Any] = [row for _, row in official.csv_rows(path, columns.split(",") if columns else None)]
        elif path.suffix.lower() == ".jsonl":
            objects = [json.loads(line) for line in storage.read_text(path).split("\n") if line.strip()]
        else:
            objects = json.loads(storage.read_text(path))
    except (OSError, ValueError, RecursionError) as error:
        raise official.unreadable(path, error) from error
    if not isinstance(objects, list) or not all(isinstance(row, dict) for row in objects):
        raise Refusal("it is no list of objects", where=str(path), remedy="give the table as the data set ships it")
    for number, row in enumerate(objects, start=1):
        yield number, {key.strip(): str(value).strip() for key, value in row.items() if type(value) in (str, int)}


def class_names(path: Path) -> list[str]:
    """The classes of a class list: of a text, or of JSON that maps names to places or lists names, or parts of them."""
    if path.suffix.lower() != ".json":
        return official.class_names(path)
    try:
        listed = parse_json(storage.read_text(path))
        if isinstance(listed, dict):
            places = {str(place): name for name, place in listed.items() if type(place) in (str, int)}
            if missing := [place for place in range(len(listed)) if str(place) not in places]:
                raise ValueError(f"it does not give each class its place: none has {missing[0]}")
            names = [places[str(place)] for place in range(len(listed))]
        else:
            names = [name if isinstance(name, str) else " ".join(name) for name in listed]
    except (OSError, ValueError, TypeError) as error:
        raise official.unreadable(path, error) from error
    if not names:
        raise official.empty(path)
    return names


def class_of(text: str, names: list[str], by_spelling: dict[str, str], where: str) -> str:
    """The class that a label names, or is the place of. Raises Refusal."""
    if text and official.spelling(text) not in by_spelling and text.isascii() and text.isdecimal():
        if len(text) > len(str(len(names))) or int(text) >= len(names):
            raise Refusal(
                f"label {text[:20]} is beyond the {len(names)} classes of the class list",
                where=where,
                remedy=f"give the class list that belongs to these tables: {called.option('classes')}",
            )
        return names[int(text)]
    return official.official_name(text, by_spelling, where) if text else ""


def split_of(text: str, where: str) -> str:
    """Raises Refusal."""
    if text.lower() not in official.SPLITS:
        raise Refusal(f"split {text!r} is none of train, val or test", where=where, remedy="write one of these")
    return official.SPLITS[text.lower()]


def _order(name: str) -> tuple:
    """Sorts labels: numbers as numbers."""
    return (not name.isdecimal(), len(name) if name.isdecimal() else 0, name.lower(), name)


def _beside(folder: Path, names: re.Pattern[str]) -> Path | None:
    return next((file for file in official.files_in(folder) if names.fullmatch(file.name)), None)


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern, re.IGNORECASE)
    except re.error as error:
        raise UsageError(
            f"{pattern!r} is no regular expression: {error}",
            where="settings of the data set",
            remedy="correct it; a dot is written \\.",
        ) from error
