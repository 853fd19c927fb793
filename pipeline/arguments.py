"""What the values of options may be, for every command of the three packages; `console` checks them before a command
runs.

A parameter says it by its annotation, `workers: CountOrAll = 0`; so do the fields of settings that are options.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import stat
import types
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from fsspec import available_protocols

from pipeline.errors import Refusal, UsageError
from pipeline.storage import is_local, location

LARGEST_COUNT = 10**6  # of videos, threads or steps that one command is asked for
LONGEST_PATH, LONGEST_NAME = 4095, 255  # bytes, as Linux has it
LARGEST_SEED = 2**32 - 1  # of NumPy's global random state
READ_ONLY = ("http", "https", "data", "blockcache", "filecache", "simplecache")  # what fsspec can at best read


class Wrong(Exception):
    """What is wrong with a value, and what to do."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what, remedy)
        self.what, self.remedy = what, remedy


@dataclasses.dataclass(frozen=True)
class Rule:
    """Stands beside a type in an annotation. (Of pydantic's own rules, jsonargparse would tell in pydantic's words.)"""

    check: Callable[[Any], None]  # raises Wrong


class Repeated(Rule):
    """Of a list whose option is given once for each of its items."""


def within(least: float, most: float, note: str = "", *, or_zero: bool = False) -> Rule:
    """Of numbers; nan is never within. or_zero: 0 is, whatever the least; it stands for what `note` tells."""

    def check(value: float) -> None:
        if not (least <= value <= most or (or_zero and value == 0)):
            raise Wrong(f"{value} is out of range", f"{least:,} to {most:,}{f'; {note}' if note else ''}")

    return Rule(check)


def check(function: Callable[..., Any], options: dict[str, Any]) -> None:
    """Raises UsageError naming the first option whose value its annotation rules out, and where what is to be written
    is what is to be read."""
    hints = get_type_hints(function, include_extras=True)
    _check(hints, options, "--")
    read = [options[name] for name, hint in hints.items() if Input in (hint, *get_args(hint)) and options.get(name)]
    for name in [name for name, hint in hints.items() if hint in (OutputFile, OutputPlace) and options[name].exists()]:
        if any(options[name].samefile(given) for given in read if given.exists()):
            raise UsageError(f"{name} is what is read: {options[name]}", where=f"--{name}", remedy="give another path")


def check_fields(settings: Any, prefix: str) -> None:
    """The same for the fields of a dataclass; `prefix` is told before their names."""
    of_fields = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
    _check(_hints(type(settings)), of_fields, prefix)  # type: ignore[arg-type]  # mypy wants its objects hashable


@functools.cache
def _hints(settings: type) -> dict[str, Any]:
    return get_type_hints(settings, include_extras=True)


def _check(hints: dict[str, Any], values: dict[str, Any], prefix: str) -> None:
    for name, value in values.items():
        if dataclasses.is_dataclass(value):
            check_fields(value, f"{prefix}{name}.")
            continue
        try:
            _obey(hints[name], value)
        except Wrong as wrong:
            raise UsageError(f"{name} {wrong.what}", where=f"{prefix}{name}", remedy=wrong.remedy) from None
        except OSError as error:  # a path that the file system refuses to look at
            raise Refusal(error.strerror or str(error), where=f"{prefix}{name}", remedy="give another path") from None


def _obey(hint: Any, value: Any) -> None:
    """Every rule within a hint, also those of the items of lists."""
    kind, parts = get_origin(hint), get_args(hint)
    if kind is Annotated:
        _obey(parts[0], value)
        for rule in parts[1:]:
            rule.check(value)
    elif kind in (Union, types.UnionType):
        for part in parts:  # of `list[Name] | Name` the one that it is
            if value is not None and part is not type(None) and isinstance(value, list | tuple) is _is_several(part):
                _obey(part, value)
    elif kind in (list, tuple):
        for item in value:
            _obey(parts[0], item)
    elif kind is Literal and value not in parts:
        raise Wrong(f"{value!r} is unknown", f"one of {', '.join(map(str, parts))}")


def _is_several(hint: Any) -> bool:
    return get_origin(hint) in (list, tuple) or (get_origin(hint) is Annotated and _is_several(get_args(hint)[0]))


def path(value: str | os.PathLike[str]) -> Path:
    """For the parser: Path("") would be the current folder, and no later check could tell. Raises ValueError for what
    no path can be."""
    text = os.fspath(value)
    if said := _no_path(text):
        raise ValueError(f"the path {said}")
    return Path(text)


