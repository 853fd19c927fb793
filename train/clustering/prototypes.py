"""Prototypes: unit vectors that stand for clusters, their scores, and how far they lie apart."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from train.hardware.precision import in_full_precision
from train.settings.arguments import check_number

# One schedule for every size, found by trial: mean largest cosines of .032 for 300 prototypes of size 128 and .083 for
# 1000, and the simplex exactly where there are no more prototypes than dimensions.
STEPS = 300
MOST_APART = 20_000  # prototypes that are placed so: the cosines of all pairs take 1.5 GiB, a few times
FIRST_SHARPNESS, LAST_SHARPNESS = 10.0, 300.0
STEP_SIZE, STEP_MOMENTUM = 0.1, 0.9
NEGLIGIBLE = 1e-9  # smaller shares become 0: as denormal numbers they make the products 20 times slower


class Prototypes(nn.Module):
    """`count` prototypes that are learned, unit rows of `weight` (K, D) (ViCC, docs/methods.md 4.6).

    The rows are made unit, without gradient, before each forward pass. To freeze them is up to the method: they have no
    gradient then, or do not require one.

    Args:
        count: number of prototypes K. Published: 300 (ViCC), 1000 (GOCA).
        dim: length D of the rows that are compared with them.

    Raises:
        ValueError: numbers below 1.
    """

    def __init__(self, count: int, dim: int) -> None:
        super().__init__()
        check_number("count", count, whole=True, least=1)
        check_number("dim", dim, whole=True, least=1)
        self.weight = nn.Parameter(functional.normalize(torch.randn(count, dim), dim=1))

    def forward(self, rows: Tensor) -> Tensor:
        """Scores (B, K), cosines in float32 at least, of unit rows (B, D).

        Raises:
            ValueError: rows of another length.
        """
        _refuse_rows(rows, self.weight)
        # Through .data: several passes may share a backward pass, and the later ones change nothing but rounding, which
        # autograd would take for a weight that was overwritten.
        self.weight.data.copy_(functional.normalize(self.weight.data, dim=1))
        return _products(rows, self.weight)


class FixedPrototypes(nn.Module):
    """`count` prototypes that lie apart and stay where they are, unit rows of `weight` (K, D) (GOCA, docs/methods.md
    4.7).

    To make one costs nothing: there are no rows, but zeros, until `place` has searched for them, or a state dict has
    brought them, in which they stay for good.

    Args:
        count, dim: As of `Prototypes`, 2 at least.

    Raises:
        ValueError: numbers below 2.
    """

    weight: Tensor

    def __init__(self, count: int, dim: int) -> None:
        super().__init__()
        check_number("count", count, whole=True, least=2)
        check_number("dim", dim, whole=True, least=2)
        self.register_buffer("weight", torch.zeros(count, dim))
        self._placed = False  # asked of the device only until they are

    @property
    def placed(self) -> bool:
        """Whether there are rows."""
        self._placed = self._placed or bool(self.weight.any())
        return self._placed

    def place(self, seed: int) -> None:
        """Let the rows be those that `separate` finds: seconds for 1000 of them."""
        count, dim = self.weight.shape
        self.weight.copy_(separate(count, dim, seed))

    def forward(self, rows: Tensor) -> Tensor:
        """Scores (B, K), cosines in float32 at least, of unit rows (B, D).

        Raises:
            ValueError: rows of another length, or prototypes that were not placed.
        """
        _refuse_rows(rows, self.weight)
        if not self.placed:
            raise ValueError("the prototypes have no place yet: call `place`, or load a state dict that has them")
        return _products(rows, self.weight)


@in_full_precision
def separation(prototypes: Tensor) -> Tensor:
    """Mean over i of max over j != i of (c_i . c_j) + 1, a scalar in 0..2, smaller for prototypes that lie apart.

    Mettes et al. 2019, Hyperspherical Prototype Networks; GOCA's regularisation (docs/methods.md 4.7).

    Args:
        prototypes: (K, D), K > 1, unit rows, which are used as given.

    Raises:
        ValueError: fewer than two prototypes.
    """
    if prototypes.ndim != 2 or len(prototypes) < 2:
        raise ValueError(
            f"separation is that of two prototypes (K, D) or more, and these are {tuple(prototypes.shape)}"
        )
    return _cosines_with_others(prototypes).amax(dim=1).mean() + 1


@torch.no_grad()
def separate(count: int, dim: int, seed: int = 0) -> Tensor:
    """Unit rows (count, dim), float32 on the CPU, that lie as far apart as a short search can place them.

    Minimises the log-sum-exp of the cosines of all pairs, a soft maximum that sharpens on the way, by gradient steps
    with momentum on the sphere. `separation` itself moves one pair a row and step, and hardly gets anywhere: GOCA's
    published prototypes come from it (docs/methods.md 4.7). And as a mean over rows it lets some of them coincide where
    room is short. The same seed gives the same rows on one machine with one number of threads; others round
    differently.

    Raises:
        ValueError: fewer than two rows, or dimensions.
    """
    check_number("count", count, whole=True, least=2)
    check_number("dim", dim, whole=True, least=2)
    check_number("seed", seed, whole=True, least=0)
    generator = torch.Generator().manual_seed(seed)
    rows = functional.normalize(torch.randn(count, dim, generator=generator), dim=1)
    velocity = torch.zeros_like(rows)
    for done in torch.linspace(0, 1, STEPS).tolist():
        sharpness = FIRST_SHARPNESS * (LAST_SHARPNESS / FIRST_SHARPNESS) ** done
        shares = (sharpness * _cosines_with_others(rows)).flatten().softmax(dim=0).view(count, count) * count
        gradient = functional.threshold(shares, NEGLIGIBLE, 0.0) @ rows
        along_the_sphere = gradient - (gradient * rows).sum(dim=1, keepdim=True) * rows
        velocity = STEP_MOMENTUM * velocity + along_the_sphere
        rows = functional.normalize(rows - STEP_SIZE * (1 - done) * velocity, dim=1)
    return rows


def _cosines_with_others(rows: Tensor) -> Tensor:
    """(K, K), -inf on the diagonal."""
    own = torch.eye(len(rows), dtype=torch.bool, device=rows.device)
    return (rows @ rows.T).masked_fill(own, -torch.inf)


def _refuse_rows(rows: Tensor, weight: Tensor) -> None:
    if rows.ndim != 2 or rows.shape[1] != weight.shape[1]:
        shapes = f"rows {tuple(rows.shape)}, prototypes {tuple(weight.shape)}"
        raise ValueError(f"rows do not fit the prototypes: {shapes}, and not rows (B, D), prototypes (K, D)")


@in_full_precision
def _products(rows: Tensor, weight: Tensor) -> Tensor:
    return rows @ weight.T
