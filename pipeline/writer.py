"""Write one video into a store: shards, then array metadata, then the commit record, last and atomically."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec

from pipeline import environment, layout, shard
from pipeline.codec import JpegCodec
from pipeline.errors import Refusal
from pipeline.settings import ExtractionSettings, differences, settings_hash
from pipeline.store import VideoStore, open_store
from pipeline.views import View


def create_store(path: Path, settings: ExtractionSettings) -> VideoStore:
    """The store at `path`, made if it is not there.

    Raises Refusal when the path is a file or some other folder, or when the store was made with other settings; then
    it says field by field what differs, and nothing has been touched.
    """
    wanted = settings.as_dict()
    if path.exists() and not path.is_dir():
        raise Refusal("the store's path is a file", where=str(path), remedy="give a folder that does not exist yet")
    if not (path / layout.RECORD).exists():
        if path.is_dir() and any(path.iterdir()):
            raise Refusal(
                "this folder is not empty and not a store",
                where=str(path),
                remedy="give an empty or a new folder as STORE=; nothing was written",
            )
        (path / "videos").mkdir(parents=True, exist_ok=True)
        layout.write_atomically(path / "videos" / layout.RECORD, layout.group())
        attributes = {
            "schema": layout.SCHEMA,
            "settings": wanted,
            "settings_hash": settings_hash(wanted),
            "software": environment.versions(),
        }
        layout.write_atomically(path / layout.RECORD, layout.group({layout.ATTRIBUTE: attributes}))
    store = open_store(path)
    if store.settings_hash != settings_hash(wanted):
        raise Refusal(
            "the store was made with other settings:\n    " + "\n    ".join(differences(store.settings, wanted)),
            where=str(path),
            remedy="use the store's settings, or another STORE=; nothing was written",
        )
    return store


def add_classes(root: Path, classes: list[str]) -> None:
    """Keep the order of the classes that are there (their indices stay what they were); append what is new."""
    path = root / "classes.txt"
    present = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    merged = present + [name for name in classes if name not in present]
    if merged != present:
        layout.write_atomically(path, "".join(f"{name}\n" for name in merged).encode())


class VideoWriter:
    """The only writer of one video's folder. Use: `begin`, `add` blocks of each view, `commit`; on failure `discard`."""

    def __init__(self, root: Path, video_id: str) -> None:
        self.root, self.video_id = root, video_id
        self.folder = layout.video_folder(root, video_id)
        self.pending: dict[str, list[np.ndarray]] = {}
        self.lengths: dict[str, int] = {}
        self.files: dict[str, str] = {}  # path below the folder -> digest

    def begin(self) -> None:
        """Take the record away first, so that readers never see new frames under an old record; then old arrays."""
        self.discard()
        self.folder.mkdir(parents=True, exist_ok=True)
        for parent in [*self.folder.parents][: len(layout.quoted(self.video_id).split("/")) - 1]:
            _write_group_once(parent / layout.RECORD)

    def add(self, view: View, streams: list[np.ndarray]) -> None:
        """Take the next encoded frames of a view; full shards go to the disk."""
        pending = self.pending.setdefault(view.name, [])
        pending += streams
        while len(pending) > shard.FRAMES_PER_SHARD:
            self._write_shard(view.name, pending[: shard.FRAMES_PER_SHARD], shard.FRAMES_PER_SHARD)
            del pending[: shard.FRAMES_PER_SHARD]

    def commit(self, views: list[View], facts: dict[str, Any]) -> dict[str, Any]:
        """Write what is pending and each array's zarr.json, then the commit record. Returns the record."""
        shapes = {}
        for view in views:
            rest = self.pending.pop(view.name, [])
            if rest:
                whole = self.lengths.get(view.name, 0) == 0
                self._write_shard(view.name, rest, len(rest) if whole else shard.FRAMES_PER_SHARD)
            shapes[view.name] = (self.lengths.get(view.name, 0), *view.frame_shape)
            self._write_array_metadata(view, shapes[view.name])
        record = layout.seal({**facts, "video_id": self.video_id, "shapes": shapes, "files": self.files})
        self._flush_folders()
        layout.write_atomically(self.folder / layout.RECORD, layout.group({layout.ATTRIBUTE: record}))
        return record

    def discard(self) -> None:
        """Remove the record and everything of this video; folders of other videos below the same name stay."""
        (self.folder / layout.RECORD).unlink(missing_ok=True)
        if not self.folder.is_dir():
            return
        for entry in os.scandir(self.folder):
            if entry.is_file():
                os.unlink(entry.path)
            elif entry.name in layout.RESERVED:
                shutil.rmtree(entry.path)
        with contextlib.suppress(OSError):  # not empty: another video's folder lies below
            self.folder.rmdir()

    def _write_shard(self, view: str, streams: list[np.ndarray], slots: int) -> None:
        number = self.lengths.get(view, 0) // shard.FRAMES_PER_SHARD
        path = shard.path(self.folder / view, number, 4)
        path.parent.mkdir(parents=True, exist_ok=True)
        data = shard.pack(streams, slots)
        layout.write_atomically(path, data)
        self.files[str(path.relative_to(self.folder))] = layout.digest(data)
        self.lengths[view] = self.lengths.get(view, 0) + len(streams)

    def _write_array_metadata(self, view: View, shape: tuple[int, ...]) -> None:
        # The array's own path is opened as the store: through the root, Zarr would write the parents' zarr.json at once.
        slots = max(1, min(shape[0], shard.FRAMES_PER_SHARD))
        zarr.create_array(
            str(self.folder / view.name),
            shape=shape,
            dtype="uint8",
            chunks=(1, *shape[1:]),
            shards=(slots, *shape[1:]),
            filters=[],
            compressors=[Crc32cCodec()],
            serializer=JpegCodec(view.settings.quality, view.layout),
            fill_value=0,
            dimension_names=("frame", "y", "x", "channel") if view.layout == "rgb" else ("frame", "plane", "y", "x"),
            attributes=view.attributes,
            config={"write_empty_chunks": True},
        )
        path = self.folder / view.name / layout.RECORD
        self.files[str(path.relative_to(self.folder))] = layout.file_digest(path)

    def _flush_folders(self) -> None:
        """Make the names of the shards durable before the record says that they are there."""
        folders = {
            folder for name in self.files for folder in (self.folder / name).parents if self.folder in folder.parents
        }
        for folder in [*folders, self.folder, self.folder.parent]:
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _write_group_once(path: Path) -> None:
    """A folder's zarr.json, unless there is one: it may be the record of a video of the folder's name."""
    aside = path.with_name(f"{path.name}.{os.getpid()}.partial")
    aside.write_bytes(layout.group())
    try:
        os.link(aside, path)
    except FileExistsError:
        pass
    finally:
        aside.unlink()
