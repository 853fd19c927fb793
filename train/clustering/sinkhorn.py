"""Soft assignments of clips to prototypes that use every prototype equally much (Sinkhorn-Knopp, in the log domain)."""

from __future__ import annotations

import torch
from torch import Tensor, distributed

from train.hardware.precision import in_full_precision
from train.settings.arguments import check_number


@torch.no_grad()
@in_full_precision
def assign(
    scores: Tensor,
    epsilon: float = 0.05,
    iterations: int = 3,
    log_prior: Tensor | None = None,
    prior_epsilon: float = 0.0,
    prior_sign: int = 1,
    group: distributed.ProcessGroup | None = None,
) -> Tensor:
    """log Q (B, K), without gradient: how much of each clip every prototype gets; rows of Q sum to one.

    Without a prior, Q = balance(S / epsilon) (Caron et al. 2020, SwAV, section 3.1). With the assignment P of another
    stream as a prior, Q = balance((S + prior_sign * prior_epsilon * log P) / (epsilon + prior_epsilon)), which
    maximises <Q, S> + epsilon H(Q) - prior_epsilon KL(Q || P) for a sign of 1 (GOCA, docs/methods.md 4.5). `balance`
    scales, in turn, each prototype's sum over clips and each clip's sum over prototypes to the same number.

    Args:
        scores: S (B, K), cosines of clips and prototypes.
        epsilon: weight of the entropy: small for sharp assignments.
        iterations: how often prototypes and clips are scaled.
        log_prior: log P (B, K), as this function gives it.
        prior_epsilon: weight of the prior.
        prior_sign: 1 pulls towards the prior; -1, GOCA's released code, pushes away from it.
        group: the ranks whose rows are one problem. Their number of rows may differ, and be 0; all of them have to
            call. None: this process alone.

    Returns:
        float32 (float64 of float64 scores). On a GPU, where looking at values would make the step wait, the result is
        NaN throughout, on all ranks, where values are refused on a CPU.

    Raises:
        ValueError: shapes that do not fit, nothing to assign, values that are not finite once divided (CPU only), or a
            group that this rank is not part of; a number out of range, or the weight of a prior without a prior.
    """
    _refuse_numbers(epsilon, iterations, prior_epsilon, prior_sign)
    _refuse_tensors(scores, log_prior, prior_epsilon, group)
    log_q = scores if log_prior is None else scores + prior_sign * prior_epsilon * log_prior
    log_q = log_q / (epsilon + prior_epsilon)
    finite = log_q.isfinite()
    if finite.device.type == "cpu" and not finite.all():
        raise ValueError(
            f"scores that are not finite, or too large, cannot be balanced: {int((~finite).sum())} of {finite.numel()}"
            f" values of scores or log_prior, divided by {epsilon + prior_epsilon:g}. Give cosines as scores, and as"
            " log_prior what assign gave, not the logarithm of probabilities, which may be 0"
        )
    log_q = torch.where(finite, log_q, torch.nan)
    for _ in range(iterations):
        log_q = log_q - _log_sum_over_clips(log_q, group)
        log_q = log_q.log_softmax(dim=1)
    return log_q


def _log_sum_over_clips(log_q: Tensor, group: distributed.ProcessGroup | None) -> Tensor:
    """Log-sum-exp (K,) over the rows of all ranks of the group."""
    if group is None:
        return log_q.logsumexp(dim=0)
    lowest = log_q.new_full((1, log_q.shape[1]), -torch.inf)  # a rank without rows has no maximum
    largest = torch.cat([log_q, lowest]).amax(dim=0)
    distributed.all_reduce(largest, distributed.ReduceOp.MAX, group=group)
    total = (log_q - largest).exp().sum(dim=0)
    distributed.all_reduce(total, distributed.ReduceOp.SUM, group=group)
    return largest + total.log()


def _refuse_numbers(epsilon: float, iterations: int, prior_epsilon: float, prior_sign: int) -> None:
    check_number("epsilon", epsilon, above=0)
    check_number("iterations", iterations, whole=True, least=1)
    check_number("prior_epsilon", prior_epsilon, least=0)
    if prior_sign not in (1, -1):
        raise ValueError(f"prior_sign is {prior_sign!r}, and must be 1 (towards the prior) or -1")


def _refuse_tensors(
    scores: Tensor, log_prior: Tensor | None, prior_epsilon: float, group: distributed.ProcessGroup | None
) -> None:
    if scores.ndim != 2 or scores.shape[1] == 0 or (len(scores) == 0 and group is None):
        raise ValueError(f"nothing to assign: scores {tuple(scores.shape)}, and not (B, K), at least one of each")
    if log_prior is None and prior_epsilon:
        raise ValueError(f"prior_epsilon is {prior_epsilon!r}, the weight of a prior, and there is no log_prior")
    if log_prior is not None and log_prior.shape != scores.shape:
        shapes = f"scores {tuple(scores.shape)}, log_prior {tuple(log_prior.shape)}"
        raise ValueError(f"the prior does not fit the scores: {shapes}, and not both (B, K)")
    if group is not None and distributed.get_rank(group) < 0:
        raise ValueError("this rank is not part of the group, whose ranks alone may call assign")
