"""Arrow's columns as plain memory: put together in NumPy's arrays, and digested, without copies to spare."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa


class Growing:
    """An array that is put together in place: of the parts and the whole of ten million rows no two fit into memory."""

    def __init__(self, expected: int) -> None:
        self.expected, self.count = expected, 0
        self.array: np.ndarray | None = None

    def add(self, part: np.ndarray) -> None:
        if self.array is None:
            self.array = np.empty((self.expected, *part.shape[1:]), part.dtype)
        end = self.count + len(part)
        if end > len(self.array):
            self.array.resize((end + end // 8, *part.shape[1:]), refcheck=False)
        self.array[self.count : end] = part
        self.count = end

    def whole(self) -> np.ndarray:
        assert self.array is not None
        self.array.resize((self.count, *self.array.shape[1:]), refcheck=False)
        return self.array

    def summed(self) -> np.ndarray:
        """Where what has these lengths begins: their sums, in wider numbers where they need it."""
        lengths = self.whole()
        wide = lengths.sum(dtype=np.int64) > np.iinfo(np.int32).max
        return np.cumsum(lengths, dtype=np.int64) if wide else np.cumsum(lengths, dtype=np.int32, out=lengths)


def list_array(kind: pa.DataType, begins: np.ndarray, content: np.ndarray) -> pa.Array:
    """Strings or lists, without copying what is in them."""
    large = begins.dtype == np.int64
    if pa.types.is_string(kind):
        buffers = [None, pa.py_buffer(begins), pa.py_buffer(content)]
        return pa.Array.from_buffers(pa.large_string() if large else kind, len(begins) - 1, buffers)
    return (pa.LargeListArray if large else pa.ListArray).from_arrays(pa.array(begins), pa.array(content))


def nothing(schema: pa.Schema) -> pa.RecordBatch:
    """No rows. Arrays of lists would import pandas where it is installed: a fifth of what a worker takes to start."""
    return pa.RecordBatch.from_arrays([pa.nulls(0, field.type) for field in schema], schema=schema)


def digest_into(hashed: Any, batch: pa.RecordBatch) -> None:
    """Take in all values of a batch, whatever buffers they lie in."""
    for column in batch.columns:
        if pa.types.is_string(column.type) or pa.types.is_list(column.type):
            hashed.update(np.diff(offsets(column)))
        hashed.update(values(column))


def numbers(column: pa.Array) -> np.ndarray:
    """The values of a column of one length each; binary (N, bytes)."""
    if not pa.types.is_fixed_size_binary(column.type):
        return column.to_numpy(zero_copy_only=False)
    width = column.type.byte_width
    found = np.frombuffer(column.buffers()[1] or b"", np.uint8)
    return found[column.offset * width : (column.offset + len(column)) * width].reshape(-1, width)


def offsets(column: pa.Array) -> np.ndarray:
    """Where each value of a column of strings or lists begins and the last one ends."""
    found = np.frombuffer(column.buffers()[1] or bytes(4), np.int32)
    return found[column.offset : column.offset + len(column) + 1]


def values(column: pa.Array) -> np.ndarray:
    """All numbers of a column, one after the other; of strings their bytes."""
    if pa.types.is_list(column.type):
        return numbers(column.flatten())
    if not pa.types.is_string(column.type):
        return numbers(column)
    begins = offsets(column)
    return np.frombuffer(column.buffers()[2] or b"", np.uint8)[begins[0] : begins[-1]]
