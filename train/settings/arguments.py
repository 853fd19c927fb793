"""Arguments that cannot be meant: ValueErrors in one wording, for functions and modules that recipes do not reach
alone."""

from __future__ import annotations

import math
from typing import Any, get_args


def check_number(
    name: str,
    value: object,
    *,
    whole: bool = False,
    least: float = -math.inf,
    above: float = -math.inf,
    most: float = math.inf,
) -> None:
    """Passes finite numbers with least <= value <= most and value > above; integers if `whole`. Raises ValueError."""
    number = isinstance(value, int if whole else int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not number or not (least <= value <= most and value > above):  # type: ignore[operator]
        limits = [("at least", least), ("more than", above), ("at most", most)]
        wanted = [
            "a whole number" if whole else "a number",
            *(f"{word} {limit:g}" for word, limit in limits if math.isfinite(limit)),
        ]
        raise ValueError(f"{name} is {value!r}, and must be {', '.join(wanted)}")


def check_choice(name: str, value: object, literal: Any) -> None:
    """Passes the values of a `Literal`. Raises ValueError."""
    if value not in get_args(literal):
        raise ValueError(f"{name} is {value!r}, and must be one of {', '.join(map(repr, get_args(literal)))}")
