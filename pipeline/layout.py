"""Where things lie in a store, and the JSON of its groups. No reading of frames, no writing of arrays."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

SCHEMA = 1
ATTRIBUTE = "costream"
RECORD = "zarr.json"
LONGEST_NAME = 240  # bytes; file systems allow 255 and a suffix must fit
# A component of a video id that is the name of something else in its parent's folder must not be taken for it.
RESERVED = frozenset({"rgb", "flow", "segmentation", "pose", "c", RECORD, ".", ".."})
RESERVED_ENDINGS = (".json", ".partial")  # records, quarantine files, and what is written aside


def quoted(video_id: str) -> str:
    """A video id as a relative path: each component percent-encoded, folders kept, reserved and long names told apart."""
    return "/".join(_quote(component) for component in video_id.split("/"))


def unquoted(path: str) -> str:
    """The video id that lies at a relative path, for messages; an id with a very long name does not come back whole."""
    return unquote(path)


def video_folder(store: Path, video_id: str) -> Path:
    return store / "videos" / quoted(video_id)


def record_path(store: Path, video_id: str) -> Path:
    """The commit record of a video."""
    return video_folder(store, video_id) / RECORD


def quarantine_path(store: Path, video_id: str) -> Path:
    return store / "quarantine" / f"{quoted(video_id)}.json"


def classes_path(store: Path) -> Path:
    return store / "classes.txt"


def classes_digest_path(store: Path) -> Path:
    return store / "classes.txt.sha256"


def catalogue_path(store: Path) -> Path:
    return store / "catalogue.parquet"


def group(attributes: dict[str, Any] | None = None) -> bytes:
    """The zarr.json of a Zarr v3 group."""
    content = {"zarr_format": 3, "node_type": "group", "attributes": attributes or {}}
    return (json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def quarantine_file(entry: dict[str, Any]) -> bytes:
    """What is known of a refused video, as its file holds it."""
    return (json.dumps(seal(entry), indent=2, ensure_ascii=False) + "\n").encode()


def attributes_of(zarr_json: bytes) -> dict[str, Any] | None:
    """costream's attributes of a zarr.json; None where it is somebody else's or a plain folder group."""
    attributes = json.loads(zarr_json).get("attributes", {})
    return attributes.get(ATTRIBUTE)


def seal(record: dict[str, Any]) -> dict[str, Any]:
    """Attributes with the digest of their own content, so that a flipped byte in them is noticed too."""
    return {**record, "digest": _content_digest(record)}


def is_sealed(record: dict[str, Any]) -> bool:
    return record.get("digest") == _content_digest({key: value for key, value in record.items() if key != "digest"})


def digest(data: bytes | memoryview) -> str:
    """Digest of a file's bytes as recorded."""
    return hashlib.sha256(data).hexdigest()


def file_digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, data: bytes) -> None:
    """Write aside, flush to the disk, rename: a reader sees the old file or the whole new one, also after a power cut."""
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


@contextlib.contextmanager
def writing_aside(path: Path) -> Iterator[Path]:
    """The same for what is written piece by piece, a file or a folder: a path to write to, renamed when the block ends well.

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


def _content_digest(record: dict[str, Any]) -> str:
    return digest(json.dumps(record, sort_keys=True, separators=(",", ":")).encode())


def _quote(component: str) -> str:
    name = quote(component, safe="")
    if component in RESERVED or component.startswith("__"):
        name = f"%{ord(component[0]):02X}{name[1:]}"
    if component.endswith(RESERVED_ENDINGS):
        name = f"{name[:-1]}%{ord(name[-1]):02X}"
    if len(name) > LONGEST_NAME:
        name = f"{name[:200]}~{digest(component.encode())[:16]}"
    return name
