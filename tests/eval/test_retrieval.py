"""Retrieval against torchmetrics, plain loops and worked cases."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from eval import retrieval
from pipeline.errors import Refusal


def plain_recall(scores: np.ndarray, wanted: np.ndarray, have: np.ndarray, k: int) -> float:
    hits = 0
    for row, label in zip(scores, wanted, strict=True):
        order = sorted(range(len(row)), key=lambda j: (-row[j], j))
        hits += any(have[j] == label and label != -1 for j in order[:k])
    return hits / len(wanted)


@pytest.mark.parametrize("centre", [True, False])
@pytest.mark.parametrize("kind", ["array", "tensor"])
def test_similarity_is_centred_cosine(centre: bool, kind: str) -> None:
    rng = np.random.default_rng(0)
    queries, gallery = rng.normal(size=(5, 8)) + 2, rng.normal(size=(7, 8)) - 1
    expected = np.zeros((5, 7))
    for i in range(5):
        for j in range(7):
            a = queries[i] - (queries.mean(0) if centre else 0)
            b = gallery[j] - (gallery.mean(0) if centre else 0)
            expected[i, j] = a @ b / np.sqrt((a @ a) * (b @ b))
    if kind == "tensor":
        scores = retrieval.similarity(torch.from_numpy(queries), torch.from_numpy(gallery), centre=centre)
        assert isinstance(scores, torch.Tensor)
    else:
        scores = retrieval.similarity(queries, gallery, centre=centre)
        assert isinstance(scores, np.ndarray)
    np.testing.assert_allclose(np.asarray(scores), expected, atol=1e-12)


def test_similarity_takes_mixed_precision_and_half() -> None:
    rng = np.random.default_rng(1)
    queries, gallery = rng.normal(size=(4, 6)), rng.normal(size=(5, 6))
    mixed = retrieval.similarity(queries.astype(np.float32), gallery)
    half = retrieval.similarity(torch.from_numpy(queries).bfloat16(), torch.from_numpy(gallery).bfloat16())
    np.testing.assert_allclose(mixed, retrieval.similarity(queries, gallery), atol=1e-6)
    assert half.dtype == torch.float32


@pytest.mark.parametrize(
    ("queries", "gallery"),
    [
        (np.zeros((2, 3)), np.zeros((2, 4))),
        (np.array([[np.nan, 1.0], [0, 1]]), np.eye(2)),
        (np.ones((1, 3)), np.eye(3)),
        (np.zeros((0, 3)), np.eye(3)),
        (np.zeros(3), np.eye(3)),
    ],
    ids=["sizes", "nan", "one row", "empty", "not rows"],
)
def test_similarity_fails(queries: np.ndarray, gallery: np.ndarray) -> None:
    with pytest.raises(Refusal):
        retrieval.similarity(queries, gallery)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("ties", [False, True])
def test_recall_equals_plain_loop(seed: int, ties: bool) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 4, size=(17, 23)).astype(float) if ties else rng.normal(size=(17, 23))
    wanted, have = rng.integers(-1, 6, size=17), rng.integers(-1, 5, size=23)
    ks = (1, 2, 5, 23, 50)
    result = retrieval.recall(scores, wanted, have, ks)
    assert list(result) == list(ks)
    assert result == {k: pytest.approx(plain_recall(scores, wanted, have, k)) for k in ks}


@pytest.mark.parametrize("k", [1, 5, 10, 20, 50])
def test_recall_is_the_hit_rate_of_torchmetrics(k: int) -> None:
    from torchmetrics.retrieval import RetrievalHitRate

    generator = torch.Generator().manual_seed(k)
    scores = torch.randn(30, 60, generator=generator)
    wanted, have = (torch.randint(0, 12, (n,), generator=generator) for n in (30, 60))
    metric = RetrievalHitRate(top_k=k, empty_target_action="neg")
    rows = torch.arange(30)[:, None].expand(30, 60)
    metric.update(scores.flatten(), (wanted[:, None] == have[None]).flatten(), indexes=rows.flatten())
    assert retrieval.recall(scores, wanted, have, ks=(k,))[k] == pytest.approx(float(metric.compute()), abs=1e-6)


def test_recall_ties_rank_in_gallery_order_and_a_large_k_takes_all() -> None:
    scores = np.zeros((2, 3))
    assert retrieval.recall(scores, [0, 2], [0, 1, 2], ks=(1, 2, 3, 1000)) == {1: 0.5, 2: 0.5, 3: 1.0, 1000: 1.0}


def test_recall_of_masked_pairs() -> None:
    scores = np.array([[-np.inf, 1.0, -np.inf]])
    assert retrieval.recall(scores, [7], [7, 1, 1], ks=(1, 2)) == {1: 0.0, 2: 1.0}


def test_recall_in_blocks_equals_one_block(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    scores, wanted, have = rng.normal(size=(40, 50)), rng.integers(0, 30, 40), rng.integers(0, 30, 50)
    whole = retrieval.recall(scores, wanted, have)
    monkeypatch.setattr(retrieval, "PAIRS_AT_ONCE", 7 * 50)
    assert retrieval.recall(scores, wanted, have) == whole


@pytest.mark.parametrize(
    ("scores", "wanted", "have", "ks"),
    [
        (np.zeros((2, 3)), [0, 1], [0, 1], (1,)),
        (np.zeros((2, 3)), [0], [0, 1, 1], (1,)),
        (np.full((1, 1), np.nan), [0], [0], (1,)),
        (np.zeros((1, 1)), [0], [0], (0,)),
        (np.zeros((0, 1)), [], [0], (1,)),
    ],
    ids=["gallery", "queries", "nan", "k", "empty"],
)
def test_recall_fails(scores: np.ndarray, wanted: list[int], have: list[int], ks: tuple[int, ...]) -> None:
    with pytest.raises(Refusal):
        retrieval.recall(scores, np.array(wanted, dtype=int), np.array(have), ks)


def test_chance_is_the_mean_of_random_orders() -> None:
    rng = np.random.default_rng(4)
    wanted, have = rng.integers(0, 5, size=300), rng.integers(0, 4, size=40)
    expected = retrieval.chance(wanted, have, ks=(1, 5, 60))
    drawn = [retrieval.recall(rng.random((300, 40)), wanted, have, ks=(1, 5, 60)) for _ in range(50)]
    for k in (1, 5, 60):
        assert expected[k] == pytest.approx(np.mean([d[k] for d in drawn]), abs=0.012)
    balanced = retrieval.chance(np.repeat(np.arange(10), 15), np.repeat(np.arange(10), 80), ks=(1,))
    assert balanced[1] == pytest.approx(0.1)


@pytest.mark.parametrize("centre", [True, False])
def test_nearest_is_the_head_of_the_sorted_similarities(centre: bool) -> None:
    rng = np.random.default_rng(5)
    queries, gallery = rng.normal(size=(6, 16)), rng.normal(size=(50, 16))
    scores, rows = retrieval.nearest(queries, torch.from_numpy(gallery), k=7, centre=centre)
    full = retrieval.similarity(queries, gallery, centre=centre)
    np.testing.assert_array_equal(rows, np.argsort(-full, axis=1)[:, :7])
    np.testing.assert_allclose(scores, np.take_along_axis(full, rows, axis=1), atol=1e-6)
    assert retrieval.nearest(queries, gallery, k=1000)[1].shape == (6, 50)


def plain_neighbours(scores: np.ndarray, k: int) -> list[list[int]]:
    return [sorted(range(len(row)), key=lambda j: (-row[j], j))[:k] for row in scores]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("at_once", [1, 5 * 23, 2**26])
def test_search_equals_plain_loops_in_blocks_of_any_size(
    seed: int, ties: bool, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retrieval, "PAIRS_AT_ONCE", at_once)
    rng = np.random.default_rng(seed)
    queries, gallery = rng.normal(size=(17, 4)), rng.normal(size=(23, 4))
    if ties:
        queries, gallery = rng.integers(0, 2, (17, 4)).astype(float), rng.integers(0, 2, (23, 4)).astype(float)
    wanted, have = rng.integers(-1, 6, 17), rng.integers(-1, 5, 23)
    scores = queries @ gallery.T
    found = retrieval.search(queries, gallery, wanted, have, k=6)
    assert found.rows.tolist() == plain_neighbours(scores, 6)
    np.testing.assert_allclose(found.similarities, np.take_along_axis(scores, found.rows, axis=1))
    expected = [
        next((rank for rank, j in enumerate(order) if label != -1 and have[j] == label), np.iinfo(np.int64).max)
        for order, label in zip(plain_neighbours(scores, 23), wanted, strict=True)
    ]
    assert found.ranks.tolist() == expected
    assert retrieval.shares(found.ranks) == retrieval.recall(scores, wanted, have)
    for label, share in retrieval.by_class(found.ranks, wanted).items():
        own = wanted == label
        assert share == retrieval.recall(scores[own], wanted[own], have)


def test_nearest_of_equal_rows_come_in_gallery_order() -> None:
    gallery = np.ones((9, 3))
    assert retrieval.nearest(np.eye(3), gallery, k=4, centre=False)[1].tolist() == [[0, 1, 2, 3]] * 3


def test_neighbours_vote_by_their_similarity() -> None:
    """Against scikit-learn's classifier with the same weights, and a worked case."""
    from sklearn.neighbors import KNeighborsClassifier

    rng = np.random.default_rng(0)
    queries, gallery = (retrieval.unit_rows(rng.normal(size=(n, 5)), True, "query") for n in (40, 90))
    wanted, have = rng.integers(0, 4, 40), rng.integers(0, 4, 90)
    found = retrieval.search(queries, gallery, wanted, have)
    nearest = KNeighborsClassifier(
        n_neighbors=retrieval.NEIGHBOURS,
        metric="cosine",
        weights=lambda distances: np.exp((1 - distances) / retrieval.TEMPERATURE),
    ).fit(gallery.numpy(), have)
    np.testing.assert_array_equal(retrieval.neighbours_vote(found, have), nearest.predict(queries.numpy()))
    one = retrieval.Found(np.zeros(1), np.array([[0.9, 0.8, 0.8]]), np.array([[0, 1, 2]]))
    labels = np.array([5, 3, 3])
    assert retrieval.neighbours_vote(one, labels, temperature=0.01).tolist() == [5]
    assert retrieval.neighbours_vote(one, labels, temperature=1.0).tolist() == [3]


def test_nearest_fails_without_a_neighbour_to_find() -> None:
    with pytest.raises(Refusal, match="at least 1"):
        retrieval.nearest(np.eye(3), np.eye(3), k=0)
