"""Refusals of values that cannot be meant, in one wording for recipes, methods and networks."""

from __future__ import annotations

import math
from typing import Any, get_args

from pipeline.errors import UsageError, refuse_unknown


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


def check_range(where: str, value: object, *, least: float = 0.0, most: float = math.inf) -> None:
    """Passes two numbers that do not fall, more than 0, at least `least` and at most `most`.

    Raises:
        UsageError: anything else, with the setting's name `where`.
    """
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise UsageError(f"{value!r} is not a range", where=where, remedy="two numbers, the smaller one first")
    for bound in value:
        check_number(where, bound, least=least, above=0 if least <= 0 else -math.inf, most=most)
    if value[0] > value[1]:
        raise UsageError(f"the range {value!r} falls", where=where, remedy="the smaller number first")


def check_flag(where: str, value: object) -> None:
    """Passes true and false. Raises UsageError for anything else, with the setting's name `where`."""
    if not isinstance(value, bool):
        raise UsageError(f"{value!r} is neither true nor false", where=where, remedy="true or false, without quotes")


def check_choice(where: str, value: object, literal: Any) -> None:
    """Passes the values of a `Literal`. Raises UsageError for anything else, with the setting's name `where`."""
    if value not in get_args(literal):
        refuse_unknown(where.rpartition(".")[2], value, get_args(literal), where=where)
