"""Which videos are tested, and which they are compared with, whatever labels and splits a store has."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import numpy as np

from eval.features import GALLERY
from pipeline import called
from pipeline.errors import Refusal, counted, named
from pipeline.manifest import SPLITS
from pipeline.store import Damaged, VideoStore
from pipeline.store.annotated import NO_LABEL
from pipeline.store.annotation import AnnotationSet, with_test_share
from train.training_set import extract_longer

TESTED = "test"  # the split whose videos look for neighbours among those of GALLERY
SCORES = "scores of clusters"  # how well they agree with classes
SHARE = 0.25  # of the videos, which is held out where there is one split alone
SHOWN = 5  # videos that a message names


@dataclass(frozen=True)
class LeftOut:
    """What an evaluation did without, or did otherwise, and why, in a sentence. `videos`: of which it is so."""

    told: str
    videos: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.told}: {named([repr(video) for video in self.videos], SHOWN)}" if self.videos else self.told


def judged(store: VideoStore) -> tuple[VideoStore, list[LeftOut]]:
    """The store with a part to test and a part to compare with.

    As they are where there are videos of the splits train and test. Otherwise videos without a split, or of val, stand
    in for train, and val for test; where one split is alone, a quarter of its videos, whole recordings of each class,
    is held out of it and tested. What stands in for what is told, and is part of the annotation set's name. Where there
    are labels, videos without one do not count.

    Raises Refusal for a store of fewer than two recordings.
    """
    said = store.annotated
    counted = (said.labels != NO_LABEL) if (said.labels != NO_LABEL).any() else np.ones(len(said.labels), bool)
    counted &= store.table.frames > 0
    present = [split for place, split in enumerate(SPLITS) if (counted & (said.splits == place)).any()]
    gallery = next((split for split in (GALLERY, "", "val") if split in present), None)
    tested = next((split for split in (TESTED, "val") if split in present and split != gallery), None)
    if (gallery, tested) == (GALLERY, TESTED):
        return store, []
    if gallery is not None and tested is not None:
        splits = np.full_like(said.splits, SPLITS.index(""))
        for split, stands_for in ((gallery, GALLERY), (tested, TESTED)):
            splits[said.splits == SPLITS.index(split)] = SPLITS.index(stands_for)
        told = LeftOut(f"{_called(gallery)} stand in for the split train, {_called(tested)} for test")
        return _with_splits(store, splits, f"{gallery or 'none'}+{tested}"), [told]
    alone = gallery if gallery is not None else tested
    if alone is None:
        raise Refusal("the store has no video with a frame to show", where=str(store.root), remedy=extract_longer())
    splits = _held_out(store, np.flatnonzero(counted & (said.splits == SPLITS.index(alone))))
    count = int((splits == SPLITS.index(TESTED)).sum())
    why = (
        f"there are {_called(alone)} alone: {count} of them, whole recordings, are held out and tested; a network that"
        " was trained on this store has seen them, if only without labels"
    )
    return _with_splits(store, splits, f"{alone or 'none'}-held-out"), [LeftOut(why)]


def _called(split: str) -> str:
    return f"videos of the split {split}" if split else "videos without a split"


def _held_out(store: VideoStore, rows: np.ndarray) -> np.ndarray:
    """Splits of all videos, of which those of `rows` alone have one."""
    whole = store.annotated.as_set()
    names = store.table.names(rows)
    split = with_test_share(
        AnnotationSet(whole.classes, {name: whole.said[name]._replace(split="") for name in names}), SHARE, seed=0
    ).said
    splits = np.full_like(store.annotated.splits, SPLITS.index(""))
    splits[rows] = [SPLITS.index(split[name].split) for name in names]
    if not (splits == SPLITS.index(TESTED)).any():
        raise Refusal(
            f"{counted(len(names), 'video')} of one recording: too few to hold some out",
            where=str(store.root),
            remedy="more videos, or a manifest that tells their recordings (source):"
            f" {called.command('annotate', store='', manifest='')}",
        )
    return splits


def _with_splits(store: VideoStore, splits: np.ndarray, called: str) -> VideoStore:
    said = store.annotated
    digest = hashlib.sha256(said.digest.encode() + splits.tobytes()).hexdigest()
    return store.said_by(dataclasses.replace(said, name=f"{said.name}.{called}", digest=digest, splits=splits))


def compared_videos(store: VideoStore) -> tuple[list[str], list[LeftOut]]:
    """The test and training videos; with a label, where any has one; and which are left out, and why."""
    said, table = store.annotated, store.table
    empty = table.frames < 1
    chosen = np.isin(said.splits, [SPLITS.index(split) for split in (GALLERY, TESTED)]) & ~empty
    unlabelled = chosen & (said.labels == NO_LABEL)
    left_out = []
    if empty.any():
        left_out.append(_videos("without a frame that all views have, left out", store, empty))
    if unlabelled.any() and not unlabelled[chosen].all():
        left_out.append(_videos("without a label, left out", store, unlabelled))
        chosen &= ~unlabelled
    return table.names(np.flatnonzero(chosen)), left_out


def damaged_videos(store: VideoStore, videos: Iterable[str], views: Collection[str]) -> LeftOut:
    """Those of which a byte of one of these views is not what was written; all of it is read."""
    found: list[str] = []
    for video in videos:
        for view in views:
            try:
                store.encoded(video, view, slice(None))
            except Damaged:
                found.append(video)
                break
    return LeftOut(
        f"{counted(len(found), 'video')} damaged, and left out ({called.command('verify', store='')} tells more)",
        tuple(found),
    )


def lacks(store: VideoStore, videos: Iterable[str]) -> dict[str, str]:
    """What labels do not suffice for ("retrieval", "probe", SCORES) -> why. Clusters are found without any."""
    labels: dict[str, list[str]] = {GALLERY: [], TESTED: []}
    for video in videos:
        info = store.info(video)
        if info.label:
            labels[info.split].append(info.label)
    gallery, found = labels[GALLERY], {}
    if len(labels[TESTED]) < 2:
        why = f"no video has a label ({called.command('annotate', store='', manifest='')} gives some)"
        if gallery or labels[TESTED]:
            why = f"{len(labels[TESTED]) or 'none'} of the test videos has a label"
        return dict.fromkeys(("retrieval", "probe", SCORES), why)
    if not gallery:
        return dict.fromkeys(("retrieval", "probe"), "no training video has a label")
    if len(set(gallery)) < 2 or len(set(gallery)) == len(gallery):
        found["probe"] = "it takes two classes among the training videos, and one of them with two of them"
    return found


def _videos(why: str, store: VideoStore, which: np.ndarray) -> LeftOut:
    return LeftOut(f"{counted(int(which.sum()), 'video')} {why}", tuple(store.table.names(np.flatnonzero(which))))
