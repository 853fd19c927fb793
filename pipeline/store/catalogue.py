"""The listing of committed videos: a scan of the commit records, helped by `catalogue.parquet`.

The catalogue is derived and may be deleted at any time. It is never believed about what exists: the scan asks the file
system for every record, and takes what a record says from the catalogue only if its stamp is the one that it had when
the catalogue was made (`pipeline.store.stamps`): no clock is compared with another. Both come in one order, so that the
two are merged as they are read, and nothing is kept of a video but its place in the columns.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.errors import Refusal
from pipeline.store import columns, inventory, layout, records, shard, stamps
from pipeline.store.catalogue_file import COLUMNS, DIGEST, DIGEST_BYTES, FORMS, FOUND, ROWS, Catalogue, sealed
from pipeline.store.table import Form, VideoTable
from pipeline.validation import Facts

Result = TypeVar("Result")

STEP = 0.02  # seconds: file systems tell times in steps of up to 10 ms
PLAIN_GROUP = len(layout.group())  # bytes of the zarr.json of a folder; a commit record is longer
DIGEST_LETTERS = 64  # of a shard in its commit record


@dataclass(frozen=True)
class Listing:
    """All committed videos, for who is going to write.

    current: whether the catalogue holds exactly these videos.
    """

    table: VideoTable
    current: bool


def load(root: Path) -> Listing:
    """What is in a store. Raises Refusal for a record that cannot be read."""

    def build(batches: Iterator[pa.RecordBatch], known: Catalogue) -> Listing:
        gathered = _Columns(["cached"], known.count)
        table = gathered.table(batches, known.forms)
        cached = int(gathered.rest["cached"].sum())
        return Listing(_with_missing(root, table, known), known.there and cached == len(table) == known.count)

    return _scanned(root, build)


def table(root: Path) -> VideoTable:
    """The same for readers. Raises Refusal for a record that cannot be read."""

    def build(batches: Iterator[pa.RecordBatch], known: Catalogue) -> VideoTable:
        return _with_missing(root, _Columns([], known.count).table(batches, known.forms), known)

    return _scanned(root, build)


def _with_missing(root: Path, table: VideoTable, known: Catalogue) -> VideoTable:
    missing = inventory.missing(root, inventory.read(root), known.vanished)
    return dataclasses.replace(table, missing=tuple(missing)) if missing else table


def save(root: Path) -> int:
    """Update the catalogue by a full scan; the same store gives the same bytes. Returns the number of videos."""

    def write(batches: Iterator[pa.RecordBatch], known: Catalogue) -> tuple[Written, list[str], bool]:
        made = written(batches, known.forms)
        return made, known.vanished, known.there and made.cached == len(made.stamps) == known.count

    if storage.is_local(root):
        time.sleep(STEP)  # whatever is written after the scan has another time than what the scan saw
    made, vanished, current = _scanned(root, write)
    if not current:
        inventory.lose(root, vanished)
        storage.write_atomically(layout.catalogue_path(root), made.content)
        stamps.save(root, made.digest, made.stamps)
    return len(made.stamps)


@dataclass(frozen=True)
class Written:
    """A catalogue's bytes, the digest in them, the stamp of each row's record, int64 (N,), and how many rows another
    catalogue had."""

    content: bytes
    digest: bytes
    stamps: np.ndarray
    cached: int


def written(batches: Iterable[pa.RecordBatch], forms: dict[str, int]) -> Written:
    """The catalogue of these rows: batches of ROWS with the columns FOUND, sorted by folder. forms: see `Catalogue`."""
    sink, cached, seen = pa.BufferOutputStream(), 0, [np.zeros(0, np.int64)]
    hashed, numbers = hashlib.sha256(), _InOrderOfUse(forms)
    options = {"compression": "zstd", "write_page_checksum": True, "use_dictionary": False}
    options["column_encoding"] = dict.fromkeys(["folder", "video_id"], "DELTA_BYTE_ARRAY")  # neighbours begin alike
    with pq.ParquetWriter(sink, COLUMNS, **options) as file:
        for batch in batches:
            cached += pc.sum(batch.column("cached")).as_py()
            seen.append(columns.numbers(batch.column("stamp")))
            kept = numbers.renumbered(batch)
            columns.digest_into(hashed, kept)
            file.write_batch(kept, row_group_size=ROWS)
        listed = numbers.listed()
        digest = sealed(hashed, listed)
        file.add_key_value_metadata({FORMS: listed, DIGEST: digest})
    return Written(sink.getvalue().to_pybytes(), digest, np.concatenate(seen), cached)


def read_record(path: Path) -> dict[str, Any] | None:
    """The commit record in a zarr.json; None where it is a plain folder group. Raises Refusal when it is damaged, and
    FileNotFoundError."""
    return read_content(path)[0]


def read_content(path: Path, kind: type[Facts] = records.CommitRecord) -> tuple[dict[str, Any] | None, bytes]:
    """The same, with all bytes of the file. kind: what it must hold, for the store's own file is another one."""
    try:
        content = storage.read(path, storage.LARGEST_RECORD)
        record = layout.attributes_of(content)
    except FileNotFoundError:
        raise
    except (ValueError, OSError) as error:
        raise _damaged(path, f"cannot be read: {error}") from error
    # A flipped byte in the name of a field would make a record look like a plain group, and its video vanish.
    if not (content == layout.group() if record is None else layout.is_sealed(record)):
        raise _damaged(path, "does not match its own digest")
    if record is not None:
        try:
            records.check(kind, record)
        except ValueError as error:
            raise _damaged(path, f"says what cannot be: {error}") from error
    return record, content


