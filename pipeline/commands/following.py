"""What is done next, as a command that can be typed as it stands."""

from __future__ import annotations

from pipeline import called
from pipeline.store import VideoStore


def following(command: str, **options: str) -> str:
    """A line that says so."""
    return f"next: {called.command(command, **options)}"


def after_store(store: VideoStore, method: str = "vicc", recipe: str = "small-real") -> str:
    """A store is trained on; where nothing is kept for a test, which training refuses, a split is drawn before."""
    place = str(store.root)
    if store.annotated.without_split():
        return following("annotate", store=place, test_share="0.2")
    return following("pretrain", method=method, recipe=recipe, store=place, run=f"runs/{store.root.name}")
