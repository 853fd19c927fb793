"""Refusals of a store, or of a video, whose bytes are not what was written."""

from __future__ import annotations

from pathlib import Path

from pipeline import called
from pipeline.errors import Refusal, counted
from pipeline.store import layout

SHOWN = 5  # videos that a refusal names


def damaged_root(root: Path, how: str) -> Refusal:
    return Refusal(
        f"the store's own zarr.json {how}",
        where=str(root / layout.RECORD),
        remedy="restore it from a copy; another store made with the same settings has the same file",
    )


def mixed(root: Path, others: list[str]) -> Refusal:
    """Frames and flow of such videos would be read as if they were of the store's size, rate and bound."""
    shown = ", ".join(repr(video_id) for video_id in others[:SHOWN]) + (", ..." if len(others) > SHOWN else "")
    return Refusal(
        f"{counted(len(others), 'video')} made with other settings than the store's,"
        f" as folders copied from another store are: {shown}",
        where=str(root),
        remedy="run the extraction again with `--overwrite true`: it redoes these videos only; or delete their records"
        f" ({layout.record_path(root, others[0])}, ...); `{called.command('verify', store=str(root))}` lists them all",
    )


class Damaged(Refusal):
    """A video whose bytes are not what was written. `video_id`: which one."""

    video_id = ""


def corrupt(root: Path, video_id: str, path: Path, error: Exception) -> Damaged:
    """The refusal of a video whose bytes are not what was written."""
    refusal = Damaged(
        f"video {video_id!r} is damaged: {error}",
        where=str(path),
        remedy=f"delete {layout.record_path(root, video_id)} and run the extraction again: it redoes this video only;"
        f" `{called.command('verify', store=str(root))}` lists all damage",
    )
    refusal.video_id = video_id
    return refusal