def _no_path(text: str) -> str:
    """Why no file system would take a path or a name; empty for what it would."""
    if not text:
        return "is empty"
    if "\0" in text:
        return "has a NUL in it"
    try:
        encoded = os.fsencode(text)
    except UnicodeEncodeError:
        return f"has letters that are none: {text[:40]!r}"
    if len(encoded) > LONGEST_PATH or max(map(len, encoded.split(b"/"))) > LONGEST_NAME:
        return f"is longer than any path: {text[:40]}..."
    return ""


def _check_name(value: str) -> None:
    if said := _no_path(value):
        raise Wrong(said, "give a name, or leave the option out")


def _check_text(value: str) -> None:
    if value:
        _check_name(value)


def _check_line(value: str) -> None:
    _check_text(value)
    if not value.isprintable():
        raise Wrong(f"is not one line of text: {value!r}", "write it in one line")


def _check_some(value: list[Any]) -> None:
    if not value:
        raise Wrong("is an empty list", "name what is meant, or leave the option out")


def _check_input(value: Path) -> None:
    if is_special(value):
        raise Wrong(f"is a device, a pipe or a socket: {value}", "give a file or a folder")


def is_special(path: Path) -> bool:
    """What no file is read from and nothing may be put in the place of: its bytes may never come, or never end."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


STORES_FILE = "zarr.json"  # of a store, and of each video in it


def _check_output_file(value: Path) -> None:
    if not value.name or value.is_dir():
        raise Wrong(f"is a folder, not a file: {value}", "give the file to write")
    _check_output(value)


def _check_output_folder(value: Path) -> None:
    _check_output(value)
    _check_outside(value / "file")
    if os.path.lexists(value) and not value.is_dir():
        raise Wrong(f"is a file, not a folder: {value}", "give a folder, or a path where nothing is yet")


def _check_output(value: Path) -> None:
    protocol, colon, _ = os.fspath(value).partition(":/")  # a Path makes one of two slashes
    if colon and protocol in available_protocols():
        raise Wrong(f"is no path of this machine: {value}", "give a path, and copy what is written from there")
    if is_special(value):
        raise Wrong(f"is a device, a pipe or a socket: {value}", "give another path")
    _check_outside(value)


def _check_outside(value: Path) -> None:
    """What lies in a store is its own: another file there would be taken for a video's, or swept away."""
    for folder in value.absolute().resolve().parents:
        if (folder / STORES_FILE).is_file():
            raise Wrong(f"lies inside the store {folder}: {value}", "give a path outside of it")


def _check_store(value: str) -> None:
    if said := _no_path(value):
        raise Wrong(said, "give the store's folder, or its URL")
    if "://" in value and not value.partition("://")[2].strip("/"):
        raise Wrong(f"names no place: {value}", "give the whole URL")
    try:
        place = location(value)
    except UsageError as error:
        raise Wrong(f"cannot be used: {error.what}", error.remedy) from error
    if is_local(place):
        _check_output(place)
    elif place.protocol in READ_ONLY:  # type: ignore[attr-defined]
        raise Wrong(f"cannot lie at {place.protocol}://", "give a folder, or an object store")  # type: ignore[attr-defined]


def _check_store_if_any(value: str) -> None:
    if value:
        _check_store(value)


Positive = Annotated[int, within(1, LARGEST_COUNT)]
Number = Annotated[int, within(0, LARGEST_COUNT)]
CountOrAll = Annotated[int, within(0, 4096, "0 takes what is there")]
Cores = Annotated[int, within(1, 4096)]
Seed = Annotated[int, within(0, LARGEST_SEED)]
Bound = Annotated[float, within(0.01, 10_000)]  # of flow, in pixels
Seconds = Annotated[float, within(0, 10**7, "0 waits for ever")]
Share = Annotated[float, within(0, 0.99)]
Pixels = Annotated[float, within(0, 10**6, "0 measures it")]
Text = Annotated[str, Rule(_check_text)]  # empty for the default
Line = Annotated[str, Rule(_check_line)]  # that stands in a line of its own, such as an option in a job's script
Name = Annotated[str, Rule(_check_name)]
Names = Annotated[list[Name], Rule(_check_some)]
Changes = Annotated[list[Name], Repeated(_check_some)]
Weights = Annotated[list[Annotated[float, within(0, 10**6)]], Rule(_check_some)]
Similarity = Annotated[float, within(-1, 1)]
StorePlace = Annotated[str, Rule(_check_store)]
StorePlaceOrNone = Annotated[str, Rule(_check_store_if_any)]
Input = Annotated[Path, Rule(_check_input)]
Inputs = Annotated[list[Input], Rule(_check_some)]
OutputFile = Annotated[Path, Rule(_check_output_file)]
OutputFolder = Annotated[Path, Rule(_check_output_folder)]
OutputPlace = Annotated[Path, Rule(_check_output)]  # a file or a folder, as its ending says
