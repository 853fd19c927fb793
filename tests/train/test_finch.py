"""FINCH against a plain loop over dense matrices, and what its partitions promise."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from train.clustering import finch as module
from train.clustering import nearest
from train.clustering.finch import finch


def loop_finch(rows: list[list[float]]) -> list[list[int]]:
    """The partitions, finest first: every link between any two rows is looked at."""
    partitions, longest = [], math.inf
    labels = list(range(len(rows)))
    while True:
        clusters = max(labels) + 1
        members = [[row for row, label in zip(rows, labels, strict=True) if label == c] for c in range(clusters)]
        points = [[sum(column) / len(of) for column in zip(*of, strict=True)] for of in members]
        merged, reach = loop_level(points, longest)
        count = max(merged) + 1
        if partitions and (count == clusters or count == 1):
            return partitions
        longest = min(longest, reach)  # that of the rows
        labels = [merged[label] for label in labels]
        partitions.append(labels)
        if clusters == 1 or (len(partitions) > 1 and clusters - count == 1):
            return partitions


def loop_level(points: list[list[float]], longest: float) -> tuple[list[int], float]:
    """Cluster of each point, and the longest of all links."""
    count = len(points)
    apart = [[1 - cosine(one, other) for other in points] for one in points]
    nearest = [0] * count
    for i in range(count):
        others = [j for j in range(count) if j != i]
        if others:
            least = min(apart[i][j] for j in others)
            nearest[i] = next(j for j in others if apart[i][j] <= least + 1e-12)
    labels, reach = list(range(count)), 0.0
    for i in range(count):
        for j in range(count):
            weight = (nearest[i] == j) + (nearest[j] == i) + (nearest[i] == nearest[j])
            if i == j or not weight:
                continue
            reach = max(reach, weight * apart[i][j])
            if weight * apart[i][j] <= longest + 1e-12:
                kept, lost = sorted((labels[i], labels[j]))
                labels = [kept if label == lost else label for label in labels]
    lowest = sorted(set(labels))  # a cluster is called by its lowest point
    return [lowest.index(label) for label in labels], reach


def cosine(one: list[float], other: list[float]) -> float:
    lengths = math.hypot(*one) * math.hypot(*other)
    return math.fsum(a * b for a, b in zip(one, other, strict=True)) / lengths if lengths else 0.0


def draw(count: int, dim: int, seed: int) -> np.ndarray:
    """Rows around a few directions."""
    rng = np.random.default_rng(seed)
    centres = 2 * rng.normal(size=(max(1, count // 6), dim))
    return centres[rng.integers(len(centres), size=count)] + rng.normal(size=(count, dim))


@settings(max_examples=40)
@given(st.integers(1, 24), st.integers(2, 6), st.integers(0, 10**6))
def test_partitions_equal_a_loop(count: int, dim: int, seed: int) -> None:
    rows = draw(count, dim, seed)
    found = finch(rows)
    assert found.labels.T.tolist() == loop_finch(rows.tolist())
    assert found.labels.dtype == np.int64
    assert found.counts == tuple(found.labels.max(axis=0) + 1)


@settings(max_examples=50)
@given(st.integers(1, 16), st.integers(1, 3), st.integers(0, 10**6))
def test_partitions_with_ties_identical_rows_and_zeros_equal_a_loop(count: int, dim: int, seed: int) -> None:
    rows = np.random.default_rng(seed).integers(-2, 3, size=(count, dim))
    assert finch(rows).labels.T.tolist() == loop_finch(rows.astype(float).tolist())


def test_the_loops_see_every_way_to_end() -> None:
    """Otherwise the two tests above would compare less than they seem to."""
    ends = set()
    for seed in range(40):
        counts = finch(draw(24, 4, seed)).counts
        ends.add((len(counts) > 1, len(counts) > 1 and counts[-2] - counts[-1] == 1))
    assert ends == {(False, False), (True, False), (True, True)}


@settings(max_examples=25)
@given(st.integers(2, 120), st.integers(2, 12), st.integers(0, 10**6))
def test_partitions_are_nested_fall_and_have_no_single_rows(count: int, dim: int, seed: int) -> None:
    found = finch(draw(count, dim, seed))
    assert all(fine > coarse for fine, coarse in zip(found.counts, found.counts[1:], strict=False))
    assert np.bincount(found.labels[:, 0]).min() >= 2
    for fine, coarse in zip(found.labels.T, found.labels.T[1:], strict=False):
        assert all(len(np.unique(coarse[fine == cluster])) == 1 for cluster in range(fine.max() + 1))
    for column in found.labels.T:
        first_rows = np.unique(column, return_index=True)[1]
        assert (np.diff(first_rows) > 0).all()  # numbered by the lowest row


@settings(max_examples=25)
@given(st.integers(1, 60), st.integers(3, 8), st.integers(0, 10**6))
def test_another_order_of_rows_gives_the_same_clusters(count: int, dim: int, seed: int) -> None:
    rows = draw(count, dim, seed)
    order = np.random.default_rng(seed).permutation(count)
    found, permuted = finch(rows), finch(rows[order])
    assert found.counts == permuted.counts
    for ours, theirs in zip(found.labels[order].T, permuted.labels.T, strict=True):
        assert len(set(zip(ours.tolist(), theirs.tolist(), strict=True))) == ours.max() + 1


def test_lengths_do_not_change_the_first_partition() -> None:
    rows = draw(80, 6, seed=3)
    lengths = np.random.default_rng(4).uniform(0.01, 100, size=(80, 1))
    assert np.array_equal(finch(rows).labels[:, 0], finch(rows * lengths).labels[:, 0])


@pytest.mark.parametrize("pairs_at_once", [1, 100, 1000])
def test_blocks_change_nothing(pairs_at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.concatenate([draw(60, 6, seed=5), np.ones((15, 6))])
    whole = finch(rows)
    monkeypatch.setattr(module, "PAIRS_AT_ONCE", pairs_at_once)
    monkeypatch.setattr(nearest, "PAIRS_AT_ONCE", pairs_at_once)
    blocked = finch(rows)
    assert blocked.counts == whole.counts and np.array_equal(blocked.labels, whole.labels)


@pytest.mark.parametrize("row", [[0.1, 0.7, -0.3], [0.0, 0.0, 0.0]], ids=["any", "zeros"])
@pytest.mark.parametrize("count", [1, 2, 3, 50])
def test_identical_rows_are_one_cluster(row: list[float], count: int) -> None:
    found = finch(np.array([row] * count))
    assert found.counts == (1,)
    assert found.labels.tolist() == [[0]] * count


@pytest.mark.parametrize("seed", range(12))
def test_rows_of_one_direction_are_one_cluster_whatever_their_lengths(seed: int) -> None:
    """Their distances, zero, are rounded in many ways, and none is nearer than another for that."""
    rng = np.random.default_rng(seed)
    direction, lengths = rng.normal(size=128), rng.uniform(1, 9, size=(60, 1))
    assert finch(lengths * direction).counts == (1,)


@pytest.mark.parametrize("seed", range(12))
def test_a_link_as_long_as_the_longest_is_kept_however_it_is_rounded(seed: int) -> None:
    """Cosines: .99 of the two that set the limit (their link counts double), .98 of the third to the first, .995
    nearer."""
    angles = np.array([0, np.arccos(0.995), -np.arccos(0.98)])
    twice = np.repeat(np.stack([np.cos(angles), np.sin(angles), 0 * angles, 0 * angles], axis=1), 2, axis=0)
    limit = [[0, 0, 1, 0], [0, 0, 0.99, (1 - 0.99**2) ** 0.5]]
    turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(8, 4)))[0].T
    found = finch(np.concatenate([twice, limit]) @ turn)
    assert found.labels.T.tolist() == [[0, 0, 1, 1, 2, 2, 3, 3], [0, 0, 0, 0, 0, 0, 1, 1]]


def test_two_that_are_each_others_nearest_may_be_linked_through_a_third_alone() -> None:
    """Their own link counts double and is too long; the third's links to both are longer, count once and are not."""
    corners = np.array([[0, 0, 10], [0.6**0.5, 0, 10], [0.25 / 0.6**0.5, 0.5958**0.5, 10]])  # squared sides .6, .7, .8
    limit = np.array([[1, 0, -0.0354], [1, 0, 0.0354]])  # two at a squared distance that, doubled, is 1 there
    found = finch(np.concatenate([corners, corners, limit]))
    assert found.labels.T.tolist() == [[0, 1, 2, 0, 1, 2, 3, 3], [0, 0, 0, 0, 0, 0, 1, 1]]


