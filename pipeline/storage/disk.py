"""Local disks: a file becomes whole by being written aside, flushed and renamed."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from pipeline.storage.entry import Entry

ASIDE = ".partial"


class Disk:
    """What `pipeline.storage` does with local paths."""

    def open_file(self, path: Path) -> DiskFile:
        return DiskFile(path)

    def read(self, path: Path) -> bytes:
        return path.read_bytes()

    def changed(self, path: Path) -> int:
        return path.stat().st_mtime_ns

    def write(self, path: Path, data: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def write_atomically(self, path: Path, data: bytes) -> None:
        _write_and_rename(path, data, os.fsync)

    def commit(self, path: Path, data: bytes) -> None:
        _write_and_rename(path, data, lambda _: flush_file_system(path.parent))

    def left_aside(self, folder: Path, skip: frozenset[str] = frozenset()) -> Iterator[Path]:
        for above, below, files in os.walk(folder):
            yield from (Path(above, name) for name in [*below, *files] if name.endswith(ASIDE))
            below[:] = [name for name in below if name not in skip and not name.endswith(ASIDE)]

    def files_below(self, folder: Path, skip: frozenset[str] = frozenset()) -> Iterator[Entry]:
        return _files_below(folder, "", skip)

    def entries(self, folder: Path) -> list[tuple[Path, bool]]:
        try:
            return [(Path(entry.path), entry.is_dir()) for entry in os.scandir(folder)]
        except FileNotFoundError:
            return []

    def make_folder(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)

    def remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)

    def remove_folder(self, path: Path) -> None:
        if path.is_dir():
            shutil.rmtree(path)

    def remove_empty(self, path: Path) -> bool:
        if self.entries(path):
            return False
        with contextlib.suppress(FileNotFoundError):
            path.rmdir()
        return True


class DiskFile:
    """A descriptor, closed when the last thread that holds this object lets go of it."""

    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_RDONLY)

    def read(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes from `offset`; fewer at the end of the file."""
        return os.pread(self.descriptor, length, offset)

    def tail(self, length: int) -> bytes:
        """The last `length` bytes; all of a file that is shorter."""
        return self.read(max(0, os.fstat(self.descriptor).st_size - length), length)

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


def stamp_of(paths: Iterable[Path]) -> int:
    """Another number, of 63 bits, where one of these local files was written again, renamed, or is gone."""
    found = hashlib.blake2b(digest_size=8)
    for path in paths:
        facts = path.stat()
        found.update(f"{path.name}/{facts.st_size}/{facts.st_mtime_ns}/".encode(errors="surrogateescape"))
    return int.from_bytes(found.digest()) >> 1


def file_digest(path: Path) -> str:
    """What `digest` says of the whole of a local file's bytes, in little memory."""
    with open(path, "rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def writing_aside(path: Path) -> Iterator[Path]:
    """For what is written piece by piece, a local file or folder: a path to write to, renamed when the block ends well.

    Folders above `path` are made; after an exception nothing else is left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".writing.", suffix=ASIDE, dir=path.parent))
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


def _write_and_rename(path: Path, data: bytes, flush: Callable[[int], None]) -> None:
    """flush: what makes durable at least the open file whose descriptor it is given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ASIDE)
    try:
        with open(aside, "wb") as file:
            file.write(data)
            file.flush()
            flush(file.fileno())
        os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def _files_below(root: Path, below: str, skip: frozenset[str]) -> Iterator[Entry]:
    try:
        entries = sorted(os.scandir(f"{root}/{below}"), key=lambda entry: (entry.is_dir(), entry.name))
    except FileNotFoundError:
        return
    for entry in entries:
        if entry.is_dir():
            if entry.name not in skip:
                yield from _files_below(root, f"{below}{entry.name}/", skip)
        else:
            try:
                facts = entry.stat()
            except FileNotFoundError:  # it went while the folder was listed
                continue
            yield Entry(root, below + entry.name, facts.st_size, facts.st_mtime_ns)
