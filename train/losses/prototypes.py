"""Prediction of one view's assignment to prototypes from the other views (SwAV, ViCC, GOCA)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from train.hardware.precision import in_full_precision
from train.settings.arguments import check_number


def swapped_prediction(scores: Sequence[Tensor], assignments: Mapping[int, Tensor], temperature: float = 0.1) -> Tensor:
    """Mean over assigned views i of the mean over all other views v of CE(Q_i, softmax(S_v / temperature)), a scalar.

    The cross-entropies are means over the batch. Caron et al. 2020, SwAV, section 3.1, for any number of views: ViCC,
    GOCA: docs/methods.md 4.6.

    Args:
        scores: of each view, two or more, its cosines with the prototypes, (B, K). All of them predict; a view that is
            to have no gradient comes detached.
        assignments: the place of an assigned view in `scores` -> its probabilities Q (B, K), taken as constants.

    Raises:
        ValueError: fewer than two views, no or an unknown assigned view, or shapes that differ; a temperature that is
            not positive.
    """
    check_number("temperature", temperature, above=0)
    _refuse_views(scores, assignments)
    log_shares = [_log_shares(view, temperature) for view in scores]
    terms = [
        _cross_entropy(wanted.detach(), shares)
        for assigned, wanted in assignments.items()
        for predicting, shares in enumerate(log_shares)
        if predicting != assigned
    ]
    return sum(terms[1:], terms[0]) / len(terms)


@in_full_precision
def _log_shares(scores: Tensor, temperature: float) -> Tensor:
    return (scores / temperature).log_softmax(dim=1)


@in_full_precision
def _cross_entropy(wanted: Tensor, log_shares: Tensor) -> Tensor:
    return -(wanted * log_shares).sum(dim=1).mean()


def _refuse_views(scores: Sequence[Tensor], assignments: Mapping[int, Tensor]) -> None:
    if len(scores) < 2 or not assignments or not set(assignments) <= set(range(len(scores))):
        raise ValueError(
            f"each assigned view needs another one that predicts it: these are {len(scores)} views, of which"
            f" {sorted(assignments)} are assigned, by their places in scores"
        )
    shapes = [tuple(view.shape) for view in [*scores, *assignments.values()]]
    if len(set(shapes)) > 1 or len(shapes[0]) != 2 or 0 in shapes[0]:
        views = f"scores {shapes[: len(scores)]}, assignments {shapes[len(scores) :]}"
        raise ValueError(f"views do not fit together: {views}, and not all of them (B, K), at least one of each")
