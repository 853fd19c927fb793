"""Noise-contrastive losses against plain loops."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from train.losses.nce import (
    contrast_logits,
    cross_logits,
    in_batch_logits,
    in_batch_nce,
    info_nce,
    own_key_accuracy,
    own_key_nce,
)

SIZES = [(1, 1, 2), (1, 7, 3), (2, 1, 4), (5, 12, 8), (8, 3, 16)]  # B, K, D


def unit_rows(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    rows = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return functional.normalize(rows, dim=1).to(dtype)


def loop_info_nce(query: Tensor, key: Tensor, queue: Tensor, temperature: float) -> Tensor:
    total = torch.zeros((), dtype=query.dtype)
    for i in range(len(query)):
        own = torch.exp(torch.dot(query[i], key[i]) / temperature)
        others = [torch.exp(torch.dot(query[i], queue[j]) / temperature) for j in range(len(queue))]
        total = total - torch.log(own / (own + sum(others)))
    return total / len(query)


def loop_in_batch_nce(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    clips = [*first, *second]
    total = torch.zeros((), dtype=first.dtype)
    for i, clip in enumerate(clips):
        partner = (i + len(first)) % len(clips)
        scores = {j: torch.exp(torch.dot(clip, clips[j]) / temperature) for j in range(len(clips)) if j != i}
        total = total - torch.log(scores[partner] / sum(scores.values()))
    return total / len(clips)


@pytest.mark.parametrize("temperature", [0.07, 1.0])
@pytest.mark.parametrize(("batch", "length", "dim"), SIZES)
def test_info_nce_equals_loop(batch: int, length: int, dim: int, temperature: float) -> None:
    queries = [unit_rows(batch, dim, seed=1).requires_grad_() for _ in range(2)]
    key, queue = unit_rows(batch, dim, seed=2), unit_rows(length, dim, seed=3)
    loss = info_nce(queries[0], key, queue, temperature)
    expected = loop_info_nce(queries[1], key, queue, temperature)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(queries[0].grad, queries[1].grad)


@pytest.mark.parametrize(("batch", "length", "dim"), SIZES)
def test_float32_stays_near_float64(batch: int, length: int, dim: int) -> None:
    rows = [unit_rows(batch, dim, seed=1), unit_rows(batch, dim, seed=2), unit_rows(length, dim, seed=3)]
    loss = info_nce(*(part.float() for part in rows))
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), info_nce(*rows), rtol=0, atol=2e-5)


@pytest.mark.parametrize("temperature", [0.1, 0.5])
@pytest.mark.parametrize(("batch", "dim"), [(2, 2), (3, 5), (8, 16)])
def test_in_batch_nce_equals_loop(batch: int, dim: int, temperature: float) -> None:
    first = [unit_rows(batch, dim, seed=1).requires_grad_() for _ in range(2)]
    second = [unit_rows(batch, dim, seed=2).requires_grad_() for _ in range(2)]
    loss = in_batch_nce(first[0], second[0], temperature)
    expected = loop_in_batch_nce(first[1], second[1], temperature)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(first[0].grad, first[1].grad)
    torch.testing.assert_close(second[0].grad, second[1].grad)


def test_in_batch_nce_is_symmetric_in_its_views() -> None:
    first, second = unit_rows(4, 6, seed=1), unit_rows(4, 6, seed=2)
    torch.testing.assert_close(in_batch_nce(first, second, 0.1), in_batch_nce(second, first, 0.1))


@pytest.mark.parametrize(("batch", "dim"), [(2, 2), (3, 5), (8, 16)])
def test_logits_across_streams_equal_a_loop(batch: int, dim: int) -> None:
    first, second = unit_rows(batch, dim, seed=1), unit_rows(batch, dim, seed=2)
    logits = cross_logits(first, second, 0.1)
    for i, row in enumerate(logits):
        others = [j for j in range(batch) if j != i]
        assert row[0] == pytest.approx(float(first[i] @ second[i]) / 0.1, rel=1e-4, abs=1e-5)
        assert sorted(row[1:].tolist()) == pytest.approx(
            sorted(float(first[i] @ second[j]) / 0.1 for j in others), rel=1e-4, abs=1e-5
        )


def test_logits_have_the_own_key_first() -> None:
    query, key, queue = unit_rows(3, 4, seed=1), unit_rows(3, 4, seed=2), unit_rows(5, 4, seed=3)
    logits = contrast_logits(query, key, queue, temperature=0.5)
    assert logits.shape == (3, 6)
    torch.testing.assert_close(logits[1, 0], torch.dot(query[1], key[1]) / 0.5)
    torch.testing.assert_close(logits[1, 4], torch.dot(query[1], queue[3]) / 0.5)
    torch.testing.assert_close(in_batch_logits(query, key, 0.5)[4, 0], torch.dot(query[1], key[1]) / 0.5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_raised(dtype: torch.dtype) -> None:
    query, key, queue = unit_rows(4, 8, seed=1), unit_rows(4, 8, seed=2), unit_rows(6, 8, seed=3)
    query, key, queue = (rows.to(dtype) for rows in (query, key, queue))
    assert info_nce(query, key, queue).dtype == torch.float32
    torch.testing.assert_close(info_nce(query, key, queue), info_nce(query.float(), key.float(), queue.float()))


def test_autocast_changes_nothing() -> None:
    query, key, queue = (unit_rows(n, 32, dtype=torch.float32, seed=n) for n in (8, 8, 64))
    plain = [info_nce(query, key, queue), in_batch_nce(query, key, 0.1), contrast_logits(query, key, queue)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = [info_nce(query, key, queue), in_batch_nce(query, key, 0.1), contrast_logits(query, key, queue)]
        assert (query @ queue.T).dtype == torch.bfloat16  # autocast was on
    for expected, got in zip(plain, cast, strict=True):
        assert got.dtype == torch.float32
        assert torch.equal(got, expected)


def test_no_overflow_at_a_tiny_temperature() -> None:
    query, queue = unit_rows(2, 4, dtype=torch.float32, seed=1), unit_rows(3, 4, dtype=torch.float32, seed=2)
    query.requires_grad_()
    loss = info_nce(query, -query.detach(), queue, temperature=1e-4)
    loss.backward()
    assert 1e3 < loss.item() < math.inf
    assert torch.isfinite(query.grad).all()


def test_accuracy_counts_ranks_ties_and_nan() -> None:
    logits = torch.tensor([[3.0, 1.0, 2.0], [1.0, 3.0, 0.0], [1.0, 1.0, 0.0], [0.0, 1.0, 2.0], [math.nan] * 3])
    assert own_key_accuracy(logits, 1) == pytest.approx(0.2)
    assert own_key_accuracy(logits, 2) == pytest.approx(0.6)
    assert own_key_accuracy(logits, 3) == 1.0  # of three columns, any rank is among three


def test_own_key_nce_of_equal_logits() -> None:
    assert own_key_nce(torch.zeros(2, 8)).item() == pytest.approx(math.log(8))


@pytest.mark.parametrize(
    ("query", "key", "queue"),
    [((4, 8), (3, 8), (6, 8)), ((4, 8), (4, 8), (8, 6)), ((4, 8), (4, 8), (6, 8, 1)), ((8,), (8,), (6, 8))],
)
def test_contrast_logits_fails_on_shapes(query: tuple[int], key: tuple[int], queue: tuple[int]) -> None:
    with pytest.raises(ValueError, match=r"queue \("):
        contrast_logits(torch.zeros(query), torch.zeros(key), torch.zeros(queue))


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_losses_fail_on_temperature(temperature: float) -> None:
    rows = unit_rows(4, 8)
    with pytest.raises(ValueError, match="temperature"):
        info_nce(rows, rows, rows, temperature)
    with pytest.raises(ValueError, match="temperature"):
        in_batch_nce(rows, rows, temperature)


def test_in_batch_nce_fails_on_a_single_video_or_shapes() -> None:
    with pytest.raises(ValueError, match="other videos"):
        in_batch_nce(unit_rows(1, 8), unit_rows(1, 8), 0.1)
    with pytest.raises(ValueError, match="do not fit"):
        in_batch_nce(unit_rows(2, 8), unit_rows(3, 8), 0.1)