def misplaced(path: Path, video_id: str) -> Refusal:
    """For a record that lies in the folder of another video, as where folders were moved, copied or swapped."""
    return Refusal(
        f"the record of video {video_id!r} lies in another video's folder",
        where=str(path),
        remedy=f"move its folder to {layout.quoted(video_id)!r} below `videos`; or delete this file and extract again",
    )


def _damaged(path: Path, how: str) -> Refusal:
    return Refusal(
        f"the commit record of video {layout.unquoted(path.parent.name)!r} {how}",
        where=str(path),
        remedy="delete this file and run the extraction again: it redoes this video only",
    )


def record_files(root: Path) -> Iterator[storage.Entry]:
    """The zarr.json of every group below the store's folder `videos`, in the order of `storage.files_below`; arrays are
    not entered."""
    for file in storage.files_below(root / "videos", skip=layout.reserved()):
        if file.name.rpartition("/")[2] == layout.RECORD:
            yield file


def vanished(root: Path) -> list[str]:
    """Videos in the catalogue whose records are not there; none of a catalogue that is not as it was written."""
    found: list[str] = []
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError, pa.ArrowException):
        known = Catalogue(root)
        there = pa.array([_folder(file) for file in record_files(root) if not is_plain(file)], pa.string())
        for batch in known.batches():
            gone = pc.invert(pc.is_in(batch.column("folder"), value_set=there))
            found += batch.column("video_id").filter(gone).to_pylist()
        return found if known.is_whole() else []
    return []


def _scanned(root: Path, use: Callable[[Iterator[pa.RecordBatch], Catalogue], Result]) -> Result:
    """What `use` makes of all committed videos, as batches of ROWS with the columns FOUND, helped by the catalogue."""
    # Derived data: where it cannot be used, every record is read.
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError, pa.ArrowException):
        known = Catalogue(root)
        result = use(_regrouped(_merged(root, known)), known)
        if known.is_whole():
            return result
    nothing = Catalogue(None)
    return use(_regrouped(_merged(root, nothing)), nothing)


