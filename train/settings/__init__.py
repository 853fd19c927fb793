"""Settings: what a recipe may say, checked as it is read; and refusals in one wording for recipes, methods and
networks."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, Self, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from pipeline.errors import UsageError, refuse_unknown
from pipeline.validation import told

LARGEST = 2**32 - 1  # whole number that any setting takes, as seeds do; many have a range of their own
S = TypeVar("S", bound="Settings")


class Settings(BaseModel):
    """Values by name that are checked when they are made, and stay as they are.

    A subclass lists them as fields with types, ranges and defaults. Types are exact: 4.0 and true are no whole numbers,
    a whole number serves as a fraction. Rules between fields are `model_validator`s, which raise `cannot_be`.

    Raises pydantic's ValidationError for what cannot be meant; `read` tells it to people.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, given: Any) -> Any:
        if isinstance(given, Mapping):
            for key, value in given.items():
                if key not in cls.model_fields:
                    with told_as_setting():
                        refuse_unknown("key", key, cls.model_fields)
                if isinstance(value, int) and abs(value) > LARGEST:
                    raise cannot_be(f"{value!r} is out of range", f"at most {LARGEST:,}", key)
        return given

    def __hash__(self) -> int:
        """Of the values: pydantic's own cannot take those that are lists or dictionaries."""
        return hash(json.dumps(self.as_dict(), sort_keys=True))

    def changed(self, **values: Any) -> Self:
        """The same with other values, checked again."""
        return type(self)(**({name: getattr(self, name) for name in type(self).model_fields} | values))

    def as_dict(self) -> dict[str, Any]:
        """As YAML and checkpoints hold it, defaults included; `read` makes the same settings of it."""
        return self.model_dump(mode="json")


def read(kind: type[S], data: Any, where: str) -> S:
    """Settings from what YAML or a checkpoint holds.

    Raises:
        UsageError: naming `where`, the path to the key, and the nearest spelling of what is unknown; one at a time.
    """
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise _told(error.errors(include_url=False)[0], where) from None


def cannot_be(what: str, remedy: str, key: str = "") -> PydanticCustomError:
    """What validators of settings raise: what is wrong, what to do, and which key, below the settings' own place, it
    is."""
    return _error(what, remedy, f".{key}" if key else "")


@contextlib.contextmanager
def told_as_setting(key: str = "") -> Iterator[None]:
    """Within a validator of settings: a UsageError of a part is told with the place of the settings before its own.

    key: of the part, below the settings' own place.
    """
    try:
        yield
    except UsageError as error:
        within = f".{key}" if key else ""
        raise _error(error.what, error.remedy, f"{within}: {error.where}" if error.where else within) from error


def _error(what: str, remedy: str, within: str) -> PydanticCustomError:
    return PydanticCustomError("cannot_be", "{what}", {"what": what, "remedy": remedy, "within": within})


def _told(found: ErrorDetails, where: str) -> UsageError:
    what, inside, remedy = told(found)
    return UsageError(what, where=f"{where}: {inside}" if where else inside, remedy=remedy)


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
