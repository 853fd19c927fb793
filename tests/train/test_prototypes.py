"""Prototypes: unit rows, their scores, and how far they lie apart."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from train.clustering.prototypes import FixedPrototypes, Prototypes, separate, separation


def unit_rows(count: int, dim: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(count, dim, generator=generator, dtype=torch.float64)).to(dtype)


def largest_cosines(rows: Tensor) -> list[float]:
    """Of each row with another one."""
    cosines = (rows.double() @ rows.double().T).tolist()
    return [max(value for j, value in enumerate(row) if j != i) for i, row in enumerate(cosines)]


@pytest.mark.parametrize(("count", "dim"), [(2, 1), (2, 3), (7, 4), (12, 16)])
def test_separation_equals_a_loop(count: int, dim: int) -> None:
    rows = unit_rows(count, dim)
    assert separation(rows).item() == pytest.approx(sum(largest_cosines(rows)) / count + 1)
    assert separation(2 * rows).item() == pytest.approx(4 * sum(largest_cosines(rows)) / count + 1)  # used as given


def test_gradient_of_separation_is_that_of_finite_differences() -> None:
    assert torch.autograd.gradcheck(separation, (unit_rows(6, 4).requires_grad_(),))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_separation_is_computed_in_full_precision(dtype: torch.dtype) -> None:
    rows = unit_rows(6, 8, dtype=dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = separation(rows)
    assert found.dtype == torch.float32
    assert torch.equal(found, separation(rows.float()))


@pytest.mark.parametrize(("count", "dim"), [(2, 2), (5, 8), (9, 8), (16, 16)])
def test_few_prototypes_become_a_simplex(count: int, dim: int) -> None:
    """The best there is: all cosines are -1 / (count - 1)."""
    assert largest_cosines(separate(count, dim)) == pytest.approx([-1 / (count - 1)] * count, abs=1e-3)


def test_prototypes_on_a_circle_are_a_regular_polygon() -> None:
    """`separation` is smaller, .75 instead of .87, when nine of them are the same one."""
    assert largest_cosines(separate(12, 2)) == pytest.approx([math.cos(2 * math.pi / 12)] * 12, abs=1e-3)


@pytest.mark.parametrize(
    ("count", "dim", "most"),
    [(300, 128, 0.04), pytest.param(1000, 128, 0.09, marks=pytest.mark.slow)],  # at random: .25, .28
)
def test_many_prototypes_lie_apart(count: int, dim: int, most: float) -> None:
    rows = separate(count, dim)
    assert rows.shape == (count, dim) and rows.dtype == torch.float32
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(count))
    assert separation(rows).item() - 1 <= most and max(largest_cosines(rows)) <= most + 0.005


def test_a_seed_gives_the_same_prototypes_and_another_seed_others() -> None:
    state = torch.get_rng_state()
    rows = separate(20, 8, seed=3)
    assert torch.equal(rows, separate(20, 8, seed=3))
    assert not torch.allclose(rows, separate(20, 8, seed=4), atol=0.1)
    assert torch.equal(state, torch.get_rng_state())


def test_weights_become_unit_before_scores_are_made() -> None:
    prototypes, rows = Prototypes(5, 4), unit_rows(3, 4, dtype=torch.float32)
    torch.testing.assert_close(prototypes.weight.norm(dim=1), torch.ones(5))
    with torch.no_grad():
        prototypes.weight.mul_(3.0)
    scores = prototypes(rows)
    torch.testing.assert_close(prototypes.weight.norm(dim=1), torch.ones(5))
    torch.testing.assert_close(scores, rows @ prototypes.weight.T)
    assert list(prototypes.state_dict()) == ["weight"]


def test_gradient_does_not_pass_through_the_normalisation() -> None:
    """It is that of a product with weights that are unit anyway, and has a part along them."""
    prototypes, rows = Prototypes(5, 4), unit_rows(3, 4, dtype=torch.float32).requires_grad_()
    with torch.no_grad():
        prototypes.weight.mul_(3.0)
    prototypes(rows).sum().backward()
    assert prototypes.weight.grad is not None and rows.grad is not None
    torch.testing.assert_close(prototypes.weight.grad, rows.detach().sum(dim=0).expand(5, 4))
    torch.testing.assert_close(rows.grad, prototypes.weight.detach().sum(dim=0).expand(3, 4))


def test_several_passes_share_a_backward_pass() -> None:
    prototypes, rows = Prototypes(5, 4), unit_rows(6, 4, dtype=torch.float32).requires_grad_()
    torch.cat([prototypes(part) for part in rows.chunk(2)]).pow(2).sum().backward()
    apart, rows.grad = rows.grad, None
    prototypes(rows).pow(2).sum().backward()
    torch.testing.assert_close(rows.grad, apart)


def test_frozen_prototypes_still_score() -> None:
    prototypes, rows = Prototypes(5, 4).requires_grad_(False), unit_rows(3, 4, dtype=torch.float32).requires_grad_()
    prototypes(rows).sum().backward()
    assert prototypes.weight.grad is None and rows.grad is not None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_scores_are_made_in_full_precision(dtype: torch.dtype) -> None:
    prototypes, rows = Prototypes(5, 32), unit_rows(3, 32, dtype=dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores = prototypes(rows)
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, prototypes(rows.float()), rtol=0, atol=1e-6)  # which makes them unit once more


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"(?s)do not fit.*rows \(3, 5\), prototypes \(6, 4\)"):
        Prototypes(6, 4)(torch.zeros(3, 5))
    with pytest.raises(ValueError, match=r"(?s)two prototypes.*\(1, 4\)"):
        separation(torch.zeros(1, 4))
    for given, name in (((0, 4), "count"), ((6, 0), "dim"), ((6.0, 4), "count")):
        with pytest.raises(ValueError, match=f"{name} is"):
            Prototypes(*given)  # type: ignore[arg-type]
    for place, name in enumerate(("count", "dim", "seed")):
        numbers = [6, 4, 0]
        numbers[place] = -1
        with pytest.raises(ValueError, match=name):
            separate(*numbers)


def test_fixed_prototypes_cost_nothing_until_they_are_placed() -> None:
    fixed, rows = FixedPrototypes(9, 8), unit_rows(3, 8, dtype=torch.float32)
    assert not fixed.placed and not list(fixed.parameters()) and not fixed.weight.any()
    with pytest.raises(ValueError, match="no place yet: call `place`, or load a state dict"):
        fixed(rows)
    fixed.place(seed=3)
    assert fixed.placed and torch.equal(fixed.weight, separate(9, 8, seed=3))
    torch.testing.assert_close(fixed(rows), rows @ fixed.weight.T)


def test_fixed_prototypes_come_from_a_state_dict_and_stay() -> None:
    fixed, rows = FixedPrototypes(5, 4), unit_rows(3, 4, dtype=torch.float32).requires_grad_()
    fixed.load_state_dict({"weight": unit_rows(5, 4, dtype=torch.float32)})  # as published files name them
    before = fixed.weight.clone()
    assert fixed.placed
    fixed(rows).sum().backward()
    assert rows.grad is not None and torch.equal(fixed.weight, before) and not fixed.weight.requires_grad


@pytest.mark.parametrize("sizes", [(1, 4), (4, 1)])
def test_fixed_prototypes_that_cannot_lie_apart_fail(sizes: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="is 1, and must be a whole number, at least 2"):
        FixedPrototypes(*sizes)
