"""The listing of committed videos: a scan of the commit records, helped by `catalogue.parquet`.

The catalogue is derived and may be deleted at any time. It is never believed about what exists: the scan asks the file
system for every record, and takes a record's content from the catalogue only if the record is older than it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import layout, storage
from pipeline.errors import Refusal

COLUMNS = ("video_id", "length", "height", "width", "fps", "label", "source", "split")
DIGEST = b"costream.digest"  # of the columns `folder` and `record`, in the file's metadata

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
    path = layout.catalogue_path(root)
    known, written = _read(path)
    records, committed, cached = {}, {}, 0
    for file in record_files(root):
        if file.size == PLAIN_GROUP:  # many requests saved on an object store; `verify` reads these too
            continue
        record = known.get(_folder(file)) if file.changed < written else None
        cached += record is not None
        record = record or read_record(file.path)
        if record is not None:
            records[record["video_id"]] = record
            committed[record["video_id"]] = file.changed
    return Listing(records, committed, bool(written) and cached == len(records) == len(known))


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
    table = pa.table(rows, metadata={DIGEST: _digest(rows["folder"], rows["record"])})
    pq.write_table(table, sink, write_page_checksum=True)
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
    for file in storage.files_below(root / "videos", skip=layout.RESERVED):
        if file.name.rpartition("/")[2] == layout.RECORD:
            yield file


def _folder(file: storage.Entry) -> str:
    return file.name.rpartition("/")[0]


def _read(path: Path) -> tuple[dict[str, dict[str, Any]], int]:
    """Records by their folders as the catalogue has them, and when it was written; nothing when there is none."""
    try:
        written = storage.changed(path)
        content = pa.BufferReader(storage.read(path))
        table = pq.read_table(content, columns=["folder", "record"], page_checksum_verification=True)
        folders, records = (table.column(name).to_pylist() for name in ("folder", "record"))
        # The checksums of pages leave out the file's footer.
        if (table.schema.metadata or {}).get(DIGEST) != _digest(folders, records):
            return {}, 0
        return {folder: json.loads(record) for folder, record in zip(folders, records, strict=True)}, written
    except (OSError, KeyError, ValueError, TypeError, pa.ArrowException):
        return {}, 0  # derived data: without it the scan reads every record


def _digest(folders: list[str], records: list[str]) -> bytes:
    return storage.digest("\n".join([*folders, *records]).encode()).encode()
