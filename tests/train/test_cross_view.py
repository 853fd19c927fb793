"""Terms between views against plain loops over blocks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from train.losses.cross_view import cooperation, pool_blocks, synchronisation

TERMS = [cooperation, synchronisation]
# Rows (and columns) that each maximum of a map looks at, then those that the mean does.
WINDOWS: dict[int, list[list[tuple[int, ...]]]] = {
    1: [],
    2: [],
    3: [[(0,), (1, 2)]],
    4: [[(0, 1), (2, 3)]],
    5: [[(0,), (1, 2), (3, 4)], [(0,), (1, 2)]],
    7: [[(0,), (1, 2), (3, 4), (5, 6)], [(0, 1), (2, 3)]],
}

Term = Callable[[Tensor, Tensor], Tensor]


def blocks(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def loop_pool(plane: list[list[float]]) -> float:
    for windows in WINDOWS[len(plane)]:
        plane = [[max(plane[i][j] for i in rows for j in columns) for columns in windows] for rows in windows]
    return sum(map(sum, plane)) / len(plane) ** 2


def cosine(one: list[float], other: list[float]) -> float:
    lengths = [math.sqrt(sum(value * value for value in row)) + 1e-5 for row in (one, other)]
    return sum(a * b for a, b in zip(one, other, strict=True)) / lengths[0] / lengths[1]


def loop_cooperation(first: Tensor, second: Tensor) -> float:
    one, other = first.flatten(0, 1).tolist(), second.flatten(0, 1).tolist()
    pairs = list(itertools.product(range(len(one)), repeat=2))
    return sum(abs(cosine(one[i], one[j]) - cosine(other[i], other[j])) for i, j in pairs) / len(pairs)


def loop_synchronisation(first: Tensor, second: Tensor) -> float:
    one, other = first.flatten(0, 1).tolist(), second.flatten(0, 1).tolist()
    positives, negatives = [], []
    for i, j in itertools.product(range(len(one)), repeat=2):
        distance = 1 - cosine(one[i], other[j])
        (positives if i == j else negatives).append(distance if i == j else max(0.0, 1 - distance))
    return sum(positives) / len(positives) / 2 + sum(negatives) / len(negatives) / 2


LOOPS: dict[Term, Callable[[Tensor, Tensor], float]] = {
    cooperation: loop_cooperation,
    synchronisation: loop_synchronisation,
}


@pytest.mark.parametrize("size", WINDOWS)
def test_pooling_equals_a_loop(size: int) -> None:
    features = blocks(2, 3, 4, size, size, seed=size) - 3  # below the zeros of a padding that counted
    pooled = pool_blocks(features)
    assert pooled.shape == (2, 3, 4)
    for b, n, d in itertools.product(range(2), range(3), range(4)):
        assert pooled[b, n, d].item() == pytest.approx(loop_pool(features[b, n, d].tolist()), rel=1e-12)
    assert torch.autograd.gradcheck(pool_blocks, (features[:1, :1].clone().requires_grad_(),))


@pytest.mark.parametrize("shape", [(2, 3, 4, 4, 2), (2, 3, 4), (2, 3, 4, 1, 4, 4)])
def test_pooling_fails_on_other_maps_by_name(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=rf"feature maps are \({', '.join(map(str, shape))}\), and not"):
        pool_blocks(torch.zeros(shape))


@pytest.mark.parametrize("term", TERMS)
@settings(max_examples=25)
@given(batch=st.integers(1, 4), count=st.integers(1, 4), dim=st.integers(1, 6), seed=st.integers(0, 10**6))
def test_terms_equal_loops(term: Term, batch: int, count: int, dim: int, seed: int) -> None:
    if batch * count == 1:
        count = 2
    first, second = blocks(batch, count, dim, seed=seed), blocks(batch, count, dim, seed=seed + 1)
    assert term(first, second).item() == pytest.approx(LOOPS[term](first, second), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("term", TERMS)
@pytest.mark.parametrize("shape", [(2, 3, 4), (1, 2, 3), (3, 1, 2)])
def test_gradient_reaches_both_views_and_is_that_of_finite_differences(term: Term, shape: tuple[int, ...]) -> None:
    views = tuple(blocks(*shape, seed=seed).requires_grad_() for seed in (1, 2))
    assert torch.autograd.gradcheck(term, views)
    term(*views).backward()
    assert all(view.grad is not None and view.grad.any() for view in views)


@pytest.mark.parametrize("term", TERMS)
def test_views_may_be_exchanged_and_their_lengths_do_not_count(term: Term) -> None:
    first, second = blocks(3, 2, 5, seed=1), blocks(3, 2, 5, seed=2)
    torch.testing.assert_close(term(first, second), term(second, first))
    torch.testing.assert_close(term(1e3 * first, second * 1e4), term(first, second), rtol=1e-4, atol=1e-5)


def test_values_at_the_ends_of_their_ranges() -> None:
    apart = 1e3 * torch.eye(6, dtype=torch.float64).view(3, 2, 6)
    same = torch.ones(3, 2, 6, dtype=torch.float64)
    for view in (apart, same, blocks(3, 2, 6, seed=1)):
        assert cooperation(view, view).item() == pytest.approx(0, abs=1e-12)
    assert cooperation(apart, same).item() == pytest.approx(30 / 36, abs=1e-4)  # all pairs but the diagonal's 6
    assert synchronisation(apart, apart).item() == pytest.approx(0, abs=1e-4)
    assert synchronisation(apart, -apart).item() == pytest.approx(1, abs=1e-4)
    assert synchronisation(same, same).item() == pytest.approx(0.5, abs=1e-4)
    assert synchronisation(same, -same).item() == pytest.approx(1, abs=1e-4)  # negatives repel no further than to 0


@pytest.mark.parametrize("term", TERMS)
def test_other_blocks_of_the_same_clip_count_like_those_of_other_clips(term: Term) -> None:
    first, second = blocks(4, 3, 5, seed=1), blocks(4, 3, 5, seed=2)
    torch.testing.assert_close(term(first, second), term(first.view(1, 12, 5), second.view(1, 12, 5)))


@pytest.mark.parametrize("term", TERMS)
def test_rows_of_zeros_resemble_nothing_and_keep_gradients_finite(term: Term) -> None:
    views = [blocks(2, 2, 3, seed=seed) for seed in (1, 2)]
    views[0][0, 0] = 0
    views[1][1] = 0
    views = [view.requires_grad_() for view in views]
    loss = term(*views)
    assert loss.item() == pytest.approx(LOOPS[term](*views), rel=1e-9)
    loss.backward()
    assert all(view.grad is not None and torch.isfinite(view.grad).all() for view in views)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_raised_also_under_autocast(dtype: torch.dtype) -> None:
    views = [blocks(2, 3, 8, seed=seed, dtype=dtype) * 100 for seed in (1, 2)]  # squares above 65504, float16's largest
    maps = blocks(2, 3, 4, 7, 7, seed=1, dtype=dtype)
    expected = [term(*(view.float() for view in views)) for term in TERMS] + [pool_blocks(maps.float())]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = [term(*views) for term in TERMS] + [pool_blocks(maps)]
    for ours, wanted in zip(found, expected, strict=True):
        assert ours.dtype == torch.float32 and torch.isfinite(ours).all() and torch.equal(ours, wanted)


@pytest.mark.parametrize("term", TERMS)
def test_terms_fail_on_shapes_and_on_a_single_block(term: Term) -> None:
    for other in ((2, 4, 4), (3, 3, 4), (2, 3, 5), (6, 4)):
        with pytest.raises(ValueError, match=r"views do not fit together: first \(2, 3, 4\), second \("):
            term(torch.zeros(2, 3, 4), torch.zeros(other))
    with pytest.raises(ValueError, match="views do not fit together"):
        term(torch.zeros(6, 4), torch.zeros(6, 4))
    for shape in ((1, 1, 4), (0, 3, 4)):
        with pytest.raises(ValueError, match="single block"):
            term(torch.zeros(shape), torch.zeros(shape))
