"""The file `catalogue.parquet`: its columns, and what is asked of it before it is believed."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.store import columns, layout, records
from pipeline.store.table import Form

DIGEST_BYTES = 16  # of a record's digest that are kept
COLUMNS = pa.schema(
    [
        ("folder", pa.string()),  # below `videos`: sorted by it, as the file system is walked
        ("video_id", pa.string()),
        ("length", pa.int32()),
        ("fps", pa.float64()),
        ("digest", pa.binary(DIGEST_BYTES)),
        ("form", pa.int32()),  # place in the list of forms, which is in the file's metadata
        ("cuts", pa.list_(pa.int32())),
        ("source", pa.string()),
        ("bytes", pa.int64()),  # of the video's file; -1 where the record does not tell
    ]
)
FOUND = COLUMNS.append(pa.field("stamp", pa.int64())).append(pa.field("cached", pa.bool_()))
FORMS = b"costream.forms"
DIGEST = b"costream.digest"  # of the forms and all columns: the checksums of pages leave out the file's footer
ROWS = 65_536  # of a row group, 8 MB


class Catalogue:
    """What `catalogue.parquet` says, read a few rows at a time; empty where there is none.

    there: whether there is one. count: of its rows. told: its own digest. vanished: videos in it that a scan has not
    found. forms: what many videos have in common; a scan adds those of the records that it reads. Whether all was as
    written is known when the last batch was read.
    """

    def __init__(self, root: Path | None) -> None:
        self.there, self.count = False, 0
        self.vanished: list[str] = []
        self.forms: dict[str, int] = {}
        self._hashed, self.told, self._listed = hashlib.sha256(), b"", b""
        self._file: Any = None
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            if root is not None:
                path = layout.catalogue_path(root)
                local = storage.is_local(path) and storage.require_regular(path)  # which is read piece by piece
                source = local or pa.BufferReader(content := storage.read(path))
                size = path.stat().st_size if local else len(content)
                # Without threads of Arrow's, which may abort a program as it ends (apache/arrow 34314)
                self._file = pq.ParquetFile(source, pre_buffer=False, page_checksum_verification=True)
                stated = self._file.metadata
                self.told, self._listed = stated.metadata[DIGEST], stated.metadata[FORMS]
                self.forms = {text: number for number, text in enumerate(records.parse_json(self._listed))}
                self._check(stated, size)
                self.there, self.count = True, stated.num_rows

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Its rows, a row group at a time."""
        for group in range(self._file.num_row_groups if self._file else 0):
            (batch,) = self._file.read_row_group(group, use_threads=False).to_batches()
            columns.digest_into(self._hashed, batch)
            self._check_rows(batch)
            yield batch

    def _check(self, stated: Any, size: int) -> None:
        """Raises ValueError for what no catalogue of so many bytes says of itself, before memory is taken for it."""
        if not self._file.schema_arrow.remove_metadata().equals(COLUMNS):
            raise ValueError("its columns are others")
        groups = [stated.row_group(number).num_rows for number in range(stated.num_row_groups)]
        if any(not 0 < rows <= ROWS for rows in groups) or sum(groups) != stated.num_rows:
            raise ValueError("its row groups are others")
        if stated.num_rows * DIGEST_BYTES > size:
            raise ValueError("it has more rows than bytes for them")
        for text in self.forms:
            Form.parse(text)

    def _check_rows(self, batch: pa.RecordBatch) -> None:
        """Raises ValueError for rows that no commit record could give."""
        if any(column.null_count for column in batch.columns):
            raise ValueError("values are missing")
        length, fps, form, size = (columns.numbers(batch.column(name)) for name in ("length", "fps", "form", "bytes"))
        cuts = columns.values(batch.column("cuts"))
        if (
            length.min() < 0
            or size.min() < -1
            or not ((fps >= 0) & (fps <= records.FASTEST)).all()
            or form.min() < 0
            or form.max() >= len(self.forms)
            or cuts.min(initial=0) < 0
        ):
            raise ValueError("values are out of range")

    def is_whole(self) -> bool:
        """Whether what was read, all of it, is what was written."""
        return self._file is None or sealed(self._hashed, self._listed) == self.told


def sealed(hashed: Any, forms: bytes) -> bytes:
    """Digest of rows and forms."""
    whole = hashed.copy()
    whole.update(forms)
    return whole.hexdigest().encode()
