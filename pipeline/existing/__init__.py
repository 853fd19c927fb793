"""Data that was extracted before, by others: CoCLR's and ViCC's LMDBs, and folders of JPEGs as denseflow writes them.

A source is one module with a class like `Source` and one line in `open_source`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from pipeline.errors import Refusal
from pipeline.existing.coclr_lmdb import CoclrLmdb
from pipeline.existing.frame_folders import FrameFolders

Jpeg = bytes | Path  # a JPEG, or the file that holds one


class Source(Protocol):
    """Videos as JPEGs. To be closed, or used in a `with` block."""

    kind: str
    path: Path
    videos: list[str]  # `<class>/<video>`, in the order in which they are read fastest
    notes: list[str]  # what a person should know of the source as a whole

    def place(self, video: str) -> str:
        """Where the video is in the source, for its record."""

    def frames(self, video: str) -> Sequence[Jpeg]:
        """The frames, in order. Raises Undecodable for a video that is not there whole."""

    def flow(self, video: str) -> Sequence[tuple[Jpeg, ...]]:
        """Each frame pair's flow, in order: one three-channel JPEG, or two gray ones, u and v. Raises Undecodable."""

    def stamp(self, video: str) -> int:
        """Another number where one of the video's pictures, or what lies with them, was written again."""

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_source(path: Path) -> Source:
    """The source at `path`: a folder of frame folders, or an LMDB file. Raises Refusal if it is neither, or broken."""
    if not path.exists():
        raise Refusal(
            "there is no such file or folder", where=str(path), remedy="give an LMDB file, or a folder of frames"
        )
    if path.is_dir() and (path / "data.mdb").is_file():  # an LMDB that was packed as a folder
        return CoclrLmdb(path / "data.mdb")
    return FrameFolders(path) if path.is_dir() else CoclrLmdb(path)
