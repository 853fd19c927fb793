"""SLIC's triplet and temporal terms against plain loops."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from train.losses.triplet import (
    Strategy,
    cosine_distances,
    mean_hinge,
    semi_hard_pairs,
    temporal_discrimination,
    triplet_loss,
)

SIZES = st.integers(1, 10), st.integers(1, 6), st.integers(1, 5), st.integers(0, 10**6)  # N, labels, D, seed
MARGINS = st.sampled_from([0.0, 0.2, 1.5])
STRATEGIES: tuple[Strategy, ...] = ("random_semi_hard", "fixed_semi_hard")


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(count: int, kinds: int, dim: int, seed: int) -> tuple[Tensor, Tensor]:
    """Embeddings of all lengths, and labels; -1 among them where there is room."""
    embeddings = 3 * torch.randn(count, dim, generator=seeded(seed), dtype=torch.float64)
    return embeddings, torch.randint(-1 if kinds > 3 else 0, kinds, (count,), generator=seeded(seed + 1))


def distance(one: Tensor, other: Tensor) -> Tensor:
    return 1 - torch.dot(one, other) / (one.norm() * other.norm())


def loop_pairs(distances: Tensor, labels: list[int], margin: float) -> dict[tuple[int, int], list[int]]:
    """The candidates of every pair."""
    found = {}
    for i, label in enumerate(labels):
        others = [k for k, other in enumerate(labels) if other != label]
        for j in range(i + 1, len(labels)):
            if labels[j] == label != -1 and others:
                found[i, j] = [k for k in others if distances[i, k] < distances[i, j] + margin]
    return found


def loop_loss(
    embeddings: Tensor, labels: list[int], margin: float, choose: dict[tuple[int, int], int] | None
) -> Tensor:
    """With the chosen negatives, or the nearest ones; pairs without candidates are zeros."""
    distances = torch.stack([torch.stack([distance(one, other) for other in embeddings]) for one in embeddings])
    pairs = loop_pairs(distances, labels, margin)
    total = embeddings.sum() * 0
    for (i, j), candidates in pairs.items():
        if candidates:
            k = choose[i, j] if choose else min(candidates, key=distances[i].tolist().__getitem__)
            total = total + max(distances[i, j] - distances[i, k] + margin, distances[i, j] * 0)
    return total / max(len(pairs), 1)


@settings(max_examples=40)
@given(*SIZES, MARGINS)
def test_pairs_and_candidates_equal_a_loop(count: int, kinds: int, dim: int, seed: int, margin: float) -> None:
    embeddings, labels = draw(count, kinds, dim, seed)
    distances = cosine_distances(embeddings)
    pairs, candidates = semi_hard_pairs(distances, labels, margin)
    expected = loop_pairs(distances, labels.tolist(), margin)
    assert [tuple(pair) for pair in pairs.tolist()] == list(expected)
    assert [row.nonzero().flatten().tolist() for row in candidates] == list(expected.values())
    assert pairs.shape == (len(expected), 2) and candidates.shape == (len(expected), count)
    assert pairs.dtype == torch.int64 and candidates.dtype == torch.bool


@settings(max_examples=25)
@given(*SIZES, MARGINS)
def test_fixed_loss_and_gradient_equal_a_loop(count: int, kinds: int, dim: int, seed: int, margin: float) -> None:
    embeddings, labels = draw(count, kinds, max(dim, 2), seed)
    ours, theirs = (embeddings.clone().requires_grad_() for _ in range(2))
    loss = triplet_loss(ours, labels, margin, "fixed_semi_hard")
    expected = loop_loss(theirs, labels.tolist(), margin, None)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-9, atol=1e-12)


def test_every_choice_of_candidates_is_equally_frequent() -> None:
    """Two pairs of two and three candidates: the losses of all six choices are listed, and draws counted."""
    embeddings, labels = draw(7, 1, 4, seed=2)[0], [0, 0, 1, 1, 2, 3, 4]
    (first, its), (second, seconds) = loop_pairs(cosine_distances(embeddings), labels, 0.2).items()
    assert sorted([len(its), len(seconds)]) == [2, 3]
    choices = [{first: k, second: other} for k in its for other in seconds]
    losses = {round(float(loop_loss(embeddings, labels, 0.2, choice)), 9) for choice in choices}
    assert len(losses) == len(choices)
    generator = seeded(1)
    drawn = [
        triplet_loss(embeddings, torch.tensor(labels), generator=generator).item() for _ in range(100 * len(losses))
    ]
    seen = Counter(round(loss, 9) for loss in drawn)
    assert set(seen) == losses
    chi_square = sum((times - 100) ** 2 / 100 for times in seen.values())
    assert chi_square < 20.5  # five degrees of freedom: exceeded once in a thousand times


def test_random_loss_follows_from_the_generator() -> None:
    embeddings, labels = draw(12, 3, 6, seed=2)
    same = {triplet_loss(embeddings, labels, 0.5, generator=seeded(3)).item() for _ in range(3)}
    others = {triplet_loss(embeddings, labels, 0.5, generator=seeded(seed)).item() for seed in range(8)}
    assert len(same) == 1 and len(others) > 1
    torch.manual_seed(3)
    assert triplet_loss(embeddings, labels, 0.5).item() in same


def test_a_pair_without_candidates_is_a_zero_that_counts() -> None:
    """The released code takes a wrong row for its negative, which may even be the anchor, and finds a loss."""
    embeddings, labels = torch.eye(3)[[0, 0, 1, 2, 2]], torch.tensor([0, 0, 1, 2, 2])
    embeddings[2, 0] = 3.0  # near the first pair, at a right angle to the second
    for strategy in STRATEGIES:
        assert triplet_loss(embeddings, labels, 0.04, strategy) == 0
        near = triplet_loss(embeddings, labels, 0.2, strategy).item()
        assert near == pytest.approx((0.2 - (1 - 3 / math.sqrt(10))) / 2, abs=1e-6)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("labels", [[0, 1, 2], [1, 1, 1], [-1, -1, 0], [0]], ids=str)
def test_without_a_pair_the_loss_is_a_zero_with_zero_gradients(strategy: Strategy, labels: list[int]) -> None:
    embeddings = torch.randn(len(labels), 4, generator=seeded(0)).requires_grad_()
    loss = triplet_loss(embeddings, torch.tensor(labels), strategy=strategy)
    loss.backward()
    assert loss.shape == () and loss.item() == 0
    assert torch.equal(embeddings.grad, torch.zeros_like(embeddings))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_gradients_are_those_of_finite_differences(strategy: Strategy) -> None:
    embeddings, labels = draw(8, 3, 5, seed=4)
    assert triplet_loss(embeddings, labels, strategy=strategy, generator=seeded(5)) > 0
    assert torch.autograd.gradcheck(
        lambda rows: triplet_loss(rows, labels, strategy=strategy, generator=seeded(5)), (embeddings.requires_grad_(),)
    )
    parts = [torch.randn(4, 5, generator=seeded(seed), dtype=torch.float64, requires_grad=True) for seed in range(3)]
    assert torch.autograd.gradcheck(temporal_discrimination, parts)


@settings(max_examples=30)
@given(st.integers(1, 6), st.integers(2, 5), st.integers(0, 10**6), st.sampled_from([0.0, 0.04, 1.0]))
def test_temporal_term_equals_a_loop(batch: int, dim: int, seed: int, margin: float) -> None:
    anchor, positive, second = torch.randn(3, batch, dim, generator=seeded(seed), dtype=torch.float64)
    total = 0.0
    for a, p, a2 in zip(anchor, positive, second, strict=True):
        total += max(0.0, float(distance(a, a2) - distance(a, p)) + margin)
    loss = temporal_discrimination(anchor, positive, second, margin)
    assert loss.item() == pytest.approx(total / batch, rel=1e-9, abs=1e-12)


def test_the_temporal_term_wants_the_second_anchor_nearer() -> None:
    anchor, other = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    assert temporal_discrimination(anchor, positive=other, second_anchor=anchor) == 0
    assert temporal_discrimination(anchor, positive=anchor, second_anchor=other).item() == pytest.approx(1.04)
    assert temporal_discrimination(anchor, anchor, anchor).item() == pytest.approx(0.04)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_raised_and_autocast_changes_nothing(dtype: torch.dtype) -> None:
    embeddings, labels = draw(12, 3, 32, seed=6)
    halved = embeddings.to(dtype)
    parts = halved.view(3, 4, 32).unbind()

    def losses(rows: Tensor, parts: tuple[Tensor, ...]) -> list[Tensor]:
        pairs, _ = semi_hard_pairs(distances, labels)
        return [
            triplet_loss(rows, labels, generator=seeded(0)),
            triplet_loss(rows, labels, strategy="fixed_semi_hard"),
            mean_hinge(distances, pairs, pairs[:, 0], 0.2),
            temporal_discrimination(*parts),
        ]

    distances = cosine_distances(halved)
    plain = losses(halved.float(), tuple(part.float() for part in parts))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (embeddings.float() @ embeddings.float().T).dtype == torch.bfloat16  # autocast is on
        cast = losses(halved, parts)
    for loss, expected in zip(cast, plain, strict=True):
        assert loss.dtype == torch.float32 and torch.equal(loss, expected) and loss > 0
    rows = halved.clone().requires_grad_()
    triplet_loss(rows, labels).backward()
    assert rows.grad is not None and torch.isfinite(rows.grad).all()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_rows_of_zeros_and_identical_rows_have_finite_losses_and_gradients(strategy: Strategy) -> None:
    embeddings = torch.ones(6, 4)
    embeddings[2] = 0
    embeddings.requires_grad_()
    loss = triplet_loss(embeddings, torch.tensor([0, 0, 0, 1, 1, 1]), strategy=strategy)
    loss.backward()
    assert 0 < loss < math.inf and torch.isfinite(embeddings.grad).all()


def test_a_broken_network_shows() -> None:
    embeddings, labels = draw(8, 2, 4, seed=1)
    embeddings[3] = math.nan
    for strategy in STRATEGIES:
        assert triplet_loss(embeddings, labels, strategy=strategy).isnan()


def test_triplet_loss_fails_on_what_does_not_fit() -> None:
    embeddings, labels = draw(6, 2, 4, seed=0)
    with pytest.raises(ValueError, match=r"embeddings are \(24,\)"):
        triplet_loss(embeddings.flatten(), labels)
    with pytest.raises(ValueError, match=r"embeddings are \(0, 4\)"):
        triplet_loss(embeddings[:0], labels[:0])
    with pytest.raises(ValueError, match=r"labels \(5,\)"):
        triplet_loss(embeddings, labels[:5])
    with pytest.raises(ValueError, match=r"distances \(6, 4\)"):
        semi_hard_pairs(embeddings, labels)
    with pytest.raises(ValueError, match="labels are torch.float64"):
        triplet_loss(embeddings, labels.double())
    with pytest.raises(ValueError, match="'semi_hard'.*'random_semi_hard', 'fixed_semi_hard'"):
        triplet_loss(embeddings, labels, strategy="semi_hard")  # type: ignore[arg-type]
    for margin in (-0.1, math.nan):
        with pytest.raises(ValueError, match="margin"):
            triplet_loss(embeddings, labels, margin)
        with pytest.raises(ValueError, match="margin"):
            temporal_discrimination(embeddings, embeddings, embeddings, margin)


@pytest.mark.parametrize(
    "shapes", [((4, 8), (3, 8), (4, 8)), ((4, 8), (4, 8), (4, 6)), ((8,), (8,), (8,)), ((0, 8),) * 3]
)
def test_temporal_term_fails_on_shapes(shapes: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(ValueError, match=r"(?s)do not fit.*second_anchor \("):
        temporal_discrimination(*(torch.ones(shape) for shape in shapes))
