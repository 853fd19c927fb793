"""VideoStore: read what extraction committed. A video without its commit record does not exist here."""

from __future__ import annotations

import copy
import difflib
import functools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import called, storage
from pipeline.errors import Refusal, counted
from pipeline.names import looks
from pipeline.store import annotated, catalogue, layout, quarantine, records, shard
from pipeline.store.annotated import Annotated
from pipeline.store.damage import corrupt, damaged_root, mixed
from pipeline.store.settings import ExtractionSettings, settings_hash
from pipeline.store.table import VideoTable
from pipeline.views import VIEWS
from pipeline.views.codec import FrameCodec, Layout
from pipeline.views.flow import FLOW
from pipeline.views.rgb import RGB

Frames = slice | Sequence[int] | np.ndarray
ALL = slice(None)


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What is known of one stored video.

    length: frames of the video (`View.stored_frames` says how many a view has of them). height, width: of a stored
    frame of its first view, which is rgb where there is one. fps: average rate of the file, or the rate that was asked
    for. shapes: of each view's array, (frames, ...). cuts: each t where a cut between shots lies between the frames t
    and t+1, so that flow[t] means nothing. digest: of the commit record, hence of every stored byte, its first 32
    digits. partial: why the file could not be read to its end, where what was readable was stored all the same;
    otherwise empty.
    """

    length: int
    height: int
    width: int
    fps: float
    label: str
    source: str
    split: str
    shapes: dict[str, tuple[int, ...]]
    cuts: tuple[int, ...]
    digest: str
    partial: str = ""

    @property
    def views(self) -> tuple[str, ...]:
        return tuple(self.shapes)


class VideoInfos(Mapping[str, VideoInfo]):
    """Of every video of a table, by id, sorted; each is made when it is asked for."""

    def __init__(self, table: VideoTable, annotated: Annotated) -> None:
        self.table, self.annotated = table, annotated

    def __len__(self) -> int:
        return len(self.table)

    def __iter__(self) -> Iterator[str]:
        return iter(self.table.ids.to_pylist())

    def __contains__(self, video_id: object) -> bool:
        return isinstance(video_id, str) and self.table.row(video_id) >= 0

    def __getitem__(self, video_id: str) -> VideoInfo:
        row = self.table.row(video_id)
        if row < 0:
            raise KeyError(video_id)
        table, annotated = self.table, self.annotated
        shapes = table.shapes(row)
        height, width = table.kind(row).frame_size
        return VideoInfo(
            length=int(table.lengths[row]),
            height=height,
            width=width,
            fps=float(table.fps[row]),
            label=annotated.label(row),
            source=annotated.source(row),
            split=annotated.split(row),
            shapes={view: shapes[view] for view in VIEWS if view in shapes},
            cuts=tuple(table.cuts[row].as_py()),
            digest=table.digests[row].tobytes().hex(),
            partial=table.kind(row).partial,
        )


def there_is_a_store(root: Path) -> bool:
    """Whether there is a store's root record at a place, as `storage.location` gives it; not whether it can be read."""
    try:
        return storage.read_if_there(root / layout.RECORD, storage.LARGEST_RECORD) is not None
    except OSError:
        return True  # something is there, and `open_store` says what is wrong with it


def open_store(path: str | os.PathLike, annotations: str = "") -> VideoStore:
    """Open a store for reading, by its path or URL. annotations: the set in use, see `annotated.choose`. Raises Refusal
    when there is none, or when a newer costream wrote it."""
    root = storage.location(path)
    try:
        content = storage.read_if_there(root / layout.RECORD, storage.LARGEST_RECORD)
        if content is None:
            raise Refusal(
                "there is no store" if not root.exists() else "this is not a costream store",
                where=str(root),
                remedy=f"make one with `{called.command('extract', videos='folder', store='path')}`",
            )
        attributes = layout.attributes_of(content)
    except (ValueError, OSError) as error:
        raise damaged_root(root, f"cannot be read: {error}") from error
    if attributes is None:
        raise Refusal(
            "this Zarr group is not a costream store", where=str(root), remedy=f"give another {called.option('store')}"
        )
    if not layout.is_sealed(attributes):
        raise damaged_root(root, "does not match its own digest")
    _check_root(root, attributes)
    return VideoStore(root, attributes, annotations)


