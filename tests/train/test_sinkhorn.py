"""Balanced assignments against plain loops, and what holds for all of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, distributed
from torch.nn import functional
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from train.clustering import sinkhorn
from train.clustering.sinkhorn import assign

SIZES = [(1, 1), (1, 5), (4, 1), (3, 7), (8, 4)]  # B, K
sizes = st.integers(1, 6), st.integers(1, 6), st.integers(0, 10**6)


def draw(batch: int, count: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Cosines of random unit rows."""
    generator = torch.Generator().manual_seed(seed)
    rows, prototypes = (torch.randn(n, 6, generator=generator, dtype=torch.float64) for n in (batch, count))
    return (functional.normalize(rows) @ functional.normalize(prototypes).T).to(dtype)


def loop(scores: Tensor, epsilon: float, iterations: int) -> list[list[float]]:
    """Sums of probabilities themselves: prototypes get 1 / K each, then clips 1 / B each."""
    q = [[math.exp(score / epsilon) for score in row] for row in scores.tolist()]
    batch, count = len(q), len(q[0])
    for _ in range(iterations):
        for k in range(count):
            total = sum(row[k] for row in q)
            for row in q:
                row[k] /= total * count
        for row in q:
            total = sum(row)
            row[:] = [value / (total * batch) for value in row]
    return [[value * batch for value in row] for row in q]


def divergence(log_q: Tensor, log_p: Tensor) -> float:
    """KL(Q || P), mean over clips."""
    return (log_q.exp() * (log_q - log_p)).sum(dim=1).mean().item()


@pytest.mark.parametrize("epsilon", [0.05, 0.5])
@pytest.mark.parametrize("iterations", [1, 3, 10])
@pytest.mark.parametrize(("batch", "count"), SIZES)
def test_assignments_equal_a_loop(batch: int, count: int, iterations: int, epsilon: float) -> None:
    scores = draw(batch, count)
    wanted = torch.tensor(loop(scores, epsilon, iterations), dtype=torch.float64)
    torch.testing.assert_close(assign(scores, epsilon, iterations).exp(), wanted)
    torch.testing.assert_close(assign(scores.float(), epsilon, iterations).exp(), wanted.float(), rtol=0, atol=2e-5)


@pytest.mark.parametrize("iterations", [1, 3])
@pytest.mark.parametrize("queued", [1, 2, 9])
def test_queued_clips_share_the_prototypes_and_are_not_returned(
    queued: int, iterations: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if they were clips of the batch; looked at two at a time."""
    monkeypatch.setattr(sinkhorn, "AT_ONCE", 2)
    scores = draw(queued + 4, 5)
    wanted = torch.tensor(loop(scores, 0.05, iterations)[queued:], dtype=torch.float64)
    found = assign(scores[queued:], iterations=iterations, queued=scores[:queued])
    torch.testing.assert_close(found.exp(), wanted)
    assert not torch.allclose(assign(scores[queued:], iterations=iterations).exp(), wanted, atol=1e-3)


def test_of_queued_clips_nothing_else_is_as_large_as_their_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest tensor that is made beside them."""
    monkeypatch.setattr(sinkhorn, "AT_ONCE", 3)
    largest = 0

    class Watched(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), settings: Any = None) -> Any:
            nonlocal largest
            made = function(*arguments, **(settings or {}))
            for one in pytree.tree_leaves(made):
                if isinstance(one, Tensor) and one.untyped_storage().data_ptr() != stored:
                    largest = max(largest, one.numel())
            return made

    scores, queued = draw(2, 5), draw(30, 5, seed=1)
    stored = queued.untyped_storage().data_ptr()
    with Watched():
        assign(scores, queued=queued)
    assert 3 * 5 <= largest < 30 * 5