def test_arrays_and_tensors_of_any_precision_are_equal() -> None:
    rows = torch.from_numpy(draw(50, 8, seed=6)).bfloat16()
    wanted = finch(rows.double().numpy())
    frozen = rows.float().numpy()
    frozen.setflags(write=False)
    for given_rows in (rows, rows.half(), rows.float().requires_grad_(), rows.double(), frozen):
        assert np.array_equal(finch(given_rows).labels, wanted.labels)


@settings(max_examples=30)
@given(st.integers(2, 40), st.integers(2, 6), st.integers(0, 10**6))
def test_a_number_of_clusters_merges_the_two_nearest_until_it_is_reached(count: int, dim: int, seed: int) -> None:
    rows = draw(count, dim, seed)
    all_ = finch(rows)
    for clusters in range(1, all_.counts[0] + 1):
        found = finch(rows, clusters=clusters)
        finer = [column for column, of in enumerate(all_.counts) if of > clusters]
        assert found.counts == (*(all_.counts[column] for column in finer), clusters)
        assert np.array_equal(found.labels[:, :-1], all_.labels[:, finer])
        start = max(column for column, of in enumerate(all_.counts) if of >= clusters)
        assert found.labels[:, -1].tolist() == loop_merges(rows.tolist(), all_.labels[:, start].tolist(), clusters)


