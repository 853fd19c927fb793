"""The files of refused videos: `STORE/quarantine/<quoted video id>.json`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline import storage
from pipeline.errors import Refusal
from pipeline.store import layout, records


def read(root: Path, path: Path) -> dict[str, Any] | None:
    """What is known of a refused video; None where the file went while the quarantine was listed. Raises Refusal."""
    try:
        content = storage.read_if_there(path, storage.LARGEST_RECORD)
        return None if content is None else entry(root, path, content)
    except (ValueError, OSError) as error:
        raise Refusal(
            f"a quarantine file cannot be read: {error}",
            where=str(path),
            remedy="delete it; the next extraction tries its video again",
        ) from error


def entry(root: Path, path: Path, content: bytes) -> dict[str, Any]:
    """What a quarantine file says. Raises ValueError."""
    found = records.parse_json(content)
    if not isinstance(found, dict) or not layout.is_sealed(found):
        raise ValueError("it does not match its own digest")
    records.check(records.Refused, found)
    if layout.quarantine_path(root, found["video_id"]) != path:
        raise ValueError(f"it is of video {found['video_id']!r}")
    return found
