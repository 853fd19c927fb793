"""Files that carry a digest of their own content: changed bytes are noticed, and no kill parts the two.

Binary files end with it, behind what their formats read: HDF5 files may be longer than they say, and a ZIP archive,
which is what `torch.save` writes, may end with a comment. A JSON list of records has it in its last record.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.storage.disk import regular

MARK = b"\ncostream sha256 "
LENGTH = len(MARK) + 2 * hashlib.sha256().digest_size + 1
END_OF_ZIP = b"PK\x05\x06"  # begins the last 22 bytes of an archive without a comment; their last two are its length
PIECE = 1 << 22  # bytes read at once
CHANGED = "its bytes are not those that were written"


def seal(data: bytes) -> bytes:
    """The content of a binary file followed by its digest; of a ZIP archive as its comment."""
    if data[-22:-18] == END_OF_ZIP:
        data = data[:-2] + struct.pack("<H", LENGTH)
    return data + MARK + hashlib.sha256(data).hexdigest().encode() + b"\n"


def seal_file(path: Path) -> None:
    """Put its digest behind a local file, which is no ZIP archive. Raises OSError."""
    with open(path, "r+b") as file:
        total = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0, 2)
        file.write(MARK + total.encode() + b"\n")


def check(path: Path) -> bool:
    """Whether a binary file ends with its digest. Raises ValueError where that is not of its content, OSError as
    `storage.read_regular`."""
    total = hashlib.sha256()
    with open(path, "rb", opener=regular) as file:
        size = file.seek(0, 2)
        left = max(0, size - LENGTH)
        file.seek(max(0, left - LENGTH))  # the end may be cut, or something may come after it
        if MARK not in file.read():
            return False
        file.seek(left)
        end = file.read()
        file.seek(0)
        while left and (piece := file.read(min(PIECE, left))):
            total.update(piece)
            left -= len(piece)
    if end != MARK + total.hexdigest().encode() + b"\n":
        raise ValueError(CHANGED)
    return True


def seal_records(records: list[dict[str, Any]]) -> bytes:
    """A JSON list of records, the last with the digest of all. Raises ValueError for numbers that JSON has not."""
    return "".join(_sealed_records(records)).encode()


def _sealed_records(records: list[dict[str, Any]]) -> Iterator[str]:
    """Piece by piece."""
    digest = hashlib.sha256(json.dumps(records, allow_nan=False).encode()).hexdigest()
    listed = [*records[:-1], *({**record, "digest": digest} for record in records[-1:])]
    yield from json.JSONEncoder(indent=1, allow_nan=False).iterencode(listed)
    yield "\n"


def records(data: bytes) -> list[dict[str, Any]]:
    """What `seal_records` was given. Raises ValueError for any other bytes than those that it made."""
    try:
        listed = json.loads(data)
        if not isinstance(listed, list) or not all(isinstance(record, dict) for record in listed):
            raise ValueError("it is no list of records")
        found = [{name: value for name, value in record.items() if name != "digest"} for record in listed]
        at = 0
        for piece in _sealed_records(found):  # what is nested would be far longer in full than it came
            if not data.startswith(piece.encode(), at):
                raise ValueError(CHANGED)
            at += len(piece.encode())
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if at != len(data):
        raise ValueError(CHANGED)
    return found
