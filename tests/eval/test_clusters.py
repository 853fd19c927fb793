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

from eval.clusters import ALGORITHMS, between, cluster, cluster_scores
from pipeline.errors import Refusal
from train.clustering.agreement import SizeGroup, agreement, by_size
from train.clustering.kmeans import kmeans

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


def planted(count: int = 60, apart: float = 8.0) -> tuple[np.ndarray, np.ndarray]:
    """Rows about three directions, and which."""
    rng = np.random.default_rng(0)
    classes = np.arange(count) % 3
    return np.eye(3, 5)[classes] * apart + rng.normal(size=(count, 5)), classes


def test_agreement_leaves_out_videos_without_a_label_and_adds_purity() -> None:
    clusters, classes = np.array([0, 0, 0, 1, 1, 2]), np.array([5, 5, 4, 4, -1, -1])
    scores = agreement(clusters, torch.tensor(classes))
    assert scores == cluster_scores(clusters[:4], classes[:4]) | {"purity": 3 / 4}
    assert agreement(clusters, np.full(6, -1)) == {} and by_size(clusters, np.full(6, -1)) == []
    with pytest.raises(Refusal, match="2 assignments"):
        agreement(np.array([0, 1]), np.array([0]))


@settings(max_examples=25)
@given(VIDEOS)
def test_purity_equals_its_definition(videos: list[tuple[int, int]]) -> None:
    clusters, classes = ([video[side] for video in videos] for side in (0, 1))
    members = {name: [c for n, c in videos if n == name] for name in set(clusters)}
    right = {name: Counter(own).most_common(1)[0][1] for name, own in members.items()}
    assert agreement(clusters, classes)["purity"] == pytest.approx(sum(right.values()) / len(videos))
    groups = by_size(clusters, classes)
    for group in groups:
        own = [name for name in members if group.least <= len(members[name]) <= group.most]
        videos_in = sum(len(members[name]) for name in own)
        assert (group.clusters, group.videos) == (len(own), videos_in)
        assert group.purity == pytest.approx(sum(right[name] for name in own) / videos_in)
    assert sum(group.videos for group in groups) == len(videos)


def test_sizes_are_grouped_by_powers_of_two() -> None:
    clusters = np.repeat([0, 1, 2, 3], [1, 2, 3, 4])
    classes = np.array([0, 0, 1, 0, 0, 1, 2, 2, 2, 2])
    assert by_size(clusters, classes) == [
        SizeGroup(1, 1, 1, 1, 1.0), SizeGroup(2, 3, 2, 5, 3 / 5), SizeGroup(4, 7, 1, 4, 1.0),
    ]  # fmt: skip


@pytest.mark.parametrize("spherical", [False, True])
def test_kmeans_finds_what_lies_apart_and_follows_from_the_seed(spherical: bool) -> None:
    rows, classes = planted()
    if spherical:
        rows = rows * np.random.default_rng(1).uniform(0.01, 100, (len(rows), 1))  # lengths say nothing then
    found = kmeans(torch.tensor(rows), 3, spherical=spherical, seed=4)
    assert cluster_scores(found, classes)["ari"] == 1.0
    assert np.array_equal(found, kmeans(rows, 3, spherical=spherical, seed=4)) and found.dtype == np.int64


def test_every_row_is_with_the_nearest_of_the_means_of_its_clusters() -> None:
    rows, _ = planted(apart=2.0)
    found = kmeans(rows, 4)
    means = np.stack([rows[found == name].mean(0) for name in range(4)])
    distances = ((rows[:, None] - means[None]) ** 2).sum(-1)
    assert (distances.argmin(1) == found).mean() > 0.95  # at the end of 25 rounds


@pytest.mark.parametrize(("rows", "count", "told"), [
    (np.zeros((3, 2)), 4, "3 rows cannot make 4 clusters"), (np.zeros((3, 2)), 0, "count"),
    (np.full((3, 2), np.nan), 1, "not finite"), (np.zeros(3), 1, "not .N, D."),
])  # fmt: skip
def test_kmeans_fails(rows: np.ndarray, count: int, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        kmeans(rows, count)


def test_a_bank_is_clustered_by_every_algorithm_with_labels_and_without() -> None:
    rows, classes = planted()
    found = {one.algorithm: one for one in cluster(rows, classes)}
    assert list(found) == list(ALGORITHMS)
    assert found["kmeans"].count == found["spherical_kmeans"].count == 3
    for one in found.values():
        assert one.scores == agreement(one.assignments, classes) and one.sizes == by_size(one.assignments, classes)
        assert one.count == len(set(one.assignments.tolist()))
    assert found["finch"].count > found["finch_merged"].count == 3 and found["finch_merged"].scores["ami"] > 0.5
    plain = {one.algorithm: one for one in cluster(rows, np.full(len(rows), -1))}
    assert plain["kmeans"].count == plain["finch"].count == found["finch"].count
    assert all(one.scores == {} and one.sizes == [] for one in plain.values())
    assert next(one.count for one in cluster(rows, classes, count=7) if one.algorithm == "kmeans") == 7


def test_views_agree_as_their_clusters_do() -> None:
    draws = np.random.default_rng(5)
    labels = np.repeat(np.arange(4), 30)
    places = draws.normal(size=(4, 8)) * 10
    one = places[labels] + draws.normal(size=(120, 8))
    other = one @ np.linalg.qr(draws.normal(size=(8, 8)))[0]  # turned: the same clusters
    apart = places[draws.permutation(labels)]
    assert between([one, other], labels, 0) == {"views_kmeans_nmi": 1.0, "views_kmeans_ami": 1.0}
    assert abs(between([one, apart], labels, 0)["views_kmeans_ami"]) < 0.1
    pairs = [between(pair, labels, 0)["views_kmeans_nmi"] for pair in ([one, other], [one, apart], [other, apart])]
    assert between([one, other, apart], labels, 0)["views_kmeans_nmi"] == pytest.approx(np.mean(pairs))
