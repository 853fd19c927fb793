"""Write one video into a store: shards, then array metadata, then the commit record, last and atomically."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import called, storage
from pipeline.errors import Refusal
from pipeline.store import catalogue, compatibility, fence, layout, shard
from pipeline.store.reading import VideoStore, open_store
from pipeline.store.settings import ExtractionSettings
from pipeline.views import VIEWS, StoredView
from pipeline.views.codec import DIMENSIONS


def create_store(
    path: Path, settings: ExtractionSettings, overwrite: bool = False, add_views: bool = False
) -> VideoStore:
    """The store at `path`, made if it is not there.

    Raises Refusal when the path is a file or some other folder, or when the store was made with other settings or by
    other software; then it says field by field what differs, and nothing has been touched. With `overwrite`, and where
    it holds no video, such a store is opened as it is, for `opening.run_into` to do it anew; with `add_views` one that
    lacks some of the views.
    """
    if path.exists() and not path.is_dir():
        raise Refusal("the store's path is a file", where=str(path), remedy="give a folder that does not exist yet")
    if not (path / layout.RECORD).exists():
        interrupted = f"{layout.RECORD}.partial"  # what a creation that was killed leaves
        if path.is_dir() and any(entry.name != interrupted for entry in path.iterdir()):
            raise Refusal(
                "this folder is not empty and not a store",
                where=str(path),
                remedy=f"give an empty or a new folder as {called.option('store')}; nothing was written",
            )
        with writing_to(path):
            storage.write_atomically(path / layout.RECORD, compatibility.root_record(settings))
    store = open_store(path)
    listed = store.listing.table  # what is said of the videos may be gone, which the run mends
    held = layout.inventory_path(path).exists() or len(listed) or listed.missing
    if not overwrite and (held or store.quarantine):
        compatibility.refuse_other(store, settings, add_views)
    return store


def add_groups(root: Path, video_ids: Iterable[str]) -> None:
    """Write the zarr.json of every folder above these videos where there is none: it may be a video's record."""
    videos = root / "videos"
    folders = {videos}
    for video_id in video_ids:
        folders.update(parent for parent in (videos / layout.quoted(video_id)).parents if videos in parent.parents)
    for folder in sorted(folders):
        if not (folder / layout.RECORD).exists():
            storage.write_atomically(folder / layout.RECORD, layout.group())


def add_folders_in_videos(root: Path, video_ids: Collection[str]) -> None:
    """Make the folders of those of these videos that will lie in another video's, so that its writer knows of them."""
    videos = root / "videos"
    folders = {videos / layout.quoted(video_id) for video_id in video_ids}
    above = {parent for folder in folders for parent in folder.parents if videos in parent.parents}
    plain = {
        parent
        for parent in above - folders
        if storage.read_if_there(parent / layout.RECORD, storage.LARGEST_RECORD) == layout.group()
    }
    for folder in folders:
        if not (above - plain).isdisjoint(folder.parents):
            storage.make_folder(folder)


def writing_to(root: Path) -> AbstractContextManager[None]:
    """A Refusal for a disk that is full, gone or not ours to write to."""
    return storage.writing("the store", root, f"{storage.MAKE_ROOM}; what is committed stays and is not redone")


STAGED, INSIDE = ".writing.", "c"  # listings of records do not enter a folder of the second name