@pytest.mark.parametrize(
    "given", [{"queued": draw(3, 5)}, {"queued": draw(3, 4)[0]}, {"queued": draw(3, 4), "log_prior": draw(2, 4)}]
)
def test_queued_clips_that_do_not_fit_are_refused(given: dict[str, Tensor]) -> None:
    with pytest.raises(ValueError, match=r"(?s)queued scores are \(N, K\).*scores \(2, 4\), queued \("):
        assign(draw(2, 4), **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(("batch", "count"), SIZES)
def test_assignments_with_a_prior_equal_a_loop(batch: int, count: int, sign: int) -> None:
    scores, log_prior = draw(batch, count), assign(draw(batch, count, seed=1), epsilon=0.2)
    together = scores + sign * 0.03 * torch.tensor([[math.log(p) for p in row] for row in log_prior.exp().tolist()])
    wanted = torch.tensor(loop(together, 0.05, 3), dtype=torch.float64)
    found = assign(scores, 0.02, 3, log_prior, prior_epsilon=0.03, prior_sign=sign)
    torch.testing.assert_close(found.exp(), wanted)


@settings(max_examples=30)
@given(*sizes, st.integers(1, 5), st.sampled_from([0.005, 0.05, 1.0]))
def test_rows_sum_to_one(batch: int, count: int, seed: int, iterations: int, epsilon: float) -> None:
    log_q = assign(draw(batch, count, seed), epsilon, iterations)
    torch.testing.assert_close(log_q.exp().sum(dim=1), torch.ones(batch, dtype=torch.float64))


@settings(max_examples=30)
@given(*sizes)
def test_the_order_of_clips_and_prototypes_means_nothing(batch: int, count: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    clips, prototypes = torch.randperm(batch, generator=generator), torch.randperm(count, generator=generator)
    scores, prior = draw(batch, count, seed), assign(draw(batch, count, seed + 1))
    found = assign(scores[clips][:, prototypes], 0.05, 3, prior[clips][:, prototypes], 0.01)
    torch.testing.assert_close(found, assign(scores, 0.05, 3, prior, 0.01)[clips][:, prototypes])


@settings(max_examples=30)
@given(*sizes, st.floats(-50, 50))
def test_a_constant_changes_nothing(batch: int, count: int, seed: int, constant: float) -> None:
    """Nor does one for each prototype."""
    scores, prior = draw(batch, count, seed), assign(draw(batch, count, seed + 1))
    wanted = assign(scores, 0.05, 3, prior, 0.01)
    torch.testing.assert_close(assign(scores + constant, 0.05, 3, prior + constant, 0.01), wanted, rtol=0, atol=1e-9)
    by_prototype = constant * torch.linspace(-1, 1, count, dtype=torch.float64)
    torch.testing.assert_close(assign(scores + by_prototype, 0.05, 3, prior, 0.01), wanted, rtol=0, atol=1e-9)


def test_many_iterations_use_every_prototype_equally() -> None:
    shares = assign(draw(12, 4), 0.2, 300).exp().sum(dim=0)
    torch.testing.assert_close(shares, torch.full((4,), 3.0, dtype=torch.float64))


def test_all_clips_alike_are_spread_evenly() -> None:
    """Without balancing all of them would go to the same prototype."""
    torch.testing.assert_close(assign(draw(1, 5).expand(8, 5)), torch.full((8, 5), -math.log(5), dtype=torch.float64))


@pytest.mark.parametrize("size", [1.0, 1e3, 1e20])
def test_huge_scores_do_not_overflow(size: float) -> None:
    scores = size * draw(6, 4, dtype=torch.float32)
    log_q = assign(scores, epsilon=0.01)
    assert log_q.isfinite().all()
    torch.testing.assert_close(log_q.exp().sum(dim=1), torch.ones(6))
    chained = assign(scores, 0.02, 3, log_q, 0.03)  # where exp(log_q) is 0, its logarithm would be infinite
    assert chained.isfinite().all()


@pytest.mark.parametrize("seed", range(5))
def test_a_prior_pulls_and_its_opposite_pushes_away(seed: int) -> None:
    """At the released weights, with two streams that partly agree."""
    one, two = draw(40, 20, seed), draw(40, 20, seed + 100)
    prior = assign(0.5 * one + 0.5 * two, epsilon=0.05)
    towards, away = (assign(one, 0.02, 3, prior, prior_epsilon=0.03, prior_sign=sign) for sign in (1, -1))
    assert divergence(towards, prior) < divergence(assign(one, 0.02), prior) < divergence(away, prior)


def test_a_prior_without_weight_is_none() -> None:
    scores, prior = draw(5, 4), assign(draw(5, 4, seed=1))
    assert torch.equal(assign(scores, log_prior=prior), assign(scores))


def test_assignments_carry_no_gradient() -> None:
    scores, prior = draw(5, 4).requires_grad_(), draw(5, 4, seed=1).requires_grad_()
    before = scores.detach().clone()
    assert not assign(scores, log_prior=prior, prior_epsilon=0.1).requires_grad
    assert torch.equal(scores, before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_raised_also_under_autocast(dtype: torch.dtype) -> None:
    scores, prior = draw(6, 5, dtype=dtype), assign(draw(6, 5, seed=1, dtype=torch.float32))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (scores @ scores.T).dtype == torch.bfloat16  # autocast was on
        found = assign(scores, log_prior=prior, prior_epsilon=0.01)
    assert found.dtype == torch.float32
    assert torch.equal(found, assign(scores.float(), log_prior=prior, prior_epsilon=0.01))


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (4,), (2, 2, 2)])
def test_nothing_to_assign_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"(?s)nothing to assign.*scores \("):
        assign(torch.zeros(shape))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_are_refused(value: float) -> None:
    scores, broken = draw(3, 4), draw(3, 4)
    broken[1, 2] = value
    with pytest.raises(ValueError, match="(?s)not finite.*1 of 12 values"):
        assign(broken)
    with pytest.raises(ValueError, match="(?s)not finite.*1 of 12 values.*not the logarithm of probabilities"):
        assign(scores, log_prior=broken, prior_epsilon=0.01)
    with pytest.raises(ValueError, match="(?s)not finite.*1 of 12 values"):
        assign(scores, queued=broken)
    with pytest.raises(ValueError, match=r"(?s)too large.*divided by 0\.01"):
        assign(torch.full((2, 2), 3e38), epsilon=0.01)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"epsilon": 0.0}, "^epsilon is 0.0.*more than 0"),
        ({"epsilon": math.nan}, "epsilon is nan"),
        ({"iterations": 0}, "iterations is 0.*at least 1"),
        ({"iterations": 2.5}, "iterations is 2.5.*whole number"),
        ({"prior_epsilon": -0.1}, "prior_epsilon is -0.1.*at least 0"),
        ({"prior_sign": 0}, "prior_sign is 0.*1 .towards the prior. or -1"),
        ({"prior_epsilon": 0.1}, "prior_epsilon is 0.1.*no log_prior"),
    ],
)
def test_numbers_that_cannot_be_meant_are_refused(given: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        assign(draw(3, 4), **given)  # type: ignore[arg-type]


def test_a_prior_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"(?s)does not fit.*\(3, 4\), log_prior \(1, 4\)"):
        assign(draw(3, 4), log_prior=draw(1, 4), prior_epsilon=0.1)


