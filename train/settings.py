"""Refusals of numbers that cannot be meant, in one wording for recipes, methods and networks."""

from __future__ import annotations

import math

from pipeline.errors import UsageError


def check_number(
    where: str,
    value: object,
    *,
    whole: bool = False,
    least: float = -math.inf,
    above: float = -math.inf,
    most: float = math.inf,
) -> None:
    """Passes a finite number with least <= value <= most and value > above; an integer if `whole`.

    Raises:
        UsageError: anything else, with the setting's name `where`.
    """
    if isinstance(value, str):
        raise UsageError(
            f"{value!r} is text, not a number", where=where, remedy="YAML reads 1e-3 as text: write 1.0e-3"
        )
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float) or not math.isfinite(value):
        raise UsageError(f"{value!r} is not a{' whole' * whole} number", where=where, remedy="a finite number")
    if not (least <= value <= most and value > above):
        limits = [("at least", least), ("more than", above), ("at most", most)]
        allowed = ", ".join(f"{word} {limit:g}" for word, limit in limits if math.isfinite(limit))
        raise UsageError(f"{value!r} is out of range", where=where, remedy=allowed)
