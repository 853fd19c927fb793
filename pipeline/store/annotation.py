"""Annotation sets: `STORE/annotations/<name>.csv`, what people say of the videos, apart from what extraction stored.

The first line is JSON: the classes in the data set's official order, on whose places labels' numbers depend, and a
digest of them and of all that follows, which is a table like a manifest's: `video_id,label,source,split`, sorted by id.
`source` is empty where a video is its own recording. A set is one file, so that it is rewritten in one step, whole or
not at all.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from pipeline import called, storage
from pipeline.errors import Refusal, UsageError
from pipeline.manifest import SPLITS, Manifest, refuse_alike
from pipeline.store import inventory, layout, records

EXTRACTION = "extraction"  # the set that extraction keeps, of the manifests that it was given
BLOCK = 2**20  # bytes read at once
TEST_SHARE = 0x74657374  # keeps these random numbers apart from those of other users of the same seed


class Said(NamedTuple):
    """What is said of one video; source: "" where it is its own recording."""

    label: str = ""
    source: str = ""
    split: str = ""

    def over(self, before: Said) -> Said:
        """With what was said before where this is silent: a folder without splits takes nobody's split away."""
        return Said(*(new or old for new, old in zip(self, before, strict=True)))


COLUMNS = ("video_id", *Said._fields)


@dataclass(frozen=True)
class AnnotationSet:
    """A set as it is written. said: by video id."""

    classes: list[str]
    said: dict[str, Said]

    @classmethod
    def of_manifest(cls, manifest: Manifest) -> AnnotationSet:
        own = {row.video_id: row.source if row.source != row.video_id else "" for row in manifest.rows}
        said = {row.video_id: Said(row.label, own[row.video_id], row.split) for row in manifest.rows}
        return cls(manifest.classes, said)

    def updated(self, newer: AnnotationSet) -> AnnotationSet:
        """With what the newer one says (`Said.over`). Classes keep their places, and labels their numbers; new ones
        follow. Raises Refusal where a new name looks like one that is there."""
        classes = _joined("class names", self.classes, newer.classes)
        _joined("recordings", *([said.source for said in one.said.values()] for one in (self, newer)))
        now = {video_id: said.over(self.said.get(video_id, Said())) for video_id, said in newer.said.items()}
        return AnnotationSet(classes, self.said | now)

    def changed(self, newer: AnnotationSet) -> int:
        """Of how many videos the newer one says something else."""
        known = ((self.said[video_id], said) for video_id, said in newer.said.items() if video_id in self.said)
        return sum(said.over(before) != before for before, said in known)


def _joined(kind: str, known: list[str], new: list[str]) -> list[str]:
    before = dict.fromkeys(known)
    both = before | dict.fromkeys(new)
    if len(both) > len(before):
        refuse_alike(kind, both, "what the store says, and what is new")
    return list(both)


def with_test_share(content: AnnotationSet, share: float, seed: int) -> AnnotationSet:
    """The set with a split: of the videos of each class that share, whole recordings, for testing.

    The draw depends on the seed and on the recordings of the class alone. Recordings are taken until the share is
    reached; of a class that has several, one at least is tested and one is not. Raises UsageError for a share that is
    none, and Refusal where there is a split already.
    """
    if not 0 < share < 1:
        raise UsageError(f"{share} is no share of the videos", where="test_share", remedy="a number between 0 and 1")
    if splits := sorted({said.split for said in content.said.values()} - {""}):
        raise Refusal(
            f"there is a split already: {', '.join(splits)}",
            where="test_share",
            remedy=f"leave {called.option('test_share')} out, or give a manifest without splits",
        )
    classes: dict[str, dict[str, list[str]]] = {}  # label -> recording -> videos
    for video_id, said in sorted(content.said.items()):
        classes.setdefault(said.label, {}).setdefault(said.source or video_id, []).append(video_id)
    tested: set[str] = set()
    for label, recordings in classes.items():
        drawn = np.random.default_rng((TEST_SHARE, seed, *label.encode())).permutation(sorted(recordings))
        wanted, taken = share * sum(map(len, recordings.values())), 0
        for recording in drawn[:-1]:
            if taken >= wanted:
                break
            tested.update(recordings[recording])
            taken += len(recordings[recording])
    split = {video_id: "test" if video_id in tested else "train" for video_id in content.said}
    return AnnotationSet(
        content.classes, {name: said._replace(split=split[name]) for name, said in content.said.items()}
    )


def load(root: Path, name: str) -> AnnotationSet:
    """Raises Refusal where the file is not what was written."""
    opened = OpenSet(root, name)
    said = {}
    for batch in opened.batches():
        rows = zip(*(batch.column(column).to_pylist() for column in COLUMNS), strict=True)
        said.update({video_id: Said(*rest) for video_id, *rest in rows})
    return AnnotationSet(opened.classes, said)


