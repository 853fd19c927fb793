"""The Manifest: which videos there are, one row per video.

CSV, UTF-8, header `video_id,path,label,source,split`; the class list, in the data set's official order, lies beside it
as `<name>.classes.txt`, one class a line. Paths are relative to a root that is given when they are used and are never
globbed: real names contain `[ ] ( ) ! # & ;`, blanks and accents.
"""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import astuple, dataclass, field, fields
from pathlib import Path

from pipeline import called, storage
from pipeline.errors import Refusal
from pipeline.names import is_text, looks

DEEPEST, LONGEST = 100, 1000  # of an id: folders and bytes, so that its path in a store is one that systems take
SPLITS = ("train", "val", "test", "")


@dataclass(frozen=True)
class Video:
    """One row.

    video_id: unique and stable, the relative path without its extension (with it where two files differ only there).
    path: of the file, relative to the root. label: class name or empty. source: the original recording that the clip
    was cut from (default: the video itself). split: train, val, test or empty.
    """

    video_id: str
    path: str
    label: str = ""
    source: str = ""
    split: str = ""


COLUMNS = tuple(column.name for column in fields(Video))


@dataclass(frozen=True)
class Manifest:
    """The rows, and the class names in official order.

    notes: what an importer noticed, for people: listed videos that are not there and the like. They are not saved.
    """

    rows: list[Video]
    classes: list[str]
    notes: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        _validate(self.rows, self.classes, "the manifest")

    @classmethod
    def load(cls, path: str | os.PathLike) -> Manifest:
        """Read a manifest and the class list beside it (without one: the labels, sorted). Raises Refusal by line."""
        path = Path(path)
        try:
            with storage.open_text(path, newline="") as file:
                reader = csv.DictReader(file)
                header = tuple(reader.fieldnames or ())
                if sorted(header) != sorted(COLUMNS):
                    raise Refusal(
                        f"its header is {','.join(header) or 'empty'}",
                        where=str(path),
                        remedy=f"the header of a manifest is {','.join(COLUMNS)}",
                    )
                rows = [_row(path, reader.line_num, record) for record in reader]
            beside = classes_path(path)
            names = storage.read_text(beside, storage.LARGEST_RECORD).splitlines() if beside.is_file() else []
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise Refusal(
                f"the manifest cannot be read: {error}",
                where=str(path),
                remedy=f"make one with `{called.command('manifest', videos='FOLDER', out='FILE')}`",
            ) from error
        classes = names or sorted({row.label for row in rows if row.label})
        _validate(rows, classes, str(path))
        return cls(rows, classes)

    def save(self, path: str | os.PathLike) -> None:
        """Write the manifest and its class list, each whole or not at all. Raises Refusal when that cannot be done."""
        path = Path(path)
        table = io.StringIO(newline="")
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(astuple(row) for row in self.rows)
        try:
            storage.write_atomically(classes_path(path), "".join(f"{name}\n" for name in self.classes).encode())
            storage.write_atomically(path, table.getvalue().encode())
        except OSError as error:
            raise Refusal(
                f"the manifest cannot be written: {error.strerror}",
                where=str(path),
                remedy="give another file as --out",
            ) from error


def classes_path(manifest: Path) -> Path:
    """Where the class list of a manifest lies."""
    return manifest.with_name(manifest.stem + ".classes.txt")


def unique_ids(paths: Iterable[str]) -> dict[str, str]:
    """Video ids of relative paths: without the extension, or with it where two files differ only there."""
    paths = list(paths)
    stems = [os.path.splitext(path)[0] for path in paths]
    taken = Counter(stems) + Counter(set(paths))  # beside a.mp4 and a.avi, a.mp4.mkv is not a.mp4
    return {path: stem if taken[stem] == 1 else path for path, stem in zip(paths, stems, strict=True)}


def _row(path: Path, line: int, record: dict) -> Video:
    if None in record or None in record.values():
        raise Refusal("a row does not have five fields", where=f"{path}, line {line}", remedy="quote commas in names")
    return Video(**record)


def _validate(rows: list[Video], classes: list[str], where: str) -> None:
    seen: dict[str, str] = {}  # as ids look: those that look alike could not be told apart
    known = set(classes)
    if len(known) != len(classes):
        raise Refusal("a class is listed twice", where=where, remedy="list every class once, in official order")
    refuse_alike("class names", classes, where)
    refuse_alike("recordings", dict.fromkeys(row.source for row in rows), where)
    for name in classes:
        if name.splitlines() != [name] or not is_text(name):
            raise Refusal(f"class name {name!r} is not one line of text", where=where, remedy="rename the class")
    for row in rows:
        problem = None
        if not row.video_id or not row.path:
            problem = "a row without video_id or path"
        elif any(part in ("", ".", "..") for part in row.video_id.split("/")):
            problem = f"video_id {row.video_id!r} is not a plain relative path"
        elif row.video_id.count("/") > DEEPEST or len(row.video_id.encode(errors="replace")) > LONGEST:
            problem = (
                f"video_id {row.video_id[:40]!r}... lies in more than {DEEPEST} folders or has over {LONGEST:,} bytes"
            )
        elif not is_text(row.video_id + row.path + row.source):
            problem = f"what is said of {row.path!r} is no text: it holds a NUL, or is not valid UTF-8"
        elif (other := seen.get(looks(row.video_id))) is not None:
            problem = f"video_id {row.video_id!r} stands in two rows"
            if other != row.video_id:
                problem = f"video_ids {ascii(other)} and {ascii(row.video_id)} look alike"
        elif row.split not in SPLITS:
            problem = f"split {row.split!r} of {row.video_id!r} is none of train, val, test or empty"
        elif row.label and row.label not in known:
            problem = f"label {row.label!r} of {row.video_id!r} is not in the class list"
        if problem:
            raise Refusal(problem, where=where, remedy="correct the row, or rename the file; nothing was started")
        seen[looks(row.video_id)] = row.video_id


def refuse_alike(kind: str, names: Iterable[str], where: str) -> None:
    """Raises Refusal for two that differ in their bytes and not in what is seen of them."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(looks(name).rstrip(" "), name)
        if other != name:
            what = f"{kind} {ascii(other)} and {ascii(name)} look alike"
            raise Refusal(what, where=where, remedy="give both the same name")
