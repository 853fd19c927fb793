"""What ties CoCon's views together: equal similarities among blocks (cooperation), equal embeddings of a block
(synchronisation).

Rows are the M = B * N time blocks of a batch, the same ones in both views. float16 and bfloat16 are raised to float32,
also under autocast. Both terms are unweighted (published: 10 each, summed over all pairs of views) and both carry
gradient to both views. Source: Rai et al., CoCon (arXiv 2104.14764), released code (docs/methods.md 4.10).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from train.hardware.precision import in_full_precision

FLOOR = 1e-5  # added to a row's length, so that a row of zeros stays one


@in_full_precision
def pool_blocks(features: Tensor) -> Tensor:
    """One vector for each time block: the maximum over 2 x 2 places until 2 x 2 of them are left, then their mean.

    Args:
        features: (B, N, D, S, S), feature maps of N blocks. Published are S of 2, 4 and 7 (64, 128 and 224 px). Where S
            is odd the first row and column are taken alone, so that 7 x 7 places become 4 x 4.

    Returns:
        (B, N, D).

    Raises:
        ValueError: another shape.
    """
    if features.ndim != 5 or features.shape[3] != features.shape[4]:
        raise ValueError(f"feature maps are {tuple(features.shape)}, and not (B, N, D, S, S)")
    maps = features.flatten(0, 1)  # (B * N, D, S, S)
    while (size := maps.shape[-1]) > 2:
        maps = functional.max_pool2d(maps, kernel_size=2, padding=size % 2)
    return maps.mean(dim=(2, 3)).unflatten(0, features.shape[:2])


@in_full_precision
def cooperation(first: Tensor, second: Tensor) -> Tensor:
    """Mean over all M * M pairs of blocks of |cosine in one view - cosine in the other|, a scalar.

    Pairs of a block with itself and with its clip's other blocks count like any other.

    Args:
        first, second: (B, N, D), `pool_blocks` of two views.

    Raises:
        ValueError: shapes that differ, or a single block, which has none to be compared with.
    """
    rows, others = _directions(first, second)
    return (rows @ rows.T - others @ others.T).abs().mean()


@in_full_precision
def synchronisation(first: Tensor, second: Tensor) -> Tensor:
    """Half the mean of 1 - cosine over a block's two views, plus half the mean of max(0, cosine) over all other pairs
    of a block in one view with a block in the other; a scalar, the same with the views exchanged.

    Other blocks of the same clip are among the negatives. Arguments and refusals as of `cooperation`.
    """
    rows, others = _directions(first, second)
    cosines = rows @ others.T  # (M, M)
    own = torch.eye(len(rows), dtype=torch.bool, device=rows.device)
    apart = functional.relu(cosines).masked_fill(own, 0).sum() / (cosines.numel() - len(rows))
    return (1 - cosines.diagonal()).mean() / 2 + apart / 2


def _directions(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """The blocks of both views as rows y / (|y| + FLOOR), (M, D)."""
    shapes = f"first {tuple(first.shape)}, second {tuple(second.shape)}"
    if first.ndim != 3 or first.shape != second.shape:
        raise ValueError(f"the views do not fit together: {shapes}, and not both (B, N, D), the same clips and blocks")
    rows, others = (view.flatten(0, 1) for view in (first, second))
    if len(rows) < 2:
        raise ValueError(f"a single block has no others to be compared with: {shapes}")
    return _direction(rows), _direction(others)


def _direction(rows: Tensor) -> Tensor:
    return rows / (rows.norm(dim=1, keepdim=True) + FLOOR)