def _check_root(root: Path, attributes: dict[str, Any]) -> None:
    """Raises Refusal for what cannot be, and for what only a newer costream knows."""
    try:
        records.check(records.Root, attributes)
    except ValueError as error:
        raise damaged_root(root, f"says what cannot be: {error}") from error
    if attributes["schema"] > layout.SCHEMA:
        raise Refusal(
            f"the store has schema version {attributes['schema']}; this costream reads up to {layout.SCHEMA}",
            where=str(root),
            remedy="read it with a later costream",
        )
    if unknown := sorted(attributes["settings"].keys() - VIEWS.keys() - {"decode"}):
        raise Refusal(
            f"the store has a view {unknown[0]!r}, which this costream does not know",
            where=str(root),
            remedy=f"read it with a costream that has this view; here are {', '.join(VIEWS)}",
        )
    try:
        ExtractionSettings.from_dict(attributes["settings"])
        if attributes["settings_hash"] != settings_hash(attributes["settings"]):
            raise ValueError("settings_hash: it is of other settings")
    except ValueError as error:
        raise damaged_root(root, f"says what cannot be: {error}") from error


class VideoStore:
    """Read access to a store; see `open_store`. The listing is taken when it is first needed and then kept."""

    def __init__(self, root: Path, attributes: dict[str, Any], annotations: str = "") -> None:
        self.root, self.annotations = root, annotations
        self.schema: int = attributes["schema"]
        self.settings: dict[str, Any] = attributes["settings"]
        self.settings_hash: str = attributes["settings_hash"]
        self.software: dict[str, str] = attributes["software"]

    def __repr__(self) -> str:
        """What is there, in a line, for whoever looks at it in a console or a notebook."""
        splits = ", ".join(f"{count} {name}" for name, count in sorted(self.annotated.count_splits().items()))
        kinds = f"{counted(len(self.classes), 'class', 'classes')}, views {', '.join(self.views) or 'none'}"
        return f"VideoStore({str(self.root)!r}: {counted(len(self.table), 'video')} ({splits or 'empty'}), {kinds})"

    @cached_property
    def views(self) -> tuple[str, ...]:
        """What is stored of every video: a view that is being added counts as soon as all videos have it."""
        return tuple(name for name in VIEWS if name in self.settings and name in self.table.views)

    def settings_hash_of(self, views: Iterable[str]) -> str:
        """Hash of the settings of some of its views: what the record of a video with these views says."""
        return self._hash_of(frozenset(views))

    @functools.cache  # noqa: B019  (few combinations, asked for every record)
    def _hash_of(self, views: frozenset[str]) -> str:
        return settings_hash(
            {name: group for name, group in self.settings.items() if name in views or name == "decode"}
        )

    @cached_property
    def table(self) -> VideoTable:
        """Every committed video, in columns. Raises Refusal where one was made with other settings than the store's."""
        table = catalogue.table(self.root)
        others = table.of_kinds(
            [kind.settings_hash != self.settings_hash_of(kind.shapes) for kind in table.kinds], bool
        )
        if others.any():
            raise mixed(self.root, table.names(np.flatnonzero(others)))
        return table

    @cached_property
    def annotated(self) -> Annotated:
        """What the annotation set in use says of the videos, in the rows of the table. Raises as `annotated.choose`
        does."""
        return annotated.choose(self.root, self.table, self.annotations)

    def said_by(self, annotated: Annotated) -> VideoStore:
        """The same videos, and what others say of them."""
        other = copy.copy(self)
        other.__dict__.pop("infos", None)
        other.__dict__["annotated"] = annotated
        return other

    @cached_property
    def infos(self) -> Mapping[str, VideoInfo]:
        """Every committed video, by id, sorted; for very many there is `table`."""
        return VideoInfos(self.table, self.annotated)

    @cached_property
    def listing(self) -> catalogue.Listing:
        """Every committed video, also of other settings, and when it was written: for who is going to write."""
        return catalogue.load(self.root)

    @property
    def videos(self) -> list[str]:
        return list(self.infos)

    @property
    def labels(self) -> dict[str, str]:
        """Class name of each video that has one."""
        return {video: label for row, video in enumerate(self.videos) if (label := self.annotated.label(row))}

    @property
    def classes(self) -> list[str]:
        """Class names in the data set's official order; a label's index is its place here."""
        return self.annotated.classes

    @property
    def quarantine(self) -> dict[str, str]:
        """Refused videos: video id -> reason."""
        return {entry["video_id"]: entry["reason"] for entry in self.quarantine_entries()}

    def quarantine_entries(self) -> Iterator[dict[str, Any]]:
        """Everything that is known of each refused video, in the order of their files."""
        files = storage.files_below(self.root / "quarantine")
        for path in sorted(file.path for file in files if file.path.name.endswith(".json")):
            if (entry := quarantine.read(self.root, path)) is not None:
                yield entry

    def info(self, video_id: str) -> VideoInfo:
        """Raises Refusal for a video that is not committed, saying why where that is known."""
        if video_id in self.infos:
            return self.infos[video_id]
        raise self._missing(video_id)

    def own_names(self, video_ids: Iterable[str]) -> list[str]:
        """Each id as the store spells it, where one video's looks like it; others stay as they are."""
        stored = self.table.names(np.arange(len(self.table)))  # of a store whose annotation set is gone, too
        given, there = list(video_ids), set(stored)
        if there.issuperset(given):
            return given
        alike: dict[str, list[str]] = {}
        for video_id in stored:
            alike.setdefault(looks(video_id), []).append(video_id)
        found = [alike.get(looks(video_id), []) for video_id in given]
        return [
            names[0] if name not in there and len(names) == 1 else name
            for name, names in zip(given, found, strict=True)
        ]

    def _missing(self, video_id: str) -> Refusal:
        reason = self.quarantine.get(video_id)
        near = difflib.get_close_matches(video_id, self.infos, n=1)
        hint = f"it is in quarantine: {reason}" if reason else f"nearest is {near[0]!r}" if near else ""
        hint = "it was stored, and is gone" if video_id in self.table.missing else hint
        return Refusal(
            f"video {video_id!r} is not in the store" + (f"; {hint}" if hint else ""),
            where=str(self.root),
            remedy=f"`{called.command('status', store=str(self.root), show='videos')}` lists what is there",
        )

    def codec(self, view: str) -> FrameCodec:
        """What decodes the view's frames."""
        return self._codecs[view]

    @cached_property
    def _codecs(self) -> dict[str, FrameCodec]:
        # Readers ask for each clip; the settings are parsed once.
        return {name: view.frame_codec for name, view in ExtractionSettings.from_dict(self.settings).views.items()}

    def layout(self, view: str) -> Layout:
        """How the view's frames are laid out: "rgb", (H, W, 3), or "stacked", (P, H, W)."""
        return VIEWS[view].layout

    def path(self, video_id: str, view: str) -> Path:
        """The folder of a view's array."""
        return layout.video_folder(self.root, video_id) / view

    def shape(self, video_id: str, view: str) -> tuple[int, ...]:
        """Of the view's array, (frames, ...). Raises Refusal for a video or view that is not there."""
        row = self.table.row(video_id)
        if row < 0:
            raise self._missing(video_id)
        shapes = self.table.shapes(row)
        if view not in shapes:
            raise Refusal(
                f"video {video_id!r} has no view {view!r}",
                where=str(self.root),
                remedy=f"it has {', '.join(shapes)}; `{called.command('extract', views=view)}`,"
                " with the videos and this store, adds it",
            )
        return shapes[view]

    def indices(self, video_id: str, view: str, frames: Frames) -> list[int]:
        """Frame numbers as plain integers, each checked against the view's length."""
        length = self.shape(video_id, view)[0]
        if isinstance(frames, slice):
            return list(range(*frames.indices(length)))
        numbers = np.asarray(frames)
        if numbers.size and numbers.dtype.kind not in "iu":
            raise TypeError(f"frames are numbers of frames, not {numbers.dtype}")
        outside = [number for number in numbers.tolist() if not 0 <= number < length]
        if outside:
            raise IndexError(f"frame {outside[0]} of view {view!r} of {video_id!r}, which has {length} frames")
        return numbers.tolist()

    def encoded(self, video_id: str, view: str, frames: Frames) -> list[np.ndarray]:
        """The frames as they are stored (JPEG; zstd of flow stored so), 1-D uint8, each checked against its CRC32C.

        Raises Refusal, naming the video, when a byte is not what was written, and IndexError for a frame outside.
        """
        numbers = self.indices(video_id, view, frames)
        found: dict[int, np.ndarray] = {}
        for part in sorted({number // shard.FRAMES_PER_SHARD for number in numbers}):
            wanted = sorted({n for n in numbers if n // shard.FRAMES_PER_SHARD == part})
            file, index = self.open_shard(video_id, view, part)
            try:
                frames_of_part = list(shard.read_frames(file, index, [n % shard.FRAMES_PER_SHARD for n in wanted]))
            except (OSError, shard.CorruptShard) as error:
                raise self.corrupt_shard(video_id, view, part, error) from error
            found.update(zip(wanted, frames_of_part, strict=True))
        return [found[number] for number in numbers]

    def open_shard(self, video_id: str, view: str, part: int) -> tuple[storage.OpenFile, list[tuple[int, int]]]:
        """A shard's file, and its index. Raises Refusal where it is damaged, or that of another video, view or part."""
        row = self.table.row(video_id)
        length = self.shape(video_id, view)[0]
        marked = shard.mark(video_id, view, part) if self.table.kind(row).bound else b""
        frames = min(length - part * shard.FRAMES_PER_SHARD, shard.FRAMES_PER_SHARD)
        try:
            file = storage.open_file(self._shard_path(video_id, view, part))
            return file, shard.read_index(file, min(length, shard.FRAMES_PER_SHARD), frames, marked)
        except (OSError, shard.CorruptShard) as error:
            raise self.corrupt_shard(video_id, view, part, error) from error

    def corrupt_shard(self, video_id: str, view: str, part: int, error: Exception) -> Refusal:
        """The refusal of a video one of whose shards is not what was written; or not what it was when it was listed."""
        path = self._shard_path(video_id, view, part)
        try:
            now = (catalogue.read_record(layout.record_path(self.root, video_id)) or {}).get("digest", "")
        except FileNotFoundError:
            now = ""
        except Refusal:
            return corrupt(self.root, video_id, path, error)
        if now.startswith(self.info(video_id).digest):
            return corrupt(self.root, video_id, path, error)
        return Refusal(
            f"video {video_id!r} was extracted anew, or removed, after the store was opened: {error}",
            where=str(path),
            remedy="run the same command again; to go on with the old videos put them back",
        )

    def _shard_path(self, video_id: str, view: str, part: int) -> Path:
        return shard.path(self.path(video_id, view), part, len(self.shape(video_id, view)))

    def read(self, video_id: str, view: str, frames: Frames) -> np.ndarray:
        """Decoded frames, uint8: rgb (T, H, W, 3), other views (T, P, H, W), as flow's P = 2 planes of stored bytes."""
        encoded = self.encoded(video_id, view, frames)
        shape = self.shape(video_id, view)
        if not encoded:
            return np.empty((0, *shape[1:]), np.uint8)
        try:
            decode = self.codec(view).decode_frame
            return np.stack([decode(frame, shape[1:]) for frame in encoded])
        except ValueError as error:
            raise corrupt(self.root, video_id, self.path(video_id, view), error) from error

    def frames(self, video_id: str, frames: Frames = ALL) -> np.ndarray:
        """Decoded frames, uint8 RGB (T, H, W, 3); by default all of the video."""
        return self.read(video_id, RGB.name, frames)

    def flow(self, video_id: str, frames: Frames = ALL) -> np.ndarray:
        """Flow in pixels of the stored size, float32 (T, 2, H, W): u right, v down; flow[t] maps frame t to t+1."""
        return FLOW.measured(self.read(video_id, FLOW.name, frames), self.settings[FLOW.name])

    def linear_values(self, view: str) -> np.ndarray | None:
        """What each byte of the view stands for in steps of equal size: float32 (256,); None where it is the byte
        itself."""
        return VIEWS[view].values(self.settings[view])
