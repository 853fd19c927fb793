"""The command `remove`: videos taken out of a store."""

from __future__ import annotations

from pipeline.arguments import Names, StorePlace
from pipeline.commands.stores import console
from pipeline.errors import counted
from pipeline.storage import location
from pipeline.store import open_store, removal


def remove(store: StorePlace, videos: Names) -> None:
    """Remove videos from a store or from its quarantine. Extraction brings them back where a manifest lists them.

    `extract --prune true` removes all that its manifest does not list.

    Args:
        store: Folder of the store, or its URL.
        videos: Ids of the videos, as `status` and other commands tell them.
    """
    chosen = list(dict.fromkeys(open_store(store).own_names(videos)))
    removal.remove(location(store), chosen)
    console.print(f"removed {counted(len(chosen), 'video')}: {store}")
