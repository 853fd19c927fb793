"""The listing of committed videos: a scan of the commit records, helped by `catalogue.parquet`.

The catalogue is derived and may be deleted at any time. It is never believed about what exists: the scan asks the file
system for every record, and takes a record's content from the catalogue only if the record is older than it.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.errors import Refusal
from pipeline.store import layout

COLUMNS = ("video_id", "length", "height", "width", "fps", "label", "source", "split")
DIGEST = b"costream.digest"  # of the columns `folder` and `record`, in the file's metadata

ROWS = 1024  # read at once; the columns of 240,000 videos take half a gigabyte

PLAIN_GROUP = len(layout.group())  # bytes of the zarr.json of a folder; a commit record is longer


@dataclass(frozen=True)
class Listing:
    """Records of all committed videos by video id. committed: when each was written, in nanoseconds since 1970.

    current: whether the catalogue holds exactly these.
    """

    records: dict[str, dict[str, Any]]
    committed: dict[str, int]
    current: bool


def load(root: Path) -> Listing:
    """What is in a store. Raises Refusal for a record that cannot be read."""
    known = Catalogue(layout.catalogue_path(root))
    records, committed, cached = {}, {}, 0
    for found in _scan(root, known):
        video_id = found.record["video_id"]
        records[video_id], committed[video_id] = found.record, found.committed
        cached += found.cached
    return Listing(records, committed, bool(known.written) and cached == len(records) == known.count)


def scan(root: Path) -> Iterator[dict[str, Any]]:
    """The records of all committed videos one by one, in no order, for who need not keep them: parsed, each takes 5 kB.

    Raises Refusal for a record that cannot be read.
    """
    return (found.record for found in _scan(root, Catalogue(layout.catalogue_path(root))))


def save(root: Path) -> None:
    """Bring the catalogue up to date, by a full scan; the same store gives the same bytes."""
    listing = load(root)
    if listing.current:
        return
    rows: dict[str, list] = {name: [] for name in (*COLUMNS, "folder", "record")}
    for video_id in sorted(listing.records):
        record = listing.records[video_id]
        length, height, width, _ = record["shapes"]["rgb"]
        facts = {"video_id": video_id, "length": length, "height": height, "width": width}
        for name in COLUMNS:
            rows[name].append(facts[name] if name in facts else record[name])
        rows["folder"].append(layout.quoted(video_id))
        rows["record"].append(json.dumps(record, sort_keys=True))
    sink = pa.BufferOutputStream()
    table = pa.table(rows, metadata={DIGEST: _digest([*rows["folder"], *rows["record"]])})
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    path, content = layout.catalogue_path(root), sink.getvalue().to_pybytes()
    storage.write_atomically(path, content)
    # Times are told in steps (an object store's in seconds), and the next scan believes it only where it is the newest.
    newest = max(listing.committed.values(), default=0)
    while storage.changed(path) <= newest:
        time.sleep(1.0 if newest % 10**9 == 0 else 0.01)
        storage.write_atomically(path, content)


def read_record(path: Path) -> dict[str, Any] | None:
    """The commit record in a zarr.json; None where it is a plain folder group. Raises Refusal when it is damaged."""
    return read_content(path)[0]


def read_content(path: Path) -> tuple[dict[str, Any] | None, bytes]:
    """The same, with all bytes of the file."""
    try:
        content = storage.read(path)
        record = layout.attributes_of(content)
    except (ValueError, OSError, AttributeError) as error:
        raise _damaged(path, f"cannot be read: {error}") from error
    # A flipped byte in the name of a field would make a record look like a plain group, and its video vanish.
    if not (content == layout.group() if record is None else layout.is_sealed(record)):
        raise _damaged(path, "does not match its own digest")
    return record, content


def _damaged(path: Path, how: str) -> Refusal:
    return Refusal(
        f"the commit record of video {layout.unquoted(path.parent.name)!r} {how}",
        where=str(path),
        remedy="delete this file and run the extraction again: it redoes this video only",
    )


def record_files(root: Path) -> Iterator[storage.Entry]:
    """The zarr.json of every group below the store's folder `videos`; arrays are not entered."""
    for file in storage.files_below(root / "videos", skip=layout.reserved()):
        if file.name.rpartition("/")[2] == layout.RECORD:
            yield file


@dataclass(frozen=True)
class Found:
    """A record, when it was written, and whether the catalogue had it."""

    record: dict[str, Any]
    committed: int
    cached: bool


def _scan(root: Path, known: Catalogue) -> Iterator[Found]:
    # Many requests are saved on an object store by not reading plain groups; `verify` reads these too.
    committed = {_folder(file): file.changed for file in record_files(root) if file.size != PLAIN_GROUP}
    for folder, text in known.rows():
        if committed.get(folder, known.written) < known.written:
            yield Found(json.loads(text), committed.pop(folder), cached=True)
    for folder, changed in committed.items():
        record = read_record(root / "videos" / folder / layout.RECORD)
        if record is not None:
            yield Found(record, changed, cached=False)


def _folder(file: storage.Entry) -> str:
    return file.name.rpartition("/")[0]


class Catalogue:
    """What `catalogue.parquet` says, read a few rows at a time; empty where there is none or a byte of it is wrong.

    written: when, in nanoseconds since 1970; 0 where it is empty. count: of its rows.
    """

    def __init__(self, path: Path) -> None:
        self.written = self.count = 0
        # Derived data: where it cannot be used, the scan reads every record.
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError, pa.ArrowException):
            written = storage.changed(path)
            self._file = pq.ParquetFile(pa.BufferReader(storage.read(path)), page_checksum_verification=True)
            # The checksums of pages leave out the file's footer.
            texts = itertools.chain(self._texts("folder"), self._texts("record"))
            if (self._file.schema_arrow.metadata or {}).get(DIGEST) == _digest(texts):
                self.written, self.count = written, self._file.metadata.num_rows

    def rows(self) -> Iterator[tuple[str, str]]:
        """The folder of each video's record, and the record."""
        if self.count:
            yield from zip(self._texts("folder"), self._texts("record"), strict=True)

    def _texts(self, column: str) -> Iterator[str]:
        for batch in self._file.iter_batches(ROWS, columns=[column], use_threads=False):
            yield from batch.column(column).to_pylist()


def _digest(texts: Iterable[str]) -> bytes:
    """Of the lines of a text that these make, as hexadecimal digits."""
    lines = hashlib.sha256()
    for place, text in enumerate(texts):
        lines.update(f"\n{text}".encode() if place else text.encode())
    return lines.hexdigest().encode()
