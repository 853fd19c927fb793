"""Rows that are being computed, kept as they come, so that whatever ends a computation, the next one goes on behind
them.

A file of one line of JSON, which says of what the rows are, and then a record for each row, in order: its bytes and the
CRC-32 of its number and them. What a kill or a power cut has left behind the last whole record is cut off.
"""

from __future__ import annotations

import fcntl
import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from pipeline import storage
from pipeline.errors import Refusal

CHECK = 4  # bytes of a CRC
AT_ONCE = 1 << 22  # bytes that are read at once


class Rows:
    """The file at `path`, begun anew where it holds rows of something else. One process at a time has it.

    Args:
        path: of the file; folders above it are made.
        of: what the rows follow from, as JSON has it.
        width, dtype: of a row.

    Raises:
        Refusal: another process has the file, or it cannot be written.
    """

    def __init__(self, path: Path, of: Mapping[str, Any], width: int, dtype: str) -> None:
        self.path, self.width, self.dtype = path, width, np.dtype(dtype).newbyteorder("<")
        self.count = 0
        self._record = width * self.dtype.itemsize + CHECK
        line = json.dumps({**of, "width": width, "dtype": dtype}, sort_keys=True).encode() + b"\n"
        self._first = len(line)
        with storage.writing("the features", path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(path, "a+b", buffering=0, opener=storage.open_own)  # noqa: SIM115  closed by `close`
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            raise Refusal(
                "another evaluation computes these features", where=str(path), remedy="wait for it, or end it"
            ) from error
        self._file.seek(0)
        with storage.writing("the features", path):
            if self._file.read(self._first) != line:
                self._file.truncate(0)
                self._file.write(line)
        self.keep(sum(len(block) for block in self.blocks()))

    def __enter__(self) -> Rows:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def blocks(self) -> Iterator[np.ndarray]:
        """The rows in order, (n, width) at once, up to the first that is not as it was written."""
        self._file.seek(self._first)
        number, most = 0, max(1, AT_ONCE // self._record)
        while True:
            found = np.frombuffer(self._file.read(most * self._record), np.uint8)
            records = found[: len(found) // self._record * self._record].reshape(-1, self._record)
            whole = 0
            while whole < len(records) and self._is_whole(number + whole, records[whole]):
                whole += 1
            if whole:
                yield np.ascontiguousarray(records[:whole, :-CHECK]).view(self.dtype)
            if whole < most:
                return
            number += whole

    def keep(self, count: int) -> None:
        """Forget all rows but the first `count`."""
        self._file.truncate(self._first + count * self._record)
        self.count = count

    def append(self, rows: np.ndarray) -> None:
        """Add rows (n, width). Raises Refusal for a full disk, and for numbers that do not fit into the dtype."""
        if rows.ndim != 2 or rows.shape[1] != self.width:
            raise ValueError(f"rows are (n, {self.width}), not {rows.shape}")
        with np.errstate(over="ignore"):
            kept = np.ascontiguousarray(rows.astype(self.dtype))
        if not np.array_equal(np.isfinite(kept), np.isfinite(rows)):
            raise Refusal(
                f"features of up to {np.abs(rows).max():.3g} do not fit into {self.dtype.name}",
                where=str(self.path),
                remedy="keep them as float32: leave out --half",
            )
        content = b"".join(self._checked(self.count + place, row.tobytes()) for place, row in enumerate(kept))
        with storage.writing("the features", self.path):
            self._file.write(content)
        self.count += len(kept)

    def close(self) -> None:
        """Let go of the file, which stays."""
        self._file.close()

    def remove(self) -> None:
        """The rows are elsewhere now."""
        storage.remove(self.path)
        self.close()

    def _checked(self, number: int, row: bytes) -> bytes:
        return row + zlib.crc32(row, number & 0xFFFFFFFF).to_bytes(CHECK, "little")

    def _is_whole(self, number: int, record: np.ndarray) -> bool:
        content = record.tobytes()
        return content == self._checked(number, content[:-CHECK])
