"""What a command changes of a recipe, `--set stages.0.steps=200`: put in before the recipe is checked, as if its file
said so."""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from typing import Any

import yaml

from pipeline.errors import UsageError, refuse_unknown

EXAMPLE = "for example --set stages.0.steps=200, or --set batch=16"
LENGTHS = {"steps": "epochs", "epochs": "steps"}  # of a stage, which has one of the two
ALL = "*"


def listed(given: Sequence[str] | None, steps: int = 0, epochs: int = 0, batch: int = 0) -> list[str]:
    """What is given by --set, and by its short forms: steps or epochs of every stage, the batch of all."""
    if steps and epochs:
        raise UsageError("a stage has either epochs or steps", where="--steps, --epochs", remedy="give one of the two")
    short = {f"stages.{ALL}.steps": steps, f"stages.{ALL}.epochs": epochs, "batch": batch}
    return [*(f"{key}={value}" for key, value in short.items() if value), *(given or [])]


def changed(data: dict[str, Any], changes: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """A recipe as its file holds it, with the changes made, in order; and what they are, "batch 32 -> 16", for people.

    A change is KEY=VALUE. KEY is the path to a key, of a stage by its number from 0 or by its name, or * for all of
    them. VALUE is as YAML would hold it. Of a stage's steps and epochs one takes the other's place, and a `batch` of
    the recipe that of stages which have their own. Nothing is checked here: reading the recipe does.

    Raises:
        UsageError: what is no KEY=VALUE, a value that YAML does not read, and a key below something without keys.
    """
    made, told = copy.deepcopy(data), []
    for change in changes:
        key, equals, text = change.partition("=")
        path = key.strip().split(".")
        if not equals or not all(path):
            raise UsageError(f"{change!r} is no KEY=VALUE", where="--set", remedy=EXAMPLE)
        value = _value(text, change)
        for place in _places(made, path, change):
            told += _put(made, place, value, change)
        if path == ["batch"]:
            for number, stage in enumerate(_stages(made)):
                if isinstance(stage, dict) and "batch" in stage:
                    told += _put(made, ["stages", number, "batch"], value, change)
    return made, told


def _value(text: str, change: str) -> Any:
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        problem = f"the value of {change!r} is not YAML"
        raise UsageError(problem, where="--set", remedy="quote it within, as '\"...\"'") from error


def _stages(data: dict[str, Any]) -> list[Any]:
    found = data.get("stages")
    return found if isinstance(found, list) else []


def _places(data: dict[str, Any], path: list[str], change: str) -> list[list[str | int]]:
    """The keys that a path means: numbers in lists, and each stage for a star."""
    if len(path) < 2 or path[0] != "stages":
        return [list(path)]
    names = [stage.get("name") if isinstance(stage, dict) else None for stage in _stages(data)]
    numbers = list(range(len(names)))
    if path[1] != ALL:
        known = dict(zip(names, numbers, strict=True)) | {str(number): number for number in numbers}
        if path[1] not in known:
            refuse_unknown("stage", path[1], [str(name) for name in known], where=f"--set {change}")
        numbers = [known[path[1]]]
    return [["stages", number, *path[2:]] for number in numbers]


def _put(data: dict[str, Any], place: list[str | int], value: Any, change: str) -> list[str]:
    """Write the value; what changed, for people."""
    *above, last = place
    inner: Any = functools.reduce(functools.partial(_step, change), above, data)
    if not isinstance(inner, dict):
        raise _without_keys(above, change)
    before = inner.get(last, "by default")
    inner[last] = value
    name = ".".join(map(str, place))
    if above[:1] == ["stages"] and len(place) == 3 and last in LENGTHS and LENGTHS[str(last)] in inner:
        other = LENGTHS[str(last)]
        return [f"{name} {value} in place of {inner.pop(other)} {other}"]
    return [f"{name} {before} -> {value}"]


def _step(change: str, inner: Any, key: str | int) -> Any:
    if isinstance(key, int):
        return inner[key]
    if not isinstance(inner, dict):
        raise _without_keys([key], change)
    return inner.setdefault(key, {})


def _without_keys(place: Sequence[str | int], change: str) -> UsageError:
    name = ".".join(map(str, place))
    return UsageError(
        f"{name} has no keys of its own", where=f"--set {change}", remedy="change it as a whole, as clips.size=[24,24]"
    )
