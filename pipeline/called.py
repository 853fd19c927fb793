"""What commands and options are called in messages: by make, as a clone has them, or by `costream`."""

from __future__ import annotations

import ast
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

MAKEFILE = Path(__file__).resolve().parents[1] / "Makefile"
TARGETS = {"extract": "extract-flow", "verify-run": "verify"}
VARIABLES = {"flow.estimator": "FLOW", "flow": "FLOWS", "videos of remove": "VIDEO"}
WITHOUT_VARIABLE = ("protocols",)
MODULE = "python -m pipeline "
BEHIND = {"probe": "probe-video"}  # commands of MODULE that `costream` has under another name
WITHOUT_TARGET = {"import": ".venv/bin/python -m train import"}


def command(name: str, /, **options: str | Sequence[str]) -> str:
    """A command of `costream`, with these options, as it is typed here.

    An option whose value is "" stands as what is to be filled in; one with several values is given with each.
    """
    if by_costream() or name in WITHOUT_TARGET:
        start = f"costream {name}" if by_costream() else WITHOUT_TARGET[name]
        each = (
            (name, one) for name, value in options.items() for one in ([value] if isinstance(value, str) else value)
        )
        return " ".join([start, *(f"--{name} {shlex.quote(one) if one else name.upper()}" for name, one in each)])
    told = [
        _to_make(name, option, value if isinstance(value, str) else " ".join(value))
        for option, value in options.items()
    ]
    return " ".join(["make", TARGETS.get(name, name), *told])


def option(name: str, value: str = "") -> str:
    """An option by itself, as in "give another STORE="."""
    if by_costream():
        return f"--{name} {shlex.quote(value)}" if value else f"--{name}"
    return _to_make("", name, value)


def variable(option: str, command: str = "") -> str:
    """What an option is to make."""
    return VARIABLES.get(f"{option} of {command}") or VARIABLES.get(option) or option.upper()


def of_module(line: str) -> str:
    """A line that begins with MODULE, which stores keep of what is in quarantine, as it is typed here."""
    if not by_costream() or not line.startswith(MODULE):
        return line
    name, *words = line.removeprefix(MODULE).split(" ", 1)
    return " ".join(["costream", BEHIND.get(name, name), *words])


def repair() -> str:
    """What goes before the way of repairing packages by hand."""
    return "" if by_costream() else "`make repair`, or: "


def in_source(call: ast.expr, unknown: str) -> str:
    """What source code that asks this module stands for, by make; `unknown` for what is known only then, and for all
    other code."""
    asked = {f"called.{function.__name__}": function for function in (command, option, repair)}
    if not isinstance(call, ast.Call) or ast.unparse(call.func) not in asked:
        return unknown
    constants = [str(node.value) if isinstance(node, ast.Constant) else unknown for node in call.args]
    named = {part.arg: part.value for part in call.keywords if part.arg}
    given = {name: str(node.value) if isinstance(node, ast.Constant) else unknown for name, node in named.items()}
    told: str = asked[ast.unparse(call.func)](*constants, **given)
    return told.replace(shlex.quote(unknown), unknown)


def by_costream() -> bool:
    """Whether `costream` was typed, or there is no Makefile, as beside an installed wheel."""
    program = Path(sys.argv[0])
    typed = program.parent.name if program.name == "__main__.py" else program.name
    return typed == "costream" or not MAKEFILE.is_file()


def _to_make(command: str, option: str, value: str) -> str:
    if option in WITHOUT_VARIABLE:
        option, value = "args", f"--{option} {value}"
    return f"{variable(option, command)}={shlex.quote(value) if value else ''}"
