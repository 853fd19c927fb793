"""Where files lie: local folders, the fast path, or any URL that fsspec knows (`s3://bucket/store`, `memory://store`).

Everything that writes or reads a store goes through here. A remote location is a `upath.UPath`, which has the interface of
`pathlib.Path`; it is typed as one. What differs is how a file becomes whole: a local one is written aside and renamed, an
object store's appears whole or not at all.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, cast

from fsspec.core import split_protocol
from fsspec.registry import get_filesystem_class
from upath import UPath

from pipeline.errors import UsageError

LOCAL_PROTOCOLS = (None, "file", "local")


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
        return cast(Path, UPath(os.fspath(path), use_listings_cache=False))
    except (ValueError, ImportError) as error:
        raise UsageError(
            f"stores at {protocol}:// cannot be reached: {error}",
            where=os.fspath(path),
            remedy="s3:// needs `pip install 'costream[s3]'`; other kinds need the fsspec package of their own",
        ) from error


def absolute(path: Path) -> Path:
    """The same place whatever the working directory; a URL is so already."""
    return path.absolute() if is_local(path) else path


def is_local(path: Path) -> bool:
    return isinstance(path, Path)


def in_this_process_only(path: Path) -> bool:
    """Whether other processes see nothing of what lies here."""
    return not is_local(path) and _remote(path).protocol == "memory"


class OpenFile(Protocol):
    """A file for positioned reads, by several threads at once."""

    def read(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes from `offset`; fewer at the end of the file."""

    def tail(self, length: int) -> bytes:
        """The last `length` bytes; all of a file that is shorter."""


class LocalFile:
    """A descriptor, closed when the last thread that holds this object lets go of it."""

    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_RDONLY)

    def read(self, offset: int, length: int) -> bytes:
        return os.pread(self.descriptor, length, offset)

    def tail(self, length: int) -> bytes:
        return self.read(max(0, os.fstat(self.descriptor).st_size - length), length)

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


class RemoteFile:
    """An object; each read is one request."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, offset: int, length: int) -> bytes:
        with _told_as_os_error(self.path):
            return _remote(self.path).fs.cat_file(_remote(self.path).path, start=offset, end=offset + length)

    def tail(self, length: int) -> bytes:
        with _told_as_os_error(self.path):
            return _remote(self.path).fs.cat_file(_remote(self.path).path, start=-length)


def open_file(path: Path) -> OpenFile:
    """Raises OSError, for a remote file when it is read."""
    return LocalFile(path) if is_local(path) else RemoteFile(path)


def read(path: Path) -> bytes:
    """A whole file. Raises OSError, FileNotFoundError where there is none."""
    if is_local(path):
        return path.read_bytes()
    with _told_as_os_error(path):
        return _remote(path).fs.cat_file(_remote(path).path)


def read_if_there(path: Path) -> bytes | None:
    """A whole file, or None where there is none."""
    try:
        return read(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def digest(data: bytes | memoryview) -> str:
    """Digest of a file's bytes as recorded."""
    return hashlib.sha256(data).hexdigest()


