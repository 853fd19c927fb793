"""What a run has to do: the manifest against the store."""

from __future__ import annotations

from pipeline.errors import Refusal
from pipeline.journal import Summary
from pipeline.manifest import Manifest, Video
from pipeline.store import VideoStore


def refuse_other_facts(manifest: Manifest, store: VideoStore) -> None:
    """Raises Refusal where stored videos have another label, source or split: skipping them would keep the old ones."""
    other = []
    for row in manifest.rows:
        info = store.infos.get(row.video_id)
        wanted = (row.label, row.source or row.video_id, row.split)
        if info and (info.label, info.source, info.split) != wanted:
            other.append(f"{row.video_id}: stored {info.label, info.source, info.split}, the manifest has {wanted}")
    if other:
        raise Refusal(
            f"{len(other)} stored videos have another label, source or split than the manifest, the first is {other[0]}",
            where=str(store.root),
            remedy="a store holds one split of a data set: extract into another one, or give the manifest of this one",
        )


def plan(manifest: Manifest, store: VideoStore, retry_quarantined: bool) -> tuple[dict[str, Video], Summary]:
    """What is missing, by video id."""
    done, refused = set(store.videos), set() if retry_quarantined else set(store.quarantine)
    todo = {row.video_id: row for row in manifest.rows if row.video_id not in done and row.video_id not in refused}
    summary = Summary(
        skipped=sum(row.video_id in done for row in manifest.rows),
        in_quarantine=sum(row.video_id in refused for row in manifest.rows),
    )
    return todo, summary
