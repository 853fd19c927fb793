"""What files and settings say, checked: strict JSON, types and ranges by pydantic, one wording for what is wrong."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
import reprlib
from typing import Annotated, Any, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic_core import ErrorDetails

from pipeline.errors import UsageError, refuse_unknown

DEEPEST = 64  # levels of JSON; ours have ten
TOO_DEEP = "it is nested too deeply"
LONGEST = 200  # letters of a value that are shown
STRICT = ConfigDict(strict=True, allow_inf_nan=False)

Count = Annotated[int, Field(ge=0, lt=2**63)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Facts(BaseModel):
    """What a file of ours says. A subclass lists what is relied on; what else a later version may say is left alone."""

    model_config = STRICT | ConfigDict(extra="allow")


def parse_json(content: bytes | str) -> Any:
    """What strict JSON says: UTF-8, each key once, numbers that are finite. Raises ValueError."""
    text = content if isinstance(content, str) else content.decode()
    try:
        found = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_number)
    except RecursionError as error:
        raise ValueError(TOO_DEEP) from error
    _check_depth(found)
    if "\\u" in text:  # half a letter, which only an escape can spell
        json.dumps(found, ensure_ascii=False).encode()
    return found


def _check_depth(found: Any) -> None:
    level = [found]
    for _ in range(DEEPEST):
        level = [
            item
            for value in level
            if isinstance(value, dict | list)
            for item in (value.values() if isinstance(value, dict) else value)
        ]
        if not level:
            return
    raise ValueError(TOO_DEEP)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} is given twice")
    return found


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number of JSON")


def check(kind: type[BaseModel], data: Any) -> None:
    """Raises ValueError, with the path to the key, where `data` is not what `kind` lists."""
    try:
        kind.model_validate(data)
    except ValidationError as error:
        what, place, _ = told(error.errors(include_url=False)[0])
        raise ValueError(f"{place}: {what}") from None


def check_dataclass(value: Any) -> None:
    """Raises ValueError, with the path to the key, where a value of a dataclass is not of the type of its field."""
    kind: Any = type(value)
    check(_model_of(kind), {field.name: getattr(value, field.name) for field in dataclasses.fields(value)})


@functools.cache
def _model_of(kind: Any) -> type[BaseModel]:
    hints = get_type_hints(kind)
    listed: dict[str, Any] = {field.name: (hints[field.name], ...) for field in dataclasses.fields(kind)}
    return create_model(kind.__name__, __config__=STRICT, **listed)


def told(found: ErrorDetails) -> tuple[str, str, str]:
    """An error of pydantic's for people: what is wrong, the path to its key, and what to do."""
    kind, value, place, context = found["type"], found["input"], [*found["loc"]], found.get("ctx", {})
    shown = reprlib.repr(value) if isinstance(value, dict | list) else repr(value)[:LONGEST]
    what, remedy = f"{shown} is not {WORDS.get(kind, 'what belongs here')}", "correct the value"
    if kind == "cannot_be":
        what, remedy = context["what"], context["remedy"]
    elif kind == "value_error":
        what = str(context["error"])
    elif kind == "missing" and isinstance(place[-1], str):
        what, remedy = f"{place.pop()} is missing", "add it"
    elif kind == "literal_error":
        try:
            refuse_unknown("value", value, re.findall("'([^']*)'", context["expected"]))
        except UsageError as error:
            what, remedy = error.what, error.remedy
    elif kind in LIMITS:
        word, name = LIMITS[kind]
        what, remedy = f"{shown} is out of range", f"{word} {context[name]:g}"
    elif kind == "float_type" and isinstance(value, str):
        what, remedy = f"{shown} is text, not a number", "YAML reads 1e-3 as text: write 1.0e-3"
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).removeprefix(".")
    within = context.get("within", "") if kind == "cannot_be" else ""
    return what, (path + within).lstrip(".: ") or "top level", remedy


# How people are told of pydantic's kinds of errors.
WORDS = {
    "bool_type": "true or false",
    "dict_type": "a mapping of names",
    "finite_number": "a finite number",
    "float_type": "a number",
    "int_type": "a whole number",
    "list_type": "a list",
    "missing": "a list of that length",
    "model_type": "a mapping",
    "string_type": "text",
    "too_long": "a list of that length",
    "tuple_type": "a list",
}
LIMITS = {
    "greater_than": ("more than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("at most", "le"),
}