def file_digest(path: Path) -> str:
    """The same of a whole local file, in little memory."""
    with open(path, "rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_and_size(path: Path) -> tuple[str, int]:
    """Digest and bytes of a whole file wherever it lies. Raises OSError."""
    if is_local(path):
        return file_digest(path), path.stat().st_size
    content = read(path)
    return digest(content), len(content)


def write(path: Path, data: bytes) -> None:
    """A file that nobody reads before something else vouches for it: in place, not flushed. Folders above it are made."""
    if is_local(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    else:
        _put(path, data)


def write_atomically(path: Path, data: bytes) -> None:
    """Write aside, flush to the disk, rename: a reader sees the old file or the whole new one, also after a power cut."""
    if not is_local(path):
        return _put(path, data)
    aside = path.with_name(path.name + ".partial")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    os.replace(aside, path)


def commit(path: Path, data: bytes) -> None:
    """The same, but for a file that vouches for others: whatever was written before it is durable before it appears."""
    if not is_local(path):
        return _put(path, data)
    aside = path.with_name(path.name + ".partial")
    aside.write_bytes(data)
    flush_file_system(path.parent)
    os.replace(aside, path)


@contextlib.contextmanager
def writing_aside(path: Path) -> Iterator[Path]:
    """The same for what is written piece by piece, a local file or folder: a path to write to, renamed when the block ends well.

    Folders above `path` are made; after an exception nothing else is left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".writing.", suffix=".partial", dir=path.parent))
    try:
        yield folder / path.name
        flush_file_system(folder)
        os.replace(folder / path.name, path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def flush_file_system(folder: Path) -> None:
    """Make durable everything that was written to the file system of `folder`, names and all.

    One call instead of an fsync for every file and folder of a video: 15 of those cost 30 to 50 ms on a virtual disk,
    this one 4 to 6 (tests/benchmarks/extraction.py measures it).
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(descriptor) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(folder))
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class Entry:
    """A file below a folder. name: its path below that, with slashes. changed: when, in nanoseconds since 1970."""

    folder: Path
    name: str
    size: int
    changed: int

    @property
    def path(self) -> Path:
        return self.folder / self.name  # made when it is asked for: it costs more than finding the file


def files_below(folder: Path, skip: frozenset[str] = frozenset()) -> Iterator[Entry]:
    """Every file below a folder, in no order; folders whose names are in `skip` are not entered. None where none is."""
    if is_local(folder):
        yield from _local_files(folder, "", skip)
        return
    with _told_as_os_error(folder):
        root = _remote(folder)
        found = root.fs.find(root.path, detail=True, withdirs=False)
    for name, facts in found.items():
        below = os.path.relpath(name, root.path)
        if not skip.intersection(below.split("/")[:-1]):
            yield Entry(folder, below, facts["size"], _changed(facts))


def entries(folder: Path) -> list[tuple[Path, bool]]:
    """What lies in a folder, each with whether it is a folder itself; nothing where there is none."""
    try:
        if is_local(folder):
            return [(Path(entry.path), entry.is_dir()) for entry in os.scandir(folder)]
        with _told_as_os_error(folder):
            found = _remote(folder).fs.ls(_remote(folder).path, detail=True)
        names = [(PurePosixPath(facts["name"]).name, facts["type"] == "directory") for facts in found]
        return [(folder / name, is_folder) for name, is_folder in names]
    except FileNotFoundError:
        return []


def make_folder(path: Path) -> None:
    """A folder and those above it. Object stores have none: what is written there makes them seem to be."""
    if is_local(path):
        path.mkdir(parents=True, exist_ok=True)


def remove_empty(path: Path) -> bool:
    """Remove a folder if nothing lies in it; tells whether it is gone."""
    if entries(path):
        return False
    if is_local(path):
        with contextlib.suppress(FileNotFoundError):
            path.rmdir()
    return True


def remove(path: Path) -> None:
    """A file; nothing where there is none."""
    if is_local(path):
        path.unlink(missing_ok=True)
        return
    with contextlib.suppress(FileNotFoundError), _told_as_os_error(path):
        _remote(path).fs.rm_file(_remote(path).path)


def remove_folder(path: Path) -> None:
    """A folder with everything below it; nothing where there is none."""
    if is_local(path):
        if path.is_dir():
            shutil.rmtree(path)
        return
    with contextlib.suppress(FileNotFoundError), _told_as_os_error(path):
        _remote(path).fs.rm(_remote(path).path, recursive=True)


def create_exclusively(path: Path, data: bytes) -> bool:
    """Write a remote file only where there is none; tells whether it did. Two that try at once: one succeeds."""
    remote = _remote(path)
    with _told_as_os_error(path):
        try:
            remote.fs.pipe_file(remote.path, data, mode="create")
        except FileExistsError:
            return False
    return True


def changed(path: Path) -> int:
    """When a file was changed last, in nanoseconds since 1970. Raises OSError."""
    if is_local(path):
        return path.stat().st_mtime_ns
    with _told_as_os_error(path):
        return _changed(_remote(path).fs.info(_remote(path).path))


def _put(path: Path, data: bytes) -> None:
    with _told_as_os_error(path):
        _remote(path).fs.pipe_file(_remote(path).path, data)


def _local_files(root: Path, below: str, skip: frozenset[str]) -> Iterator[Entry]:
    try:
        entries = list(os.scandir(f"{root}/{below}"))
    except FileNotFoundError:
        return
    for entry in entries:
        if entry.is_dir():
            if entry.name not in skip:
                yield from _local_files(root, f"{below}{entry.name}/", skip)
        else:
            facts = entry.stat()
            yield Entry(root, below + entry.name, facts.st_size, facts.st_mtime_ns)


def _changed(facts: dict[str, Any]) -> int:
    # Each file system has a name of its own for it.
    time = next(
        facts[name] for name in ("LastModified", "last_modified", "created", "mtime", "updated") if name in facts
    )
    seconds = time.timestamp() if hasattr(time, "timestamp") else float(time)
    return int(seconds * 1e9)


def _remote(path: Path) -> UPath:
    return cast(UPath, path)


@contextlib.contextmanager
def _told_as_os_error(path: Path) -> Iterator[None]:
    """Clients of object stores have exceptions of their own for what a disk tells by an OSError."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
    except Exception as error:
        raise OSError(errno.EIO, f"{type(error).__name__}: {error}", str(path)) from error