class VideoWriter:
    """Writes one video. Use: `begin`, `add` blocks of each view, `commit`; on failure `discard` or `abandon`.

    What is written lies apart, in a folder with a name of its own, until `commit` lets that and the old video take each
    other's place in one step: readers see the old video or the new one. Where a file system cannot, or other videos lie
    in this one's folder, the old one is away for a moment; objects cannot be moved, there `begin` takes it away.
    adding: the video is committed and gets more views. Its record and what that names stay as they are until `commit`
    replaces the record; so do they after `discard`. run: see `fence.inside`. guard: of calls that a disk which hangs
    lets wait, see `watchdog.watching`.
    """

    def __init__(
        self,
        root: Path,
        video_id: str,
        adding: bool = False,
        run: str = "",
        guard: AbstractContextManager[None] | None = None,
    ) -> None:
        self.root, self.video_id, self.adding, self.run = root, video_id, adding, run
        self.guard = guard or contextlib.nullcontext()
        self.folder = layout.video_folder(root, video_id)
        self.apart = storage.is_local(root)
        self.aside = self.folder / f"{STAGED}{uuid.uuid4().hex}.partial"
        self.staged = self.aside / INSIDE if self.apart else self.folder
        self.pending: dict[str, list[np.ndarray]] = {}
        self.lengths: dict[str, int] = {}
        self.files: dict[str, str] = {}  # path below the folder -> digest

    @cached_property
    def bound(self) -> bool:
        """Whether shards carry `shard.mark`: all of a video's do, or none, as of one stored before they did."""
        return (self.record() or {"bound": True}).get("bound", False)

    def begin(self) -> None:
        """Where nothing can lie apart, take the old video away: first its record, for readers; then its arrays."""
        if not self.apart:
            self.discard()

    @contextlib.contextmanager
    def owned(self) -> Iterator[None]:
        """See `fence.inside`."""
        with self.guard, fence.inside(self.root, self.run):
            yield

    def add(self, view: StoredView, encoded: list[np.ndarray]) -> None:
        """Take the next encoded frames of a view; full shards go to the disk."""
        pending = self.pending.setdefault(view.name, [])
        pending += encoded
        while len(pending) > shard.FRAMES_PER_SHARD:
            self._write_shard(view.name, pending[: shard.FRAMES_PER_SHARD], shard.FRAMES_PER_SHARD)
            del pending[: shard.FRAMES_PER_SHARD]

    def commit(self, views: Sequence[StoredView], facts: dict[str, Any]) -> dict[str, Any]:
        """Write what is pending and each array's zarr.json, then the commit record. Returns the record."""
        shapes = {}
        for view in views:
            rest = self.pending.pop(view.name, [])
            if rest:
                whole = self.lengths.get(view.name, 0) == 0
                self._write_shard(view.name, rest, len(rest) if whole else shard.FRAMES_PER_SHARD)
            shapes[view.name] = (self.lengths.get(view.name, 0), *view.frame_shape)
            self._write(f"{view.name}/{layout.RECORD}", array_metadata(view, shapes[view.name]))
        files = self.files
        if before := self.record():
            facts, shapes = {**before, **facts}, {**before["shapes"], **shapes}
            files = {**before["files"], **files}
        bound = {"bound": True} if self.bound else {}
        record = layout.seal({**facts, **bound, "video_id": self.video_id, "shapes": shapes, "files": files})
        content = layout.group({layout.ATTRIBUTE: record})
        if self.apart:
            with self.guard:
                storage.write(self.staged / layout.RECORD, content)
                storage.flush_file_system(self.staged)
        with self.owned():
            if not self.apart:
                storage.commit(self.folder / layout.RECORD, content)
            elif self.adding or not self._exchange():
                self._move_in(content)
        return record

    def _exchange(self) -> bool:
        """Let what lies apart, its record with it, and what is there take each other's place. False where that cannot
        be. Raises OSError, also where the same run, which took this process for dead, has cleared away what lies
        apart."""
        names = [path.name for path, is_folder in storage.entries(self.folder) if is_folder]
        if any(name not in layout.reserved() and not name.startswith(STAGED) for name in names):
            return False
        outside = self.folder.with_name(self.aside.name)
        self.aside.rename(outside)
        if not storage.exchange(outside / INSIDE, self.folder):
            outside.rename(self.aside)
            return False
        storage.remove_folder(outside)
        return True

    def _move_in(self, record: bytes) -> None:
        """The same step by step; the record last. Raises OSError."""
        for name in self.files:
            (self.staged / name).stat()  # see `_exchange`
        storage.remove(self.staged / layout.RECORD)
        clearing = self._clear(keep=self.aside)
        for path, _ in storage.entries(self.staged):
            path.rename(self.folder / path.name)
        for path in [*clearing, self.aside]:
            storage.remove_folder(path)
        storage.commit(self.folder / layout.RECORD, record)

    def record(self) -> dict[str, Any] | None:
        """The commit record of the video that views are added to, without its digest."""
        if not self.adding:
            return None
        found = {}
        with contextlib.suppress(FileNotFoundError):
            found = catalogue.read_record(self.folder / layout.RECORD) or {}
        return {key: value for key, value in found.items() if key != "digest"} or None

    def discard(self) -> None:
        """Remove the record and everything of this video; other videos that lie below its name stay.

        Where views are added, only what the record does not name. It is read anew: were this called after all was well,
        nothing would be lost.
        """
        with self.owned():
            self._discard()

    def abandon(self) -> None:
        """Remove what was written; what was there before stays, where it lies apart."""
        if not self.apart:
            self.discard()
            return
        with self.guard:
            storage.remove_folder(self.aside)
        if not self._is_committed():  # what was moved in before its record could be written
            with contextlib.suppress(PermissionError):  # another run has the store since
                self.discard()

    def _is_committed(self) -> bool:
        try:
            return catalogue.read_record(self.folder / layout.RECORD) is not None
        except FileNotFoundError:
            return False

    def _discard(self) -> None:
        for path in self._clear():
            storage.remove_folder(path)
        if self.record():
            return
        if not storage.remove_empty(self.folder):  # other videos lie below
            storage.write_atomically(self.folder / layout.RECORD, layout.group())

    def _clear(self, keep: Path | None = None) -> list[Path]:
        """Remove what `discard` removes, and tell which folders of other tries lie here."""
        if before := self.record():
            lost = {name for name in VIEWS if name not in before["shapes"]}
        else:
            lost = set(layout.reserved())
            storage.remove(self.folder / layout.RECORD)
        tries = []
        for path, is_folder in storage.entries(self.folder):
            if is_folder and path.name in lost:
                storage.remove_folder(path)
            elif is_folder and path.name.startswith(STAGED) and path != keep:
                tries.append(path)
            elif not is_folder and not before:
                storage.remove(path)
        return tries

    def _write_shard(self, view: str, encoded: list[np.ndarray], slots: int) -> None:
        number = self.lengths.get(view, 0) // shard.FRAMES_PER_SHARD
        marked = shard.mark(self.video_id, view, number) if self.bound else b""
        self._write(str(shard.path(Path(view), number, 4)), shard.pack(encoded, slots, marked))
        self.lengths[view] = self.lengths.get(view, 0) + len(encoded)

    def _write(self, name: str, data: bytes) -> None:
        if not self.apart:
            with self.owned():
                storage.write(self.staged / name, data)
        else:
            with self.guard:
                storage.write(self.staged / name, data)
        self.files[name] = storage.digest(data)


def array_metadata(view: StoredView, shape: tuple[int, ...]) -> bytes:
    """The zarr.json of a view's array of that shape: one frame per chunk, JPEG then CRC32C, up to 256 frames per shard.

    The same bytes as zarr-python writes, which takes 5 ms for them; a test holds the two against each other.
    """
    frame = list(shape[1:])
    slots = max(1, min(shape[0], shard.FRAMES_PER_SHARD))
    crc32c = {"name": "crc32c"}
    sharding = {
        "chunk_shape": [1, *frame],
        "codecs": [*view.codec.chain(), crc32c],
        "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, crc32c],
        "index_location": "end",
    }
    content = {
        "shape": list(shape),
        "data_type": "uint8",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [slots, *frame]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0,
        "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
        "attributes": view.attributes,
        "dimension_names": DIMENSIONS[view.layout],
        "zarr_format": 3,
        "node_type": "array",
        "storage_transformers": [],
    }
    return json.dumps(content, indent=2).encode()