def _merged(root: Path, known: Catalogue) -> Iterator[pa.RecordBatch]:
    """Every committed video with the columns FOUND, sorted by folder, in pieces of any size."""
    files = ((_folder(file), file.stamp, _most_shards(file)) for file in record_files(root) if not is_plain(file))
    folder, stamp, most = next(files, END)
    first, before = 0, stamps.load(root, known.told, known.count)
    for batch in known.batches():
        piece, was = _Piece(root, known.forms, batch), before[first : first + len(batch)].tolist()
        was += [stamps.UNKNOWN] * (len(batch) - len(was))  # a damaged file may tell another number of rows
        shards = (columns.numbers(batch.column("length")) // shard.FRAMES_PER_SHARD).tolist()
        first += len(batch)
        for place, listed in enumerate(batch.column("folder").to_pylist()):
            while folder != listed and _place(folder) < _place(listed):
                piece.read(folder, stamp)
                folder, stamp, most = next(files, END)
            if folder == listed:
                known_as_it_is = stamp == was[place] and shards[place] <= most
                there = piece.keep(place, stamp) if known_as_it_is else piece.read(folder, stamp)
                folder, stamp, most = next(files, END)
            else:
                there = False
            if not there:
                known.vanished.append(batch.column("video_id")[place].as_py())
        yield piece.rows()
    while folder != END[0]:
        piece = _Piece(root, known.forms, NOTHING)
        while folder != END[0] and len(piece.fresh) < ROWS:
            piece.read(folder, stamp)
            folder, stamp, _ = next(files, END)
        yield piece.rows()


def _most_shards(file: storage.Entry) -> int:
    """How many full shards a record of that size can name, with a digest each: a catalogue that claims more frames is
    not believed."""
    return file.size // DIGEST_LETTERS


def is_plain(file: storage.Entry) -> bool:
    """Whether it is no record, by its size. Many requests are saved on an object store by not reading plain groups,
    which `verify` does; on a disk a damaged record of that size shows."""
    if file.size != PLAIN_GROUP or not storage.is_local(file.folder):
        return file.size == PLAIN_GROUP
    return storage.read_if_there(file.path, storage.LARGEST_RECORD) in (None, layout.group())


NOTHING = columns.nothing(COLUMNS)
END = ("\U0010ffff", 0, 0)  # comes after every folder


def _folder(file: storage.Entry) -> str:
    return file.name.rpartition("/")[0]


def _place(folder: str) -> str:
    """What folders are sorted by: what lies in one follows it, before its neighbours."""
    return folder.replace("/", "\0")


class _Piece:
    """Rows in order: those that are kept of a batch of the catalogue, and those of records that are read."""

    def __init__(self, root: Path, forms: dict[str, int], batch: pa.RecordBatch) -> None:
        self.root, self.forms, self.batch = root, forms, batch
        self.places: list[int] = []  # in the batch, followed by the fresh ones
        self.stamps: list[int] = []
        self.fresh: list[dict[str, Any]] = []

    def keep(self, place: int, stamp: int) -> bool:
        self.places.append(place)
        self.stamps.append(stamp)
        return True

    def read(self, folder: str, stamp: int) -> bool:
        """Whether there is a record."""
        path = self.root / "videos" / folder / layout.RECORD
        try:
            record = read_record(path)
        except FileNotFoundError:  # it went while the store was listed
            return False
        if record is None:
            return False
        if layout.quoted(record["video_id"]) != folder:
            raise misplaced(path, record["video_id"])
        for what in records.contradictions(record):
            raise _damaged(path, f"contradicts itself: {what}")
        form = str(Form.of_record(record))
        source = record.get("source", "")
        row = {
            **{name: record[name] for name in ("video_id", "length", "fps")},
            "folder": folder,
            "digest": bytes.fromhex(record["digest"])[:DIGEST_BYTES],
            "form": self.forms.setdefault(form, len(self.forms)),
            "cuts": record.get("cuts", []),
            "source": "" if source == record["video_id"] else source,
            "bytes": record.get("file", {}).get("bytes", -1),
        }
        self.fresh.append(row)
        return self.keep(len(self.batch) + len(self.fresh) - 1, stamp)

    def rows(self) -> pa.RecordBatch:
        """With the columns FOUND."""
        batch, places = self.batch, np.array(self.places, np.int64)
        if self.fresh or len(places) < len(batch):
            read = pa.RecordBatch.from_pylist(self.fresh, COLUMNS)
            batch = pa.concat_batches([batch, read]).take(pa.array(places))
        stamp, cached = pa.array(self.stamps, pa.int64()), pa.array(places < len(self.batch))
        return pa.RecordBatch.from_arrays([*batch.columns, stamp, cached], schema=FOUND)


def _regrouped(pieces: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same rows, ROWS in each but the last: what is written does not depend on how it came about."""
    waiting, count = [], 0
    for piece in pieces:
        waiting.append(piece)
        count += len(piece)
        while count >= ROWS:
            whole = pa.concat_batches(waiting) if len(waiting) > 1 else waiting[0]
            yield whole.slice(0, ROWS)
            waiting, count = [whole.slice(ROWS)], count - ROWS
    if count:
        yield pa.concat_batches(waiting)


class _Columns:
    """Gathers a table from batches. names: of further columns, which `rest` has in the order of the table."""

    def __init__(self, names: list[str], count: int) -> None:
        self.numbers = {name: columns.Growing(count) for name in ["length", "fps", "form", "digest", *names]}
        self.lists = {name: (columns.Growing(count + 1), columns.Growing(0)) for name in ["video_id", "cuts", "source"]}
        for lengths, _ in self.lists.values():
            lengths.add(np.zeros(1, np.int32))
        self.names, self.rest = names, dict[str, np.ndarray]()

    def table(self, batches: Iterator[pa.RecordBatch], forms: dict[str, int]) -> VideoTable:
        """Sorted by id, which the batches usually are already; of two records of one video the first is taken."""
        for batch in itertools.chain([NOTHING_FOUND], batches):
            for name, gathered in self.numbers.items():
                gathered.add(columns.numbers(batch.column(name)))
            for name, (lengths, values) in self.lists.items():
                lengths.add(np.diff(columns.offsets(batch.column(name))))
                values.add(columns.values(batch.column(name)))
        numbers = {name: gathered.whole() for name, gathered in self.numbers.items()}
        lists = {
            name: columns.list_array(COLUMNS.field(name).type, lengths.summed(), values.whole())
            for name, (lengths, values) in self.lists.items()
        }
        if (order := _sorting(lists["video_id"])) is not None:
            lists = {name: column.take(pa.array(order)) for name, column in lists.items()}
            numbers = {name: column[order] for name, column in numbers.items()}
        self.rest = {name: numbers[name] for name in self.names}
        return VideoTable(
            ids=lists["video_id"],
            lengths=numbers["length"],
            fps=numbers["fps"],
            digests=numbers["digest"],
            forms=numbers["form"].astype(np.min_scalar_type(len(forms))),
            kinds=[Form.parse(text) for text in forms],
            cuts=lists["cuts"],
            recorded_sources=lists["source"] if self.lists["source"][1].count else pa.array([], pa.string()),
        )


NOTHING_FOUND = columns.nothing(FOUND)


def _sorting(ids: pa.Array) -> np.ndarray | None:
    """The places of the ids in their order, each id once; None where they are in order."""
    if pc.all(pc.less(ids[:-1], ids[1:])).as_py() is not False:
        return None
    order = pc.sort_indices(ids).to_numpy()
    placed = ids.take(pa.array(order))
    return order[np.concatenate([[True], pc.not_equal(placed[:-1], placed[1:]).to_numpy(zero_copy_only=False)])]


class _InOrderOfUse:
    """Numbers of forms in the order in which rows have them: what is written does not depend on how it came about."""

    def __init__(self, forms: dict[str, int]) -> None:
        self.forms = forms
        self.numbers: dict[int, int] = {}  # by the scan's number

    def renumbered(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """With the columns COLUMNS."""
        used, firsts, places = np.unique(columns.numbers(batch.column("form")), return_index=True, return_inverse=True)
        for number in used[np.argsort(firsts)].tolist():
            self.numbers.setdefault(number, len(self.numbers))
        form = np.array([self.numbers[number] for number in used.tolist()], np.int32)[places]
        kept = [pa.array(form) if name == "form" else batch.column(name) for name in COLUMNS.names]
        return pa.RecordBatch.from_arrays(kept, schema=COLUMNS)

    def listed(self) -> bytes:
        texts = list(self.forms)
        return json.dumps([texts[number] for number in self.numbers]).encode()
