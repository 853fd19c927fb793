"""The command `remove`: videos taken out of a store."""

from __future__ import annotations

from pipeline.commands.stores import console
from pipeline.errors import UsageError
from pipeline.storage import location
from pipeline.store import open_store, removal


def remove(store: str, videos: list[str]) -> None:
    """Remove videos from a store or from its quarantine. Extraction brings them back where a manifest lists them.

    `extract --prune true` removes all that its manifest does not list.

    Args:
        store: Folder of the store, or its URL.
        videos: Ids of the videos, as `status` and other commands tell them.
    """
    if not videos:
        raise UsageError("no video is named", where="videos", remedy="give ids: --videos+ class/name")
    open_store(store)
    chosen = list(dict.fromkeys(videos))
    removal.remove(location(store), chosen)
    console.print(f"removed {len(chosen)} videos: {store}")
