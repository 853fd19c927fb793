"""Videos taken out of a store, or out of its quarantine."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from pathlib import Path

from pipeline import called, storage
from pipeline.errors import Refusal, counted, named
from pipeline.store import catalogue, inventory, layout
from pipeline.store.lock import only_writer
from pipeline.store.reading import VideoStore, open_store
from pipeline.store.writing import VideoWriter, writing_to

SHOWN = 5  # videos that a refusal names


def remove(root: Path, video_ids: Collection[str]) -> None:
    """Remove these videos with all that is stored of them, and what quarantine says of them; others stay.

    What annotation sets say of them stays too. Raises Refusal, and removes nothing, where one is neither stored nor in
    quarantine, or another process writes to the store.
    """
    with only_writer(root):
        there = known(open_store(root))
        if strange := sorted(set(video_ids) - there):
            near = difflib.get_close_matches(strange[0], there, n=1)
            shown = named([repr(name) for name in strange], SHOWN)
            number = f"{counted(len(strange), 'video')} {'is' if len(strange) == 1 else 'are'}"
            raise Refusal(
                f"{number} neither in the store nor in its quarantine: {shown}",
                where=str(root),
                remedy=(f"nearest is {near[0]!r}; " if near else "")
                + f"`{called.command('status', store=str(root), show='videos')}` tells what is there;"
                " nothing was removed",
            )
        with writing_to(root):
            inventory.take_in_hand(root, video_ids)
            for video_id in video_ids:
                VideoWriter(root, video_id).discard()
                storage.remove(layout.quarantine_path(root, video_id))
            inventory.settle(root, catalogue.save(root))


def known(store: VideoStore) -> set[str]:
    """Every video that is stored or in quarantine, or should be."""
    return {*store.listing.table.ids.to_pylist(), *store.listing.table.missing, *store.quarantine}
