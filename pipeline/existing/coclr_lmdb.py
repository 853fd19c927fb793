"""The LMDBs of CoCLR and ViCC: one file, of each video a msgpack list of JPEGs (docs/methods.md 1.6).

`__order__` lists the videos as `<class>/<video>`; the video at place n has the key `%09d` of n. `__vlen__`, where it is
there, has the lengths in the order of `__keys__`. It was all packed by a msgpack without a type for bytes, which a
reader of today takes for broken text unless it is told to leave bytes alone.
"""

from __future__ import annotations

from collections import Counter
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import lmdb
import msgpack
from lmdb import verify

from pipeline import storage
from pipeline.errors import Refusal
from pipeline.video.decode import Undecodable

ORDER, KEYS, LENGTHS = b"__order__", b"__keys__", b"__vlen__"
REMEDY = "give an LMDB file as CoCLR and ViCC have them, such as ucf101_frame.lmdb"


class CoclrLmdb(AbstractContextManager):
    """One LMDB, of frames or flow. Opened for reading alone, without its lock file: it may lie on a read-only disk."""

    kind = "coclr-lmdb"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.notes: list[str] = []
        _refuse_damage(path)
        try:
            self._environment = lmdb.open(str(path), subdir=False, readonly=True, lock=False)
        except lmdb.Error as error:
            raise Refusal(f"the LMDB cannot be opened: {error}", where=str(path), remedy=REMEDY) from error
        try:
            self.videos = self._order()
            self._keys = {name: b"%09d" % number for number, name in enumerate(self.videos)}
            self._lengths = self._listed_lengths()
        except BaseException:
            self.close()
            raise

    def place(self, video: str) -> str:
        return f"{self.path.name}: {self._keys[video].decode()}"

    def stamp(self, video: str) -> int:
        return storage.stamp_of([self.path])

    def frames(self, video: str) -> list[bytes]:
        """The JPEGs of a video. Raises Undecodable."""
        if video not in self._keys:
            raise Undecodable(f"{self.path.name} does not have this video", "open")
        key = self._keys[video]
        try:
            packed = self._get(key)
            if packed is None:
                raise Undecodable(f"{self.path.name} lists it and has no entry {key.decode()} for it", "open")
            jpegs = msgpack.unpackb(packed, raw=True)
        except (lmdb.Error, ValueError) as error:  # msgpack's errors are kinds of ValueError
            raise Undecodable(f"{self.path.name}: its entry {key.decode()} cannot be read: {error}", "open") from error
        if not isinstance(jpegs, list) or not all(isinstance(jpeg, bytes) for jpeg in jpegs):
            raise Undecodable(f"{self.path.name}: its entry {key.decode()} is not a list of pictures", "open")
        listed = self._lengths.get(key, len(jpegs))
        if listed != len(jpegs):
            raise Undecodable(f"{self.path.name} lists {listed} pictures and has {len(jpegs)}", "open")
        return jpegs

    def flow(self, video: str) -> list[tuple[bytes, ...]]:
        return [(jpeg,) for jpeg in self.frames(video)]

    def close(self) -> None:
        self._environment.close()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _order(self) -> list[str]:
        listed = self._listing(ORDER)
        beside = self.path.with_name(f"{self.path.name}-order")
        try:
            lines = storage.read_regular(beside).splitlines() if beside.is_file() else None
            names = [name.decode().strip("/") for name in (lines if listed is None else listed) or []]
        except (OSError, UnicodeDecodeError, AttributeError) as error:
            raise Refusal(
                f"the names of its videos cannot be read: {error}", where=str(self.path), remedy=REMEDY
            ) from error
        if not names:
            raise Refusal(
                f"the LMDB does not tell which videos it has: no {ORDER.decode()}, and no file {beside.name} beside it",
                where=str(self.path),
                remedy=REMEDY,
            )
        if listed is not None and lines is not None and lines != listed:
            self.notes.append(f"{beside.name} has other videos than the LMDB's own list, which counts")
        if len(set(names)) != len(names):
            double, _ = Counter(names).most_common(1)[0]
            raise Refusal(f"the LMDB lists {double!r} twice", where=str(self.path), remedy="pack it again")
        return names

    def _listed_lengths(self) -> dict[bytes, int]:
        keys, lengths = self._listing(KEYS), self._listing(LENGTHS)
        if keys is None or lengths is None:
            return {}
        if not all(isinstance(key, bytes) for key in keys):
            raise Refusal(f"an entry of {KEYS.decode()} is no key", where=str(self.path), remedy=REMEDY)
        if len(keys) != len(lengths):
            raise Refusal(
                f"the LMDB has {len(lengths)} lengths for {len(keys)} keys",
                where=str(self.path),
                remedy="pack it again",
            )
        return dict(zip(keys, lengths, strict=True))

    def _listing(self, key: bytes) -> list[Any] | None:
        try:
            packed = self._get(key)
            listing = [] if packed is None else msgpack.unpackb(packed, raw=True)
        except (lmdb.Error, ValueError) as error:
            listing = error
        if not isinstance(listing, list):
            raise Refusal(f"its entry {key.decode()} is no list: {listing}", where=str(self.path), remedy=REMEDY)
        return None if packed is None else listing

    def _get(self, key: bytes) -> bytes | None:
        with self._environment.begin() as transaction:
            return transaction.get(key)


def _refuse_damage(path: Path) -> None:
    """LMDB trusts its file: one that is cut off or damaged could end this process. 0.11 s for 460 MiB; pictures are not
    read."""
    try:
        # Pages that nothing leads to are a waste and no harm.
        storage.require_regular(path)
        damage = [problem for problem in verify.verify(str(path), subdir=False) if "a leak" not in problem]
    except (verify.VerifyError, OSError) as error:
        raise Refusal(f"the LMDB cannot be opened: {error}", where=str(path), remedy=REMEDY) from error
    if damage:
        raise Refusal(
            f"the LMDB is damaged or cut off ({len(damage)} problems): {damage[0]}",
            where=str(path),
            remedy="copy or download it again",
        )
