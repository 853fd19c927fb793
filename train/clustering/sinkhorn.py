"""Soft assignments of clips to prototypes that use every prototype equally much (Sinkhorn-Knopp, in the log domain)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, distributed

from train.hardware.precision import in_full_precision
from train.settings.arguments import check_number

MOST_ITERATIONS = 1000  # that a recipe may ask for; published are 3
AT_ONCE = 256  # queued clips that are looked at together: beside their scores little memory is needed


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
    queued: Tensor | None = None,
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
        queued: scores (N, K) of earlier clips, which are balanced with the others and are not returned. Each clip is
            one rank's: of a queue that all ranks have, a rank gives its share. Not with a prior. Their scores are
            2.45 GiB for 65,536 clips and 10,000 prototypes; beside them there are .02 GiB, and an assignment takes 44
            seconds of one core (`tests.benchmarks.assignment`).

    Returns:
        float32 (float64 of float64 scores). On a GPU, where looking at values would make the step wait, the result is
        NaN throughout, on all ranks, where values are refused on a CPU.

    Raises:
        ValueError: shapes that do not fit, nothing to assign, values that are not finite once divided (CPU only), or a
            group that this rank is not part of; a number out of range, or the weight of a prior without a prior.
    """
    _refuse_numbers(epsilon, iterations, prior_epsilon, prior_sign)
    _refuse_tensors(scores, log_prior, prior_epsilon, group, queued)
    together = scores if log_prior is None else scores + prior_sign * prior_epsilon * log_prior
    blocks = [together, *(() if queued is None else queued.split(AT_ONCE))]

    def divided(block: Tensor) -> Tensor:
        return _divided(block, epsilon + prior_epsilon)

    # What the logarithm of each clip's row is moved by. Blocks are divided anew whenever they are looked at: a matrix
    # of quotients would be as large as that of all scores. Results are written into one tensor: each in memory of its
    # own, between the blocks' temporary ones, would keep the C library from using these again.
    of_clips = together.new_zeros(sum(map(len, blocks)), 1).split([len(block) for block in blocks])
    for _ in range(iterations):
        of_prototypes = -_log_sum_over_clips(divided, blocks, of_clips, group)
        for block, moved in zip(blocks, of_clips, strict=True):
            moved.copy_(-(divided(block) + of_prototypes).logsumexp(dim=1, keepdim=True))
    return (divided(together) + of_prototypes).log_softmax(dim=1)


def _divided(scores: Tensor, divisor: float) -> Tensor:
    quotients = scores / divisor
    finite = quotients.isfinite()
    if finite.device.type == "cpu" and not finite.all():
        raise ValueError(
            f"scores that are not finite, or too large, cannot be balanced: {int((~finite).sum())} of {finite.numel()}"
            f" values of scores or log_prior, divided by {divisor:g}. Give cosines as scores, and as"
            " log_prior what assign gave, not the logarithm of probabilities, which may be 0"
        )
    return torch.where(finite, quotients, torch.nan)


def _log_sum_over_clips(
    divided: Callable[[Tensor], Tensor],
    blocks: Sequence[Tensor],
    of_clips: Sequence[Tensor],
    group: distributed.ProcessGroup | None,
) -> Tensor:
    """Log-sum-exp (K,) over the rows of all blocks, of all ranks of the group."""
    of_blocks = blocks[0].new_empty(len(blocks), blocks[0].shape[1])
    for block, moved, of_block in zip(blocks, of_clips, of_blocks, strict=True):
        of_block.copy_((divided(block) + moved).logsumexp(dim=0))
    own = of_blocks.logsumexp(dim=0)
    if group is None:
        return own
    largest = own.clone()  # -inf on a rank without rows
    distributed.all_reduce(largest, distributed.ReduceOp.MAX, group=group)
    total = (own - largest).exp()
    distributed.all_reduce(total, distributed.ReduceOp.SUM, group=group)
    return largest + total.log()


def _refuse_numbers(epsilon: float, iterations: int, prior_epsilon: float, prior_sign: int) -> None:
    check_number("epsilon", epsilon, above=0)
    check_number("iterations", iterations, whole=True, least=1)
    check_number("prior_epsilon", prior_epsilon, least=0)
    if prior_sign not in (1, -1):
        raise ValueError(f"prior_sign is {prior_sign!r}, and must be 1 (towards the prior) or -1")


def _refuse_tensors(
    scores: Tensor,
    log_prior: Tensor | None,
    prior_epsilon: float,
    group: distributed.ProcessGroup | None,
    queued: Tensor | None,
) -> None:
    if scores.ndim != 2 or scores.shape[1] == 0 or (len(scores) == 0 and group is None):
        raise ValueError(f"nothing to assign: scores {tuple(scores.shape)}, and not (B, K), at least one of each")
    if log_prior is None and prior_epsilon:
        raise ValueError(f"prior_epsilon is {prior_epsilon!r}, the weight of a prior, and there is no log_prior")
    if log_prior is not None and log_prior.shape != scores.shape:
        shapes = f"scores {tuple(scores.shape)}, log_prior {tuple(log_prior.shape)}"
        raise ValueError(f"the prior does not fit the scores: {shapes}, and not both (B, K)")
    if queued is not None and (log_prior is not None or queued.ndim != 2 or queued.shape[1] != scores.shape[1]):
        shapes = f"scores {tuple(scores.shape)}, queued {tuple(queued.shape)}"
        raise ValueError(f"queued scores are (N, K) as the scores (B, K), and without a prior: these are {shapes}")
    if group is not None and distributed.get_rank(group) < 0:
        raise ValueError("this rank is not part of the group, whose ranks alone may call assign")
