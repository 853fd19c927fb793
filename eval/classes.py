"""Retrieval class by class: how often each class is found, and which class is found instead."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eval.retrieval import NO_LABEL, Rows, nearest


@dataclass(frozen=True)
class ClassScore:
    """Of the test videos of a class, the share whose nearest training video is of it (R@1, 0..1), and how often that of
    which other class was the nearest instead, most often first."""

    label: int
    queries: int
    recall: float
    instead: tuple[tuple[int, int], ...]  # (label, test videos)


def found_classes(queries: Rows, gallery: Rows, have: np.ndarray, centre: bool = True) -> np.ndarray:
    """(Q,) the class of each query's nearest gallery row, whose classes are `have` (G,); see `retrieval.nearest`."""
    return have[nearest(queries, gallery, 1, centre)[1][:, 0]]


def confusion(wanted: np.ndarray, found: np.ndarray, classes: int) -> np.ndarray:
    """(C, C) how many videos of each class (row) found which class (column); those without a label are left out.

    Raises:
        ValueError: classes that are not below C, or sides that differ in length.
    """
    if wanted.shape != found.shape or max(wanted.max(initial=0), found.max(initial=0)) >= classes:
        raise ValueError(f"classes {wanted.shape} and {found.shape} do not fit each other, or {classes} classes")
    known = (wanted != NO_LABEL) & (found != NO_LABEL)
    counts = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(counts, (wanted[known], found[known]), 1)
    return counts


def by_class(counts: np.ndarray) -> list[ClassScore]:
    """Of a confusion matrix (C, C), the classes that test videos have, in their order."""
    scores = []
    for label, row in enumerate(counts):
        if not row.sum():
            continue
        others = [int(other) for other in np.argsort(-row, kind="stable") if row[other] and other != label]
        instead = tuple((other, int(row[other])) for other in others)
        scores.append(ClassScore(label, int(row.sum()), float(row[label] / row.sum()), instead))
    return scores
