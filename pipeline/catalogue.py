"""The listing of committed videos: a scan of the commit records, helped by `catalogue.parquet`.

The catalogue is derived and may be deleted at any time. It is never believed about what exists: the scan asks the file
system for every record, and takes a record's content from the catalogue only if the record is older than it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import layout
from pipeline.errors import Refusal

COLUMNS = ("video_id", "length", "height", "width", "fps", "label", "source", "split")
DIGEST = b"costream.digest"  # of the column `record`, in the file's metadata


def load(root: Path) -> dict[str, dict[str, Any]]:
    """Records of all committed videos by video id. Raises Refusal for a record that cannot be read."""
    return _scan(root)[0]


def save(root: Path) -> None:
    """Bring the catalogue up to date, by a full scan; the same store gives the same bytes."""
    records, current = _scan(root)
    if current:
        return
    rows: dict[str, list] = {name: [] for name in (*COLUMNS, "record")}
    for video_id in sorted(records):
        record = records[video_id]
        length, height, width, _ = record["shapes"]["rgb"]
        facts = {"video_id": video_id, "length": length, "height": height, "width": width}
        for name in COLUMNS:
            rows[name].append(facts[name] if name in facts else record[name])
        rows["record"].append(json.dumps(record, sort_keys=True))
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(rows, metadata={DIGEST: _digest(rows["record"])}), sink, write_page_checksum=True)
    layout.write_atomically(layout.catalogue_path(root), sink.getvalue().to_pybytes())


def _scan(root: Path) -> tuple[dict[str, dict[str, Any]], bool]:
    """All records by video id, and whether the catalogue holds exactly them."""
    path = layout.catalogue_path(root)
    known, written = _read(path)
    records, cached = {}, 0
    for file, changed in record_files(root / "videos"):
        record = known.get(os.path.relpath(file.parent, root / "videos")) if changed < written else None
        cached += record is not None
        record = record or read_record(file)
        if record is not None:
            records[record["video_id"]] = record
    return records, path.exists() and cached == len(records) == len(known)


def read_record(path: Path) -> dict[str, Any] | None:
    """The commit record in a zarr.json; None where it is a plain folder group. Raises Refusal when it is damaged."""
    try:
        content = path.read_bytes()
        record = layout.attributes_of(content)
    except (ValueError, OSError, AttributeError) as error:
        raise _damaged(path, f"cannot be read: {error}") from error
    # A flipped byte in the name of a field would make a record look like a plain group, and its video vanish.
    if not (content == layout.group() if record is None else layout.is_sealed(record)):
        raise _damaged(path, "does not match its own digest")
    return record


def _damaged(path: Path, how: str) -> Refusal:
    return Refusal(
        f"the commit record of video {layout.unquoted(path.parent.name)!r} {how}",
        where=str(path),
        remedy="delete this file and run the extraction again: it redoes this video only",
    )


def _read(path: Path) -> tuple[dict[str, dict[str, Any]], int]:
    """Records by quoted id as the catalogue has them, and when it was written; nothing when there is none."""
    try:
        written = path.stat().st_mtime_ns
        table = pq.read_table(path, columns=["record"], page_checksum_verification=True)
        texts = table.column("record").to_pylist()
        if (table.schema.metadata or {}).get(DIGEST) != _digest(texts):  # page checksums do not cover the file's footer
            return {}, 0
        records = [json.loads(text) for text in texts]
    except (OSError, KeyError, ValueError, TypeError, pa.ArrowException):
        return {}, 0  # derived data: without it the scan reads every record
    return {layout.quoted(record["video_id"]): record for record in records}, written


def _digest(records: list[str]) -> bytes:
    return layout.digest("\n".join(records).encode()).encode()


def record_files(folder: Path) -> Iterator[tuple[Path, int]]:
    """Every zarr.json of a group below `folder` with its time of change; arrays are not entered."""
    try:
        entries = list(os.scandir(folder))
    except FileNotFoundError:
        return
    for entry in entries:
        if entry.is_dir() and entry.name not in layout.RESERVED:
            yield from record_files(Path(entry.path))
        elif entry.name == layout.RECORD:
            yield Path(entry.path), entry.stat().st_mtime_ns
