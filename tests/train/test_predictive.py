"""Dense predictive NCE against a plain loop over places."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from train.losses.nce import positive_accuracy
from train.losses.predictive import dense_logits, dense_predictive_nce, own_target_nce

SIZES = [(1, 1, 3, 2), (2, 1, 4, 1), (2, 3, 5, 1), (1, 2, 3, 2), (3, 2, 4, 2)]  # B, P, D, S
TEMPERATURES = [None, 0.07, 1.0]
COCON = 0.07


def maps(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """(B, P, D, S, S), of unit length over D at every place, as CoCon's network gives them."""
    values = torch.randn(*shape, shape[-1], generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return functional.normalize(values, dim=2).to(dtype)


def loop(predicted: Tensor, target: Tensor, temperature: float | None) -> Tensor:
    samples, blocks, _, rows, columns = predicted.shape
    places = list(itertools.product(range(samples), range(blocks), range(rows), range(columns)))
    divisor = 1.0 if temperature is None else temperature
    total = torch.zeros((), dtype=predicted.dtype)
    for b, p, i, j in places:
        prediction = predicted[b, p, :, i, j] / divisor
        scores = [torch.exp(torch.dot(prediction, target[c, q, :, k, m] / divisor)) for c, q, k, m in places]
        total = total - torch.log(scores[places.index((b, p, i, j))] / sum(scores))
    return total / len(places)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("size", SIZES)
def test_loss_and_gradients_equal_a_loop(size: tuple[int, ...], temperature: float | None) -> None:
    found, expected = ([maps(*size, seed=seed).requires_grad_() for seed in (1, 2)] for _ in range(2))
    loss, wanted = dense_predictive_nce(*found, temperature), loop(*expected, temperature)
    torch.testing.assert_close(loss, wanted)
    loss.backward()
    wanted.backward()
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_gradient_is_that_of_finite_differences() -> None:
    predicted, target = (maps(2, 2, 3, 2, seed=seed).requires_grad_() for seed in (1, 2))
    assert torch.autograd.gradcheck(dense_predictive_nce, (predicted, target))
    assert torch.autograd.gradcheck(lambda *both: dense_predictive_nce(*both, 0.5), (predicted, target))


def test_rows_are_predictions_and_columns_targets() -> None:
    predicted, target = maps(2, 3, 4, 2, seed=1), maps(2, 3, 4, 2, seed=2)
    logits = dense_logits(predicted, target)
    assert logits.shape == (24, 24)
    row, column = 1 * 12 + 2 * 4 + 1 * 2 + 0, 0 * 12 + 1 * 4 + 0 * 2 + 1  # sample, block, row, column of the map
    torch.testing.assert_close(logits[row, column], torch.dot(predicted[1, 2, :, 1, 0], target[0, 1, :, 0, 1]))
    torch.testing.assert_close(own_target_nce(logits), dense_predictive_nce(predicted, target))


def test_only_the_own_target_is_the_positive_of_accuracies() -> None:
    target = maps(2, 2, 16, 2, seed=1)
    own = torch.eye(16, dtype=torch.bool)
    assert positive_accuracy(dense_logits(target, target), own, 1) == 1
    shifted = dense_logits(target.roll(1, dims=1), target)  # every prediction is of the other block
    assert positive_accuracy(shifted, own, 1) == 0


def test_the_temperature_divides_both_factors() -> None:
    predicted, target = maps(2, 1, 4, 1, seed=1), maps(2, 1, 4, 1, seed=2)
    torch.testing.assert_close(dense_logits(predicted, target, COCON), dense_logits(predicted, target) / COCON**2)
    assert dense_logits(target, target, COCON).max().item() == pytest.approx(204.08, abs=0.01)


def test_features_are_used_as_given() -> None:
    """DPC's are not normalised: lengths count."""
    predicted, target = maps(2, 1, 4, 1, seed=1), maps(2, 1, 4, 1, seed=2)
    torch.testing.assert_close(dense_logits(3 * predicted, 2 * target), 6 * dense_logits(predicted, target))


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_raised_also_under_autocast(dtype: torch.dtype, temperature: float | None) -> None:
    halved = [maps(3, 2, 8, 2, seed=seed, dtype=dtype).requires_grad_() for seed in (1, 2)]
    expected = dense_predictive_nce(*(part.detach().float() for part in halved), temperature)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert dense_logits(*halved, temperature).dtype == torch.float32
        loss = dense_predictive_nce(*halved, temperature)
    assert loss.dtype == torch.float32 and torch.equal(loss.detach(), expected)
    loss.backward()
    assert all(part.grad is not None and torch.isfinite(part.grad).all() for part in halved)


def test_the_largest_logits_of_cocon_neither_overflow_nor_vanish() -> None:
    """Predictions that point away from their targets: a loss of up to 408, whose exponential no float32 holds."""
    target = maps(4, 1, 3, 1, seed=1, dtype=torch.float16)
    predicted = (-target).requires_grad_()
    loss = dense_predictive_nce(predicted, target, COCON)
    assert loss.item() == pytest.approx(loop(predicted.detach().double(), target.double(), COCON).item(), rel=1e-4)
    assert loss.item() > math.log(torch.finfo(torch.float32).max)
    loss.backward()
    assert predicted.grad is not None and torch.isfinite(predicted.grad).all() and predicted.grad.abs().max() > 1


def test_one_matrix_is_kept_for_the_backward_pass() -> None:
    predicted, target = (maps(4, 3, 2, 2, seed=seed, dtype=torch.float32).requires_grad_() for seed in (1, 2))
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = dense_predictive_nce(predicted, target, COCON)
    assert loss.requires_grad
    assert sorted(kept.values())[-3:] == [48 * 2, 48 * 2, 48 * 48]  # beside the rows and the columns


@pytest.mark.parametrize(
    ("predicted", "target"),
    [
        ((2, 3, 4, 2, 2), (2, 2, 4, 2, 2)),
        ((2, 3, 4, 2, 2), (2, 3, 5, 2, 2)),
        ((2, 3, 4, 2), (2, 3, 4, 2)),
        ((2, 3, 4, 2, 2), (2, 3, 4, 4, 1)),
    ],
)
def test_loss_fails_on_shapes(predicted: tuple[int, ...], target: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"do not fit together: predicted \(2, 3, 4"):
        dense_predictive_nce(torch.zeros(predicted), torch.zeros(target))


@pytest.mark.parametrize("shape", [(1, 1, 4, 1, 1), (0, 3, 4, 2, 2)])
def test_loss_fails_without_negatives(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="need negatives"):
        dense_predictive_nce(torch.zeros(shape), torch.zeros(shape))


@pytest.mark.parametrize("temperature", [0, -0.07, math.nan, "0.07"])
def test_loss_fails_on_temperature(temperature: object) -> None:
    both = maps(2, 1, 3, 1, seed=1), maps(2, 1, 3, 1, seed=2)
    with pytest.raises(ValueError, match="temperature"):
        dense_predictive_nce(*both, temperature)  # type: ignore[arg-type]
