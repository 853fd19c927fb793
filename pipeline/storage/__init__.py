"""Where files lie: local folders, the fast path, or any URL that fsspec knows (`s3://bucket/store`, `memory://store`).

Everything that writes or reads a store goes through here. A remote location is a `upath.UPath`, which has the interface
of `pathlib.Path`; it is typed as one. How things are done there stands in one class for each kind of place, `Disk` and
`ObjectStore`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

from fsspec.core import split_protocol
from fsspec.registry import get_filesystem_class
from upath import UPath

from pipeline.errors import Refusal, UsageError
from pipeline.storage.disk import (
    Disk,
    DiskFile,
    exchange,
    file_digest,
    flush_file_system,
    open_own,
    open_regular,
    open_text,
    read_regular,
    read_text,
    regular,
    require_regular,
    stamp_of,
    writing_aside,
)
from pipeline.storage.entry import Entry
from pipeline.storage.limits import DISK_FAILURES, LARGEST_JSON, LARGEST_LIST, LARGEST_RECORD
from pipeline.storage.objects import ObjectFile, ObjectStore, create_exclusively

__all__ = [
    "DISK_FAILURES",
    "LARGEST_JSON",
    "LARGEST_LIST",
    "LARGEST_RECORD",
    "Entry",
    "create_exclusively",
    "exchange",
    "file_digest",
    "flush_file_system",
    "open_regular",
    "open_text",
    "open_own",
    "read_regular",
    "read_text",
    "regular",
    "require_regular",
    "stamp_of",
    "writing_aside",
]

MAKE_ROOM = "make room (or mend the disk, or its permissions) and run the same command again"
LOCAL_PROTOCOLS = (None, "file", "local")
_DISK, _OBJECT_STORE = Disk(), ObjectStore()

OpenFile = DiskFile | ObjectFile


def location(path: str | os.PathLike) -> Path:
    """The place that a path or URL names. Raises UsageError for a kind of URL that cannot be reached from here."""
    protocol, rest = split_protocol(os.fspath(path)) if not isinstance(path, UPath) else (path.protocol, "")
    if protocol in LOCAL_PROTOCOLS:
        return Path(rest)
    if isinstance(path, UPath):
        return cast(Path, path)
    try:
        get_filesystem_class(protocol)
        # Listings that are kept would hide what other processes write.
        with warnings.catch_warnings(action="ignore", category=UserWarning):  # of kinds that UPath takes for rare
            place = cast(Path, UPath(os.fspath(path), use_listings_cache=False))
            _ = place / "x"  # a URL without a bucket is told of now
        return place
    except (ValueError, TypeError, ImportError) as error:
        raise UsageError(
            f"stores at {protocol}:// cannot be reached: {error}",
            where=os.fspath(path),
            remedy="s3:// needs `pip install 'costream[s3]'`; other kinds need the fsspec package of their own",
        ) from error


def absolute(path: Path) -> Path:
    """The same place whatever the working directory."""
    return path.absolute()


def is_local(path: Path) -> bool:
    return isinstance(path, Path)


def in_this_process_only(path: Path) -> bool:
    """Whether other processes see nothing of what lies here."""
    return not is_local(path) and cast(UPath, path).protocol == "memory"


def open_file(path: Path) -> OpenFile:
    """A file for positioned reads, by several threads at once. Raises OSError, for a remote file when it is read."""
    return _place(path).open_file(path)


def read(path: Path, most: int = LARGEST_LIST) -> bytes:
    """A whole file. Raises OSError, FileNotFoundError where there is none, and where it has more than `most` bytes."""
    return _place(path).read(path, most)


def read_if_there(path: Path, most: int = LARGEST_LIST) -> bytes | None:
    """The same, or None where there is none."""
    try:
        return read(path, most)
    except (FileNotFoundError, NotADirectoryError):
        return None


def digest(data: bytes | memoryview) -> str:
    """Digest of a file's bytes as recorded."""
    return hashlib.sha256(data).hexdigest()


def changed(path: Path) -> int:
    """When a file was changed last, in nanoseconds since 1970. Raises OSError."""
    return _place(path).changed(path)


def write(path: Path, data: bytes) -> None:
    """A file nobody reads before something else vouches for it: in place, not flushed. Folders above it are made."""
    _place(path).write(path, data)


def write_atomically(path: Path, data: bytes) -> None:
    """A reader sees the old file or the whole new one, also after a power cut. Folders above it are made."""
    _place(path).write_atomically(path, data)


def commit(path: Path, data: bytes) -> None:
    """The same, but for a file that vouches for others: whatever was written before it is durable before it appears."""
    _place(path).commit(path, data)


@contextlib.contextmanager
def writing(what: str, path: Path, remedy: str = MAKE_ROOM) -> Iterator[None]:
    """A Refusal for a disk that is full, gone or not ours to write to. what: that is written at `path`, for the
    message."""
    try:
        yield
    except OSError as error:
        raise Refusal(
            f"{what} cannot be written: {error.strerror or error}", where=str(error.filename or path), remedy=remedy
        ) from error


def left_aside(folder: Path, skip: frozenset[str] = frozenset()) -> Iterator[Path]:
    """Files and folders that killed processes were about to rename; folders named in `skip` are not entered."""
    return _place(folder).left_aside(folder, skip)


def write_together(files: Mapping[Path, bytes]) -> None:
    """Many files of one place, each whole or not at all, in far less time than one by one."""
    if files:
        _place(next(iter(files))).write_together(files)


def files_below(folder: Path, skip: frozenset[str] = frozenset()) -> Iterator[Entry]:
    """Every file below a folder; folders whose names are in `skip` are not entered. None where none is.

    In the order of their paths, name by name: of a folder first its own files, then those of the folders in it. Raises
    Refusal.
    """
    with _listed(folder):
        yield from _place(folder).files_below(folder, skip)


@contextlib.contextmanager
def _listed(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Refusal(
            f"this cannot be listed: {error.strerror or error}",
            where=str(error.filename or folder),
            remedy="mend the disk or its permissions; where a file lies in a folder's place, put the folder back",
        ) from error


def entries(folder: Path) -> list[tuple[Path, bool]]:
    """What lies in a folder, each with whether it is a folder itself; nothing where there is none. Raises Refusal."""
    with _listed(folder):
        return _place(folder).entries(folder)


def make_folder(path: Path) -> None:
    """A folder and those above it."""
    _place(path).make_folder(path)


def remove(path: Path) -> None:
    """A file; nothing where there is none."""
    _place(path).remove(path)


def remove_folder(path: Path) -> None:
    """A folder with everything below it; nothing where there is none."""
    _place(path).remove_folder(path)


def remove_empty(path: Path) -> bool:
    """Remove a folder if nothing lies in it; tells whether it is gone."""
    return _place(path).remove_empty(path)


def _place(path: Path) -> Disk | ObjectStore:
    return _DISK if is_local(path) else _OBJECT_STORE
