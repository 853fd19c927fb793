"""What counts as a positive, and the loss towards several of them, against plain loops."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from train.losses.nce import (
    Reduction,
    cotraining_positives,
    label_positives,
    multi_positive_nce,
    own_key_nce,
    positive_accuracy,
)

REDUCTIONS: tuple[Reduction, ...] = ("log_of_sum", "mean_of_logs")


def rows(*shape: int, seed: int = 0) -> Tensor:
    return functional.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))


def draw(batch: int, length: int, seed: int) -> tuple[Tensor, Tensor]:
    """Logits of realistic size and random positives, the own key always among them."""
    generator = torch.Generator().manual_seed(seed)
    logits = 8 * torch.randn(batch, 1 + length, generator=generator, dtype=torch.float64)
    positives = torch.rand(batch, 1 + length, generator=generator) < 0.3
    positives[:, 0] = True
    return logits, positives


def loop(logits: Tensor, positives: Tensor, reduction: str, drop_self: bool) -> float:
    total = 0.0
    for scores, wanted in zip(logits.tolist(), positives.tolist(), strict=True):
        chosen = [column for column, positive in enumerate(wanted) if positive]
        if drop_self and len(chosen) > 1:
            chosen = [column for column in chosen if column != 0]
        shares = [math.exp(score) / sum(math.exp(other) for other in scores) for score in scores]
        if reduction == "log_of_sum":
            total -= math.log(sum(shares[column] for column in chosen))
        else:
            total -= sum(math.log(shares[column]) for column in chosen) / len(chosen)
    return total / len(logits)


@settings(max_examples=40)
@given(st.integers(1, 5), st.integers(0, 9), st.integers(0, 10**6), st.sampled_from(REDUCTIONS), st.booleans())
def test_loss_equals_a_loop(batch: int, length: int, seed: int, reduction: Reduction, drop_self: bool) -> None:
    logits, positives = draw(batch, length, seed)
    loss = multi_positive_nce(logits, positives, reduction, drop_self)
    assert loss.item() == pytest.approx(loop(logits, positives, reduction, drop_self), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("drop_self", [False, True])
def test_gradient_is_that_of_finite_differences(reduction: Reduction, drop_self: bool) -> None:
    logits, positives = draw(3, 6, seed=1)
    assert torch.autograd.gradcheck(
        lambda scores: multi_positive_nce(scores, positives, reduction, drop_self), (logits.requires_grad_(),)
    )


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_the_own_key_alone_gives_infonce(reduction: Reduction) -> None:
    logits, _ = draw(4, 7, seed=2)
    alone = torch.zeros(4, 8, dtype=torch.bool)
    alone[:, 0] = True
    for drop_self in (False, True):
        torch.testing.assert_close(multi_positive_nce(logits, alone, reduction, drop_self), own_key_nce(logits))


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_loss_is_finite_in_half_precision_at_the_papers_temperature(reduction: Reduction, dtype: torch.dtype) -> None:
    """Cosines of 1 and -1 over .07: float16 would hold their exponentials, but not the sum's digits."""
    logits = torch.tensor([[-1.0, 1.0, -1.0, 1.0]] * 2) / 0.07
    positives = torch.tensor([[True, False, True, False]] * 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        halved = logits.to(dtype).requires_grad_()
        loss = multi_positive_nce(halved, positives, reduction, drop_self=True)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(loop(halved.detach().double(), positives, reduction, True), rel=1e-4)
    loss.backward()
    assert halved.grad is not None and torch.isfinite(halved.grad).all()


def test_label_positives_are_equal_labels_and_never_empty_slots() -> None:
    found = label_positives(torch.tensor([3, -1, 5]), torch.tensor([3, -1, 4, 3]))
    wanted = [[True, True, False, False, True], [True, *[False] * 4], [True, *[False] * 4]]
    assert found.tolist() == wanted


def loop_cotraining(
    other_key: Tensor, other_queue: Tensor, sources: Tensor, queue_sources: Tensor, top_k: int, mine: bool
) -> list[list[bool]]:
    made = []
    for key, source in zip(other_key, sources.tolist(), strict=True):
        positive = {j for j, stored in enumerate(queue_sources.tolist()) if stored == source != -1}
        foreign = [j for j, stored in enumerate(queue_sources.tolist()) if stored not in (source, -1)]
        ranked = sorted(foreign, key=lambda j: -float(key @ other_queue[j]))
        if mine:
            positive |= set(ranked[:top_k])
        made.append([True, *(j in positive for j in range(len(other_queue)))])
    return made


@settings(max_examples=60)
@given(st.integers(1, 4), st.integers(1, 12), st.integers(0, 6), st.booleans(), st.integers(0, 10**6))
def test_cotraining_positives_equal_a_loop(batch: int, length: int, top_k: int, mine: bool, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    sources = torch.randint(0, 4, (batch,), generator=generator)
    queue_sources = torch.randint(-1, 4, (length,), generator=generator)
    keys = rows(batch, 5, seed=seed), rows(length, 5, seed=seed + 1)
    found = cotraining_positives(*keys, sources, queue_sources, top_k, mine)
    assert found.dtype == torch.bool
    assert found.tolist() == loop_cotraining(*keys, sources, queue_sources, top_k, mine)


def test_an_empty_slot_is_never_mined() -> None:
    """However similar its random features are."""
    key = rows(1, 4)
    queue = torch.cat([key, -key, rows(1, 4, seed=3)])
    found = cotraining_positives(key, queue, torch.tensor([0]), torch.tensor([-1, 1, -1]), top_k=2)
    assert found.tolist() == [[True, False, True, False]]


def test_accuracy_counts_any_positive_and_no_tie() -> None:
    logits = torch.tensor([[1.0, 5, 3, 2], [1, 5, 5, 2], [9, 1, 1, 1], [float("nan"), 1, 2, 3]])
    positives = torch.tensor([[True, True, False, False], [True, True, False, False], [True, False, False, False]])
    positives = torch.cat([positives, positives[2:]])
    assert positive_accuracy(logits, positives, 1).item() == 0.5
    assert positive_accuracy(logits, positives, 2).item() == 0.75


def test_positives_that_cannot_be_meant_are_refused() -> None:
    logits, positives = draw(2, 3, seed=0)
    with pytest.raises(ValueError, match=r"positives \(2, 3\)"):
        multi_positive_nce(logits, positives[:, :3])
    with pytest.raises(ValueError, match="float32"):
        multi_positive_nce(logits, positives.float())
    with pytest.raises(ValueError, match="'log_of_sums'.*'log_of_sum'"):
        multi_positive_nce(logits, positives, "log_of_sums")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="do not fit together"):
        cotraining_positives(
            rows(2, 4), rows(3, 4), torch.zeros(2, dtype=torch.int64), torch.zeros(2, dtype=torch.int64)
        )
    with pytest.raises(ValueError, match="top_k"):
        cotraining_positives(rows(1, 4), rows(1, 4), torch.tensor([0]), torch.tensor([0]), top_k=-1)
