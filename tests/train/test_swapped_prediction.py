"""Prediction of one view's assignment from the others, against plain loops."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from train.losses.prototypes import swapped_prediction

# V, assigned views, B, K
CASES = [
    (2, (0, 1), 3, 5),
    (2, (1,), 1, 1),
    (3, (2, 0), 4, 2),
    (4, (0, 1, 2, 3), 2, 7),
    (6, (0, 1), 5, 3),
]


def draw(views: int, batch: int, count: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Scores of each view, in the range of cosines."""
    generator = torch.Generator().manual_seed(seed)
    return list((2 * torch.rand(views, batch, count, generator=generator, dtype=torch.float64) - 1).to(dtype))


def draw_assignments(assigned: tuple[int, ...], batch: int, count: int, seed: int = 1) -> dict[int, Tensor]:
    made = draw(len(assigned), batch, count, seed)
    return {view: (8 * scores).softmax(dim=1) for view, scores in zip(assigned, made, strict=True)}


def loop(scores: list[Tensor], assignments: dict[int, Tensor], temperature: float) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for assigned, wanted in assignments.items():
        of_view = torch.zeros((), dtype=torch.float64)
        for predicting in range(len(scores)):
            if predicting == assigned:
                continue
            for row, target in zip(scores[predicting], wanted, strict=True):
                everything = sum(torch.exp(score / temperature) for score in row)
                of_clip = [
                    -q * torch.log(torch.exp(s / temperature) / everything) for q, s in zip(target, row, strict=True)
                ]
                of_view = of_view + sum(of_clip) / len(wanted)
        total = total + of_view / (len(scores) - 1)
    return total / len(assignments)


@pytest.mark.parametrize("temperature", [0.1, 1.0])
@pytest.mark.parametrize(("views", "assigned", "batch", "count"), CASES)
def test_loss_and_gradient_equal_a_loop(
    views: int, assigned: tuple[int, ...], batch: int, count: int, temperature: float
) -> None:
    assignments = draw_assignments(assigned, batch, count)
    ours, theirs = ([view.requires_grad_() for view in draw(views, batch, count)] for _ in range(2))
    loss, expected = swapped_prediction(ours, assignments, temperature), loop(theirs, assignments, temperature)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(loss, expected)
    for one, two in zip(ours, theirs, strict=True):
        wanted = torch.zeros_like(two) if two.grad is None else two.grad
        torch.testing.assert_close(torch.zeros_like(one) if one.grad is None else one.grad, wanted)


def test_gradient_is_that_of_finite_differences() -> None:
    assignments = draw_assignments((0, 2), 2, 3)
    views = [view.requires_grad_() for view in draw(3, 2, 3)]
    assert torch.autograd.gradcheck(lambda *scores: swapped_prediction(scores, assignments), views)


def test_float32_stays_near_float64() -> None:
    assignments, scores = draw_assignments((0, 1), 8, 20), draw(4, 8, 20)
    found = swapped_prediction([view.float() for view in scores], {i: q.float() for i, q in assignments.items()})
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), swapped_prediction(scores, assignments), rtol=0, atol=2e-5)


def test_assignments_are_constants_and_a_detached_view_still_predicts() -> None:
    scores, assignments = [view.requires_grad_() for view in draw(2, 3, 4)], draw_assignments((0, 1), 3, 4)
    for wanted in assignments.values():
        wanted.requires_grad_()
    loss = swapped_prediction([scores[0], scores[1].detach()], assignments)
    loss.backward()
    assert all(wanted.grad is None for wanted in assignments.values())
    assert scores[1].grad is None
    torch.testing.assert_close(loss.detach(), swapped_prediction(scores, assignments).detach())


def test_a_view_does_not_predict_its_own_assignment() -> None:
    scores, assignments = draw(3, 2, 4), draw_assignments((0,), 2, 4)
    changed = [scores[0] + draw(1, 2, 4, seed=9)[0], *scores[1:]]
    assert swapped_prediction(changed, assignments) == swapped_prediction(scores, assignments)


def test_prediction_of_equal_scores_costs_the_logarithm_of_their_number() -> None:
    loss = swapped_prediction([torch.zeros(2, 8), torch.zeros(2, 8)], draw_assignments((0, 1), 2, 8))
    assert loss.item() == pytest.approx(math.log(8))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_raised_also_under_autocast(dtype: torch.dtype) -> None:
    """Cosines of 1 and -1 at a tiny temperature: float16 has no exponential of their difference."""
    halved = [torch.tensor([[1.0, -1.0, 0.5]], dtype=dtype, requires_grad=True) for _ in range(2)]
    assignments = {0: torch.tensor([[0.1, 0.8, 0.1]], dtype=dtype)}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (halved[0] @ halved[0].T).dtype == torch.bfloat16  # autocast was on
        loss = swapped_prediction(halved, assignments, temperature=0.01)
    assert loss.dtype == torch.float32
    plain = [view.detach().double() for view in halved]
    assert loss.item() == pytest.approx(loop(plain, {0: assignments[0].double()}, 0.01).item(), rel=1e-5)
    loss.backward()
    assert halved[1].grad is not None and halved[1].grad.isfinite().all()


@pytest.mark.parametrize(
    ("views", "assigned"), [(1, (0,)), (2, ()), (2, (2,)), (2, (0, -1))], ids=["one view", "none", "third", "negative"]
)
def test_views_that_nothing_predicts_are_refused(views: int, assigned: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=rf"(?s)another one that predicts it.*{views} views"):
        swapped_prediction(draw(views, 3, 4), draw_assignments(assigned, 3, 4) if assigned else {})


def test_shapes_and_temperatures_that_cannot_be_meant_are_refused() -> None:
    scores = draw(2, 3, 4)
    with pytest.raises(ValueError, match=r"(?s)do not fit.*assignments \[\(3, 5\)\]"):
        swapped_prediction(scores, draw_assignments((0,), 3, 5))
    with pytest.raises(ValueError, match=r"(?s)do not fit.*scores \[\(3, 4\), \(2, 4\)\]"):
        swapped_prediction([scores[0], scores[1][:2]], draw_assignments((0,), 3, 4))
    with pytest.raises(ValueError, match="do not fit"):
        swapped_prediction(draw(2, 0, 4), {0: torch.zeros(0, 4)})
    for temperature in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="temperature"):
            swapped_prediction(scores, draw_assignments((0,), 3, 4), temperature)
