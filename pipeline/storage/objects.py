"""Object stores and whatever else fsspec reaches: a file appears whole or not at all, and there are no folders."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, cast

from upath import UPath

from pipeline.storage.entry import Entry
from pipeline.storage.limits import within


class ObjectStore:
    """What `pipeline.storage` does with all others. What is written makes folders above it seem to be; nothing lies
    aside."""

    def open_file(self, path: Path) -> ObjectFile:
        return ObjectFile(path)

    def read(self, path: Path, most: int) -> bytes:
        """It is asked for its size by what comes: to ask before would be a second request for every record."""
        with _client(path) as (system, name):
            content = system.cat_file(name)
            within(len(content), most, path)
            return content

    def changed(self, path: Path) -> int:
        with _client(path) as (system, name):
            return _changed(system.info(name))

    def write(self, path: Path, data: bytes) -> None:
        with _client(path) as (system, name):
            system.pipe_file(name, data)

    write_atomically = commit = write

    def write_together(self, files: Mapping[Path, bytes]) -> None:
        for path, data in files.items():
            self.write(path, data)

    def left_aside(self, folder: Path, skip: frozenset[str] = frozenset()) -> Iterator[Path]:
        return iter(())

    def files_below(self, folder: Path, skip: frozenset[str] = frozenset()) -> Iterator[Entry]:
        with _client(folder) as (system, root):
            found = system.find(root, detail=True, withdirs=False)
        below = {os.path.relpath(name, root): facts for name, facts in found.items()}
        for name, facts in sorted(below.items(), key=lambda file: _order(file[0])):
            if not skip.intersection(name.split("/")[:-1]):
                yield Entry(folder, name, facts["size"], _changed(facts), str(facts.get("ETag", "")))

    def entries(self, folder: Path) -> list[tuple[Path, bool]]:
        with contextlib.suppress(FileNotFoundError), _client(folder) as (system, root):
            found = system.ls(root, detail=True)
            return [(folder / PurePosixPath(facts["name"]).name, facts["type"] == "directory") for facts in found]
        return []

    def make_folder(self, path: Path) -> None:
        """There is nothing to make."""

    def remove(self, path: Path) -> None:
        with contextlib.suppress(FileNotFoundError), _client(path) as (system, name):
            system.rm_file(name)

    def remove_folder(self, path: Path) -> None:
        with contextlib.suppress(FileNotFoundError), _client(path) as (system, root):
            system.rm(root, recursive=True)

    def remove_empty(self, path: Path) -> bool:
        return not self.entries(path)


class ObjectFile:
    """As `DiskFile`; each read is one request."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, offset: int, length: int) -> bytes:
        with _client(self.path) as (system, name):
            return system.cat_file(name, start=offset, end=offset + length)

    def tail(self, length: int) -> bytes:
        with _client(self.path) as (system, name):
            return system.cat_file(name, start=-length)


def create_exclusively(path: Path, data: bytes) -> bool:
    """Write a remote file only where there is none; tells whether it did. Two that try at once: one succeeds."""
    with contextlib.suppress(FileExistsError), _client(path) as (system, name):
        system.pipe_file(name, data, mode="create")
        return True
    return False


@contextlib.contextmanager
def _client(path: Path) -> Iterator[tuple[Any, str]]:
    """What reaches a file, and the file's name there; errors of its own become what a disk tells, an OSError."""
    remote = cast(UPath, path)
    try:
        yield remote.fs, remote.path
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
    except Exception as error:
        raise OSError(errno.EIO, f"{type(error).__name__}: {error}", str(path)) from error


def _order(name: str) -> tuple[tuple[bool, str], ...]:
    """Of a file as `files_below` has it."""
    *folders, file = name.split("/")
    return (*((True, folder) for folder in folders), (False, file))


def _changed(facts: dict[str, Any]) -> int:
    # Each file system has a name of its own for it.
    time = next(
        facts[name] for name in ("LastModified", "last_modified", "created", "mtime", "updated") if name in facts
    )
    seconds = time.timestamp() if hasattr(time, "timestamp") else float(time)
    return int(seconds * 1e9)