@pytest.fixture
def alone() -> Iterator[distributed.ProcessGroup]:
    """A group of this process."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield distributed.group.WORLD
    distributed.destroy_process_group()


def test_a_group_of_one_is_this_process(alone: distributed.ProcessGroup) -> None:
    scores, prior = draw(5, 4), assign(draw(5, 4, seed=1))
    torch.testing.assert_close(assign(scores, 0.02, 3, prior, 0.03, group=alone), assign(scores, 0.02, 3, prior, 0.03))
    assert assign(scores[:0], group=alone).shape == (0, 4)


def test_a_rank_outside_the_group_is_refused(alone: distributed.ProcessGroup) -> None:
    with pytest.raises(ValueError, match="not part of the group"):
        assign(draw(3, 4), group=distributed.GroupMember.NON_GROUP_MEMBER)


@pytest.mark.gpu
def test_on_a_gpu_nothing_waits_and_what_is_not_finite_is_nan_throughout() -> None:
    scores = draw(6, 5, dtype=torch.float32).cuda()
    prior, broken = assign(scores), scores.clone()
    broken[2, 3] = -torch.inf
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = assign(scores, log_prior=prior, prior_epsilon=0.01)
        nothing = assign(scores, iterations=1, log_prior=broken, prior_epsilon=0.01)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(found.cpu(), assign(scores.cpu(), log_prior=prior.cpu(), prior_epsilon=0.01))
    assert nothing.isnan().all()
