"""Local disks: a file becomes whole by being written aside, flushed and renamed."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO, Literal, TextIO

from pipeline.storage.entry import Entry
from pipeline.storage.limits import LARGEST_JSON, LARGEST_LIST, within

ASIDE = ".partial"
TRIES = 100  # of making a folder that other writers remove
CHECKED_BYTES = 2**24  # that are read without asking how large the file is; clips have a tenth
HASHED_BYTES = 2**20  # at once
UNGUARDED: AbstractContextManager[None] = contextlib.nullcontext()


class Disk:
    """What `pipeline.storage` does with local paths."""

    def open_file(self, path: Path) -> DiskFile:
        return DiskFile(path)

    def read(self, path: Path, most: int) -> bytes:
        return read_regular(path, most)

    def changed(self, path: Path) -> int:
        return path.stat().st_mtime_ns

    def write(self, path: Path, data: bytes) -> None:
        with _created(path, "wb") as file:
            file.write(data)

    def write_atomically(self, path: Path, data: bytes) -> None:
        _write_and_rename(path, data, os.fsync)

    def write_together(self, files: Mapping[Path, bytes]) -> None:
        aside = {path: path.with_name(path.name + ASIDE) for path in files}
        try:
            for path, data in files.items():
                _refuse_special(path)
                with _created(aside[path]) as file:
                    file.write(data)
            flush_file_system(next(iter(files)).parent)
            for path, written in aside.items():
                os.replace(written, path)
        except BaseException:
            for written in aside.values():
                written.unlink(missing_ok=True)
            raise

    def commit(self, path: Path, data: bytes) -> None:
        _write_and_rename(path, data, lambda _: flush_file_system(path.parent))

    def left_aside(self, folder: Path, skip: frozenset[str] = frozenset()) -> Iterator[Path]:
        for above, below, files in os.walk(folder):
            yield from (Path(above, name) for name in [*below, *files] if name.endswith(ASIDE))
            below[:] = [name for name in below if name not in skip and not name.endswith(ASIDE)]

    def files_below(self, folder: Path, skip: frozenset[str] = frozenset()) -> Iterator[Entry]:
        return _files_below(folder, skip)

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
        # Not looked at first: the video `a/b` may come into the folder of `a` meanwhile.
        try:
            path.rmdir()
        except FileNotFoundError:
            return True
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            return False
        return True


class DiskFile:
    """A descriptor, closed when the last thread that holds this object lets go of it."""

    def __init__(self, path: Path) -> None:
        self.descriptor = regular(path)

    def read(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes from `offset`; fewer at the end of the file."""
        if length > CHECKED_BYTES:  # memory for them would be taken first
            length = max(0, min(length, os.fstat(self.descriptor).st_size - offset))
        return os.pread(self.descriptor, length, offset) if length else b""

    def tail(self, length: int) -> bytes:
        """The last `length` bytes; all of a file that is shorter."""
        return self.read(max(0, os.fstat(self.descriptor).st_size - length), length)

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


def read_regular(path: Path, most: int = LARGEST_LIST) -> bytes:
    """All bytes of a local file. Raises OSError; also for what is no regular file, whose bytes may never come or never
    end, and for one of more than `most` bytes, before memory is taken for them."""
    with open(path, "rb", opener=regular) as file:
        within(os.fstat(file.fileno()).st_size, most, path)
        return file.read()


def open_regular(path: Path) -> BinaryIO:
    """A local file for reading. Raises OSError as `read_regular` does."""
    return open(path, "rb", opener=regular)


def open_text(path: Path, newline: str | None = None) -> TextIO:
    """A local list (UTF-8, a mark at its start is left out), line by line. Raises OSError as `read_regular` does."""
    return open(path, newline=newline, encoding="utf-8-sig", opener=_list)


def _list(path: str, flags: int) -> int:
    descriptor = regular(path, flags)
    try:
        within(os.fstat(descriptor).st_size, LARGEST_LIST, Path(path))
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def read_text(path: Path, most: int = LARGEST_JSON) -> str:
    """As `read_regular`, but text (UTF-8, a mark at its start is left out). Raises UnicodeDecodeError too."""
    return read_regular(path, most).decode("utf-8-sig")


def require_regular(path: Path) -> Path:
    """The path, for libraries that open a file themselves. Raises OSError as `read_regular` does."""
    os.close(regular(path))
    return path