def save(root: Path, name: str, content: AnnotationSet) -> None:
    """Write a set in the place of what has its name. Raises UsageError for a name that is none, and OSError."""
    if not name or name != layout.quoted(name) or "/" in name:
        raise UsageError(
            f"an annotation set cannot be called {name!r}", remedy="take letters, digits, and the signs . _ - in a name"
        )
    table = io.StringIO(newline="")
    writer = csv.writer(table)
    writer.writerow(COLUMNS)
    writer.writerows((video_id, *content.said[video_id]) for video_id in sorted(content.said))
    path = layout.annotations_path(root, name)
    storage.make_folder(path.parent)
    storage.write_atomically(path, file_of(content.classes, table.getvalue().encode()))
    inventory.add_annotation_sets(root, [name])


def file_of(classes: list[str], table: bytes) -> bytes:
    """The file of a set with these classes and this table."""
    hashed = hashlib.sha256(_classes(classes))
    hashed.update(table)
    return _first_line(classes, hashed.hexdigest()) + table


class OpenSet:
    """A set whose rows are read piece by piece, once. Raises Refusal where the file is not what was written."""

    def __init__(self, root: Path, name: str) -> None:
        path = layout.annotations_path(root, name)
        with contextlib.ExitStack() as opened:
            try:
                local = storage.is_local(path)
                file: Any = storage.open_regular(path) if local else io.BytesIO(storage.read(path))
                line = opened.enter_context(file).readline(storage.LARGEST_RECORD)
                facts = records.parse_json(line)
                records.check(records.AnnotationsHead, facts)
                self.classes: list[str] = facts["classes"]
                self.digest: str = facts["digest"]
                hashed = hashlib.sha256(_classes(self.classes))
                while block := file.read(BLOCK):
                    hashed.update(block)
                if (line, hashed.hexdigest()) != (_first_line(self.classes, self.digest), self.digest):
                    raise ValueError("it does not match its digest")
            except (ValueError, OSError) as error:
                raise _unreadable(name, path, error) from error
            opened.pop_all()  # `batches` closes it
        self.name, self.path, self._file, self._start = name, path, file, len(line)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The rows, strings all of them, sorted by video id, each once; of labels and splits that there are."""
        labels, last = {"", *self.classes}, ""
        try:
            with self._file, _arrows(self._file) as file:
                file.seek(self._start)
                for batch in pa_csv.open_csv(
                    file,
                    read_options=pa_csv.ReadOptions(block_size=BLOCK, use_threads=False),
                    parse_options=pa_csv.ParseOptions(newlines_in_values=True),
                    convert_options=pa_csv.ConvertOptions(column_types=dict.fromkeys(COLUMNS, pa.string())),
                ):
                    last = _checked(batch, labels, last)
                    yield batch
        except (ValueError, OSError) as error:  # Arrow's are ValueErrors
            raise _unreadable(self.name, self.path, error) from error


def _arrows(file: Any) -> pa.NativeFile:
    """The same file as Arrow reads it. Of Python's, which its threads would call, a program may abort as it ends
    (apache/arrow 34314)."""
    if isinstance(file, io.BytesIO):
        return pa.BufferReader(file.getvalue())
    return pa.OSFile(f"/dev/fd/{file.fileno()}")


def _checked(batch: pa.RecordBatch, labels: set[str], last: str) -> str:
    """The last video id of the next rows. last: that of those before. Raises ValueError for rows that cannot be."""
    if tuple(batch.schema.names) != COLUMNS:
        raise ValueError(f"its columns are {', '.join(batch.schema.names)}, not {', '.join(COLUMNS)}")
    for column, known in (("label", labels), ("split", set(SPLITS))):
        if unknown := set(batch.column(column).unique().to_pylist()) - known:
            raise ValueError(f"the {column} {min(unknown)!r} is none")
    ids = batch.column("video_id")
    if len(ids) and not (last < ids[0].as_py() and pc.all(pc.less(ids[:-1], ids[1:])).as_py() is not False):
        raise ValueError("its videos are not sorted, each once")
    return ids[-1].as_py() if len(ids) else last


def _unreadable(name: str, path: Path, error: Exception) -> Refusal:
    return Refusal(
        f"the annotation set {name!r} cannot be read: {error}",
        where=str(path),
        remedy="restore it from a copy; or write it again:"
        f" `{called.command('annotate', store='', manifest='', name='')}`",
    )


def _classes(classes: list[str]) -> bytes:
    return json.dumps(classes).encode() + b"\n"


def _first_line(classes: list[str], digest: str) -> bytes:
    return json.dumps({"classes": classes, "digest": digest}, ensure_ascii=False).encode() + b"\n"
