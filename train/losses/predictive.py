"""Dense predictive coding: the features predicted for each place of a later block, against those of all places.

A place is one (sample b, block p, row and column s of the feature map); M = B * P * S * S of them, in this order.
float16 and bfloat16 are raised to float32, also under autocast. Features are used as given: what is normalised, the
network normalises.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from train.hardware.precision import in_full_precision
from train.settings.arguments import check_number

LOGITS_AT_ONCE = 2**26  # 256 MB


@in_full_precision
def dense_logits(predicted: Tensor, target: Tensor, temperature: float | None = None) -> Tensor:
    """The product of the prediction for each place with the target of every place.

    Args:
        predicted, target: (B, P, D, S, S); P predicted blocks of D features.
        temperature: None for the plain product of DPC. CoCon divides BOTH factors by 0.07, so that the cosines of its
            normalised features are divided by 0.0049 and logits reach 204.

    Returns:
        (M, M), M = B * P * S * S. Rows are predictions, columns targets; a prediction's own target lies on the
        diagonal. Negatives are other blocks at the same place of the feature map, other places of the same sample, and
        other samples.

    Raises:
        ValueError: shapes that do not fit, or a single place, which has no negatives; a temperature that is not
            positive.
    """
    _check(predicted, target, temperature)
    divisor = 1.0 if temperature is None else temperature
    return (_places(predicted) / divisor) @ (_places(target) / divisor).T


def _check(predicted: Tensor, target: Tensor, temperature: float | None) -> None:
    if predicted.ndim != 5 or predicted.shape != target.shape:
        shapes = f"predicted {tuple(predicted.shape)}, target {tuple(target.shape)}"
        raise ValueError(f"predictions and targets do not fit together: {shapes}, and not both (B, P, D, S, S)")
    if predicted.numel() < 2 * predicted.shape[2]:
        raise ValueError(
            f"dense predictions need negatives, which are other samples, blocks or places:"
            f" predicted {tuple(predicted.shape)}"
        )
    if temperature is not None:
        check_number("temperature", temperature, above=0)


@in_full_precision
def own_target_nce(logits: Tensor) -> Tensor:
    """Mean over rows of LSE(l_i) - l_ii: cross-entropy towards the diagonal of (M, M) logits, a scalar."""
    # cross_entropy keeps one matrix for the backward pass and needs 3 there; LSE and the diagonal as two terms need 5.
    return functional.cross_entropy(logits, torch.arange(len(logits), device=logits.device))


def dense_predictive_nce(predicted: Tensor, target: Tensor, temperature: float | None = None) -> Tensor:
    """Dense predictive NCE, a scalar: `own_target_nce(dense_logits(...))`. Both factors carry gradient.

    Negatives are those of the tensors given; to have those of all ranks, gather them first.

    Memory: matrices of M x M float32, 2 of them in the forward pass, 3 in the backward pass, 1 kept in between. At the
    published sizes (3 predicted blocks) a matrix has 38 MB for 64 samples of 4 x 4 places (128 px), and 89 MB for 32
    samples of 7 x 7 places (224 px). Matrices of more than 256 MB are made in parts, of which none is kept: each is
    made again in the backward pass.

    Source: Han et al., DPC (arXiv 1909.04656); Rai et al., CoCon (arXiv 2104.14764), both as released (docs/methods.md
    4.9).
    """
    return prediction(predicted, target, temperature)[0]


@in_full_precision
def prediction(predicted: Tensor, target: Tensor, temperature: float | None = None) -> tuple[Tensor, Tensor]:
    """`dense_predictive_nce`, and the share of predictions that no target fits better than their own, without gradient.

    Arguments and refusals as of `dense_logits`.
    """
    places = predicted.numel() // max(predicted.shape[2], 1) if predicted.ndim == 5 else 0
    if places**2 <= LOGITS_AT_ONCE:
        logits = dense_logits(predicted, target, temperature)
        return own_target_nce(logits), _own_best(logits, 0).float().mean()
    _check(predicted, target, temperature)
    rows, columns = (_places(features) / (temperature or 1.0) for features in (predicted, target))
    step = max(1, LOGITS_AT_ONCE // places)
    losses, right = [], []
    for start in range(0, places, step):
        loss, found = checkpoint(_part, rows[start : start + step], columns, start, use_reentrant=False)
        losses.append(loss)
        right.append(found)
    return torch.stack(losses).sum() / places, torch.cat(right).float().mean()


def _part(rows: Tensor, columns: Tensor, start: int) -> tuple[Tensor, Tensor]:
    """Sum of the loss of some rows, of which the first one's target is column `start`; and which are right."""
    logits = rows @ columns.T
    own = start + torch.arange(len(rows), device=rows.device)
    return functional.cross_entropy(logits, own, reduction="sum"), _own_best(logits, start)


def _own_best(logits: Tensor, start: int) -> Tensor:
    """bool: rows whose own column, the first one's being `start`, is the largest."""
    logits = logits.detach()
    return logits.diagonal(start) >= logits.amax(dim=1)


def _places(features: Tensor) -> Tensor:
    """(B, P, D, S, S) -> (M, D)."""
    return features.permute(0, 1, 3, 4, 2).reshape(-1, features.shape[2])
