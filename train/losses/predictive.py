"""Dense predictive coding: the features predicted for each place of a later block, against those of all places.

A place is one (sample b, block p, row and column s of the feature map); M = B * P * S * S of them, in this order.
float16 and bfloat16 are raised to float32, also under autocast. Features are used as given: what is normalised, the
network normalises.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from train.hardware.precision import in_full_precision
from train.settings.arguments import check_number


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
    if predicted.ndim != 5 or predicted.shape != target.shape:
        shapes = f"predicted {tuple(predicted.shape)}, target {tuple(target.shape)}"
        raise ValueError(f"predictions and targets do not fit together: {shapes}, and not both (B, P, D, S, S)")
    rows, columns = _places(predicted), _places(target)
    if len(rows) < 2:
        raise ValueError(
            f"dense predictions need negatives, which are other samples, blocks or places: predicted {tuple(predicted.shape)}"
        )
    if temperature is not None:
        check_number("temperature", temperature, above=0)
        rows, columns = rows / temperature, columns / temperature
    return rows @ columns.T


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
    samples of 7 x 7 places (224 px).

    Source: Han et al., DPC (arXiv 1909.04656); Rai et al., CoCon (arXiv 2104.14764), both as released (docs/methods.md
    4.9).
    """
    return own_target_nce(dense_logits(predicted, target, temperature))


def _places(features: Tensor) -> Tensor:
    """(B, P, D, S, S) -> (M, D)."""
    return features.permute(0, 1, 3, 4, 2).reshape(-1, features.shape[2])
