"""Commands as pages and messages print them: what Python is run with for one, and whether our programs take that."""

from __future__ import annotations

import inspect
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from costream.__main__ import COMMANDS as BEHIND
from eval.__main__ import COMMANDS as EVAL
from pipeline.__main__ import COMMANDS as PIPELINE
from pipeline.commands import console
from tests.test_make import made
from train.__main__ import COMMANDS as TRAIN

COMMANDS: Mapping[str, Mapping[str, Callable[..., Any]]] = {"pipeline": PIPELINE, "train": TRAIN, "eval": EVAL}


def argv_of(line: str, there: Path) -> list[str]:
    """What Python is run with for a line, without `-m`; `there`: the folder of `tests.test_make.folder`."""
    words = shlex.split(line, comments=True)
    if words[0].endswith("python"):
        return words[2:]
    if words[0] == "costream":
        place = BEHIND[words[1]]
        return [place.package, place.name, *words[2:]]
    variables = dict(word.split("=", 1) for word in words[2:])
    return made(there, words[1], variables)[1:]


def understood(argv: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The command, its options and their types are there; it is not run."""
    package, asked, *_ = argv
    called: list[str] = []
    function = COMMANDS[package][asked]

    def stand_in(*given: Any, **options: Any) -> None:
        called.append(asked)

    stand_in.__doc__, stand_in.__signature__ = function.__doc__, inspect.signature(function)  # type: ignore[attr-defined]
    stand_in.__annotations__ = get_type_hints(function, include_extras=True)
    monkeypatch.setattr(sys, "argv", argv)
    assert console.main({asked: stand_in}, "", package) == 0, argv
    assert called == [asked]


def run(argv: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """The exit code of the command, run in this process."""
    package, asked, *_ = argv
    monkeypatch.setattr(sys, "argv", argv)
    return console.main({asked: COMMANDS[package][asked]}, "", package)