def file_digest(path: Path, guard: AbstractContextManager[None] = UNGUARDED) -> str:
    """What `digest` says of the whole of a local file's bytes, in little memory. `guard` is entered around each read,
    and each takes a moment. Raises OSError as `read_regular` does."""
    hashed = hashlib.sha256()
    with open(path, "rb", buffering=0, opener=regular) as file:
        while True:
            with guard:
                part = file.read(HASHED_BYTES)
            if not part:
                return hashed.hexdigest()
            hashed.update(part)


def open_own(path: str | Path, flags: int) -> int:
    """For `open`, where this process writes: as `regular`, and never through a link at the end of the path, which leads
    to what is somebody else's. Raises OSError."""
    return regular(path, flags | os.O_NOFOLLOW)


def regular(path: str | Path, flags: int = os.O_RDONLY) -> int:
    """A descriptor, as `open(..., opener=regular)` takes it. Opening does not wait, as it would for who is at the other
    end of a FIFO. Raises OSError for what is no regular file."""
    irregular = OSError(errno.EINVAL, "it is not a regular file", str(path))
    try:
        descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno == errno.ENXIO:  # a FIFO that nobody reads, or a socket
            raise irregular from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise irregular
    return descriptor


def stamp_of(paths: Iterable[Path]) -> int:
    """Another number, of 63 bits, where one of these local files was written again, renamed, or is gone; of a link that
    leads nowhere the name counts."""
    found = hashlib.blake2b(digest_size=8)
    for path in paths:
        told = f"{path.name}/"
        with contextlib.suppress(OSError):
            facts = path.stat()
            told += f"{facts.st_size}/{facts.st_mtime_ns}/"
        found.update(told.encode(errors="surrogateescape"))
    return int.from_bytes(found.digest()) >> 1


@contextlib.contextmanager
def writing_aside(path: Path) -> Iterator[Path]:
    """For what is written piece by piece, a local file or folder: a path to write to, renamed when the block ends well.

    Folders above `path` are made; after an exception nothing else is left. Raises OSError, also where a device or a
    pipe is.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _refuse_special(path)
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


def exchange(one: Path, other: Path) -> bool:
    """Let two folders take each other's place in one step; False, and nothing is changed, where the file system cannot.
    Raises OSError."""
    sys.audit("os.rename", str(one), str(other), -1, -1)  # as Python's own functions do
    library = ctypes.CDLL(None, use_errno=True)
    names = (_HERE, os.fsencode(one), _HERE, os.fsencode(other))
    if not hasattr(library, "renameat2") or library.renameat2(*names, _RENAME_EXCHANGE) != 0:
        code = ctypes.get_errno()
        if code not in (0, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise OSError(code, os.strerror(code), str(one), None, str(other))
        return False
    return True


_HERE, _RENAME_EXCHANGE = -100, 2  # AT_FDCWD and the flag, as Linux numbers them


def _write_and_rename(path: Path, data: bytes, flush: Callable[[int], None]) -> None:
    """flush: what makes durable at least the open file whose descriptor it is given."""
    _refuse_special(path)
    aside = path.with_name(path.name + ASIDE)
    try:
        with _created(aside) as file:
            file.write(data)
            file.flush()
            flush(file.fileno())
        os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def _refuse_special(path: Path) -> None:
    """Raises OSError where a device, a pipe or a socket is: a rename would put a file in its place for everyone."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        mode = path.lstat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode) or stat.S_ISDIR(mode)):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))


def _created(path: Path, mode: Literal["xb", "wb"] = "xb") -> BinaryIO:
    """A file to write to, for "xb" a new one. Folders above it are made, and again where the writer of a video above
    has just removed one."""
    for _ in range(TRIES):
        with contextlib.suppress(FileNotFoundError):
            path.parent.mkdir(parents=True, exist_ok=True)
            if mode == "xb":  # what is there is of a process that was killed, or a link, which would be followed
                path.unlink(missing_ok=True)
            return open(path, mode, opener=open_own)
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))


def _files_below(root: Path, skip: frozenset[str]) -> Iterator[Entry]:
    """Without recursion, for folders may lie deeper than it may go; a link that leads nowhere is no file."""
    waiting = [""]
    while waiting:
        below = waiting.pop()
        with contextlib.suppress(FileNotFoundError):
            folders = []
            for entry in sorted(os.scandir(f"{root}/{below}"), key=lambda entry: entry.name):
                if entry.is_dir():
                    folders.append(f"{below}{entry.name}/")
                    continue
                with contextlib.suppress(FileNotFoundError):
                    facts = entry.stat()
                    yield Entry(root, below + entry.name, facts.st_size, facts.st_mtime_ns)
            waiting += [path for path in reversed(folders) if path.split("/")[-2] not in skip]
