"""Agreement of clusters with classes against definitions, all matchings and worked cases."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.clusters import cluster_scores
from pipeline.errors import Refusal

VIDEOS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=30)


def plain_accuracy(clusters: list[int], classes: list[int]) -> float:
    """The best of all ways to give each cluster a class of its own, or none."""
    names, known = sorted(set(clusters)), sorted(set(classes))
    known += [-2 - i for i in range(len(names))]  # classes that no video has
    return max(
        sum(dict(zip(names, chosen, strict=True))[c] == label for c, label in zip(clusters, classes, strict=True))
        for chosen in itertools.permutations(known, len(names))
    ) / len(classes)


def entropy(values: list) -> float:
    return -sum(n / len(values) * math.log(n / len(values)) for n in Counter(values).values())


def plain_nmi(clusters: list[int], classes: list[int]) -> float:
    apart = entropy(clusters) + entropy(classes)
    return 2 * (apart - entropy(list(zip(clusters, classes, strict=True)))) / apart if apart else 1.0


def plain_ari(clusters: list[int], classes: list[int]) -> float:
    """Over pairs of videos: together in both, against what chance would give."""
    pairs = list(itertools.combinations(range(len(classes)), 2))
    one = {(i, j) for i, j in pairs if clusters[i] == clusters[j]}
    other = {(i, j) for i, j in pairs if classes[i] == classes[j]}
    chance = len(one) * len(other) / len(pairs) if pairs else 0
    most = (len(one) + len(other)) / 2
    return (len(one & other) - chance) / (most - chance) if most != chance else 1.0


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=12))
def test_accuracy_is_the_best_of_all_matchings(videos: list[tuple[int, int]]) -> None:
    clusters, classes = ([video[side] for video in videos] for side in (0, 1))
    assert cluster_scores(clusters, classes)["accuracy"] == pytest.approx(plain_accuracy(clusters, classes))


@settings(max_examples=25)
@given(VIDEOS)
def test_scores_equal_their_definitions(videos: list[tuple[int, int]]) -> None:
    clusters, classes = ([video[side] for video in videos] for side in (0, 1))
    scores = cluster_scores(np.array(clusters), torch.tensor(classes))
    assert list(scores) == ["nmi", "ami", "ari", "accuracy"]
    assert scores["nmi"] == pytest.approx(plain_nmi(clusters, classes), abs=1e-9)
    assert scores["ari"] == pytest.approx(plain_ari(clusters, classes), abs=1e-9)


def test_equal_partitions_score_one_whatever_their_names() -> None:
    scores = cluster_scores(np.array([7, 7, 3, 3, 5]), np.array([0, 0, 1, 1, 2]))
    assert scores == pytest.approx({"nmi": 1, "ami": 1, "ari": 1, "accuracy": 1})


def test_videos_of_a_cluster_too_many_are_errors() -> None:
    scores = cluster_scores(np.array([0, 0, 1, 1, 2, 2]), np.array([0, 0, 0, 0, 1, 1]))
    assert scores["accuracy"] == pytest.approx(4 / 6)  # not the purity, 1
    assert cluster_scores(np.zeros(6, dtype=int), np.array([0, 0, 0, 1, 1, 2]))["accuracy"] == pytest.approx(0.5)


def test_a_worked_case_of_nmi_and_ami() -> None:
    """Two classes of two, three clusters: I = ln 2, H = ln 2 and 3/2 ln 2; chance gives 5/6 ln 2 of I."""
    scores = cluster_scores(np.array([0, 0, 1, 2]), np.array([0, 0, 1, 1]))
    assert scores["nmi"] == pytest.approx(1 / 1.25)
    assert scores["ami"] == pytest.approx((1 - 2 / 3) / (1.25 - 2 / 3))


def test_chance_is_adjusted_for() -> None:
    rng = np.random.default_rng(0)
    scores = cluster_scores(rng.integers(0, 200, 600), rng.integers(0, 20, 600))
    assert scores["nmi"] > 0.4 and abs(scores["ami"]) < 0.05 and abs(scores["ari"]) < 0.02


@pytest.mark.parametrize(
    ("clusters", "classes", "told"),
    [
        ([0, 1, 2], [0, 1], "3 assignments cannot be compared with 2 labels"),
        ([], [], r"assignments are .* \(0,\)"),
        ([0, 1], [], r"labels are .* \(0,\)"),
        ([[0], [1]], [0, 1], r"assignments are int64 \(2, 1\)"),
        ([0, 1], [0.5, 1], r"labels are float64 \(2,\)"),
        ([0, 1], ["a", "b"], r"labels are <U1 \(2,\)"),
        ([0, 1, 1], [0, -1, 1], "1 of 3 videos have no label"),
    ],
    ids=["lengths", "empty", "no labels", "not a list", "no integers", "names", "no label"],
)
def test_scores_fail(clusters: list, classes: list, told: str) -> None:
    with pytest.raises(Refusal, match=told):
        cluster_scores(clusters, classes)
