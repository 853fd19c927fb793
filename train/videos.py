"""Which videos of a store a recipe trains on."""

from __future__ import annotations

from pipeline.errors import Refusal
from pipeline.store import VideoStore
from train.callbacks.neighbours import hold_out
from train.loader import short_videos, used_videos
from train.recipe import Recipe


def training_videos(recipe: Recipe, store: VideoStore) -> list[str]:
    """The videos of the recipe's splits, without those that `clips.short` drops and those that are held out.

    Raises Refusal when there are none.
    """
    return used_and_held_out(recipe, store)[0]


def used_and_held_out(recipe: Recipe, store: VideoStore) -> tuple[list[str], list[str]]:
    """`training_videos`, and those that are held out of training."""
    return hold_out(
        store, used_videos(store, of_splits(recipe, store), recipe.clips), recipe.held_out_share, recipe.seed
    )


def told_of_short_videos(recipe: Recipe, store: VideoStore) -> str:
    """What becomes of the videos that are shorter than a clip, in a sentence; empty where there are none."""
    videos = of_splits(recipe, store)
    short = len(short_videos(store, videos, recipe.clips))
    fate = {"pad": "their first frame is repeated in front", "drop": "they are left out"}[recipe.clips.short]
    return f"{short} of {len(videos)} videos are shorter than a clip: {fate}" if short else ""


def of_splits(recipe: Recipe, store: VideoStore) -> list[str]:
    """All videos of the recipe's splits. Raises Refusal when there are none."""
    chosen = [video for video, info in store.infos.items() if info.split in recipe.splits]
    if not chosen:
        present = sorted({info.split or '""' for info in store.infos.values()})
        raise Refusal(
            f"no video of the splits {recipe.splits} is in the store",
            where=str(store.root),
            remedy=f"its videos are of the splits {', '.join(present) or 'none at all'}; see `splits` in the recipe",
        )
    return chosen