def loop_merges(rows: list[list[float]], labels: list[int], clusters: int) -> list[int]:
    """Merges the two clusters whose means are nearest, over and over, looking at all pairs each time."""
    while len(set(labels)) > clusters:
        means = {
            c: np.mean([row for row, of in zip(rows, labels, strict=True) if of == c], axis=0) for c in set(labels)
        }
        pairs = [(1 - cosine(means[a].tolist(), means[b].tolist()), a, b) for a in means for b in means if a < b]
        _, kept, lost = min(pairs)
        labels = [kept if of == lost else of for of in labels]
    return [sorted(set(labels)).index(of) for of in labels]


@pytest.mark.parametrize("partitions", [1, 2, 9])
def test_partitions_end_where_asked(partitions: int) -> None:
    rows = draw(200, 4, seed=1)
    whole, found = finch(rows), finch(rows, partitions=partitions)
    assert len(whole.counts) > 2
    assert found.counts == whole.counts[:partitions]
    assert np.array_equal(found.labels, whole.labels[:, :partitions])


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ({"clusters": 41}, "clusters is 41, but the first partition of these features has"),
        ({"clusters": 0}, "clusters is 0, and must be a whole number, at least 1"),
        ({"partitions": 0}, "partitions is 0, and must be"),
        ({"partitions": 1, "clusters": 2}, "both say where to stop"),
        ({"neighbours": "near"}, "'near'.*'approximate'"),
    ],
)
def test_finch_fails_on_an_end_that_cannot_be_reached(asked: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        finch(draw(80, 4, seed=0), **asked)


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (4,), (2, 3, 4)])
def test_finch_fails_on_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"(?s)features to cluster are \(.*\(N, D\)"):
        finch(np.ones(shape))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_finch_fails_on_the_first_row_that_is_not_finite(value: float) -> None:
    rows = draw(9, 4, seed=0)
    rows[[5, 7], [1, 2]] = value
    with pytest.raises(ValueError, match="(?s)not finite.*row 5 is the first of 2 such rows of 9"):
        finch(rows)


def test_finch_fails_on_an_unknown_metric() -> None:
    with pytest.raises(ValueError, match="'cosin'.*'cosine'"):
        finch(draw(9, 4, seed=0), metric="cosin")  # type: ignore[arg-type]


@pytest.mark.gpu
def test_a_gpu_finds_the_same_partitions() -> None:
    """All of them, and one of a number of clusters: the features' device is where it runs."""
    rows = torch.from_numpy(draw(3000, 32, seed=8).astype(np.float32))
    for asked in ({}, {"clusters": 7}):
        ours, theirs = finch(rows, **asked), finch(rows.cuda(), **asked)
        assert ours.counts == theirs.counts and np.array_equal(ours.labels, theirs.labels)
