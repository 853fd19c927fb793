"""How every command of the three packages is run: jsonargparse in front, Refusal and exit codes behind."""

from __future__ import annotations

import argparse
import inspect
import signal
import sys
import textwrap
from collections.abc import Callable, Mapping
from typing import Any, get_type_hints

import docstring_parser
import jsonargparse

from pipeline.errors import Interrupted, Refusal


def main(commands: Mapping[str, Callable[..., int | None]], description: str, program: str) -> int:
    """Parse the command line, run the chosen command, return its exit code.

    `commands` maps subcommand names to functions; their signatures and docstrings are the options and the help, and
    positional-only parameters are given by their place. A command returns an exit code, or None for 0. A Refusal is
    printed without a traceback.
    """
    parser = jsonargparse.ArgumentParser(prog=program, description=description, formatter_class=_HelpFormatter)
    subcommands = parser.add_subcommands(required=True, dest="command")
    for name, function in commands.items():
        described = docstring_parser.parse(function.__doc__ or "")
        sub = jsonargparse.ArgumentParser(description=_paragraphs(described))
        _add_arguments(sub, function, {p.arg_name: p.description or "" for p in described.params})
        subcommands.add_subcommand(name, sub, help=described.short_description)
    chosen = parser.parse_args()
    try:
        options = parser.instantiate(chosen)[chosen.command].as_dict()
        options.pop("config", None)
        by_place = [options.pop(parameter.name) for parameter in _by_place(commands[chosen.command])]
        return commands[chosen.command](*by_place, **options) or 0
    except Refusal as refusal:
        print(f"{program} {chosen.command}: {refusal}", file=sys.stderr)
        return refusal.exit_code
    except KeyboardInterrupt as interrupt:
        told = interrupt if isinstance(interrupt, Interrupted) else Interrupted(signal.SIGINT)
        print(f"{program} {chosen.command}: {told}", file=sys.stderr)
        return told.exit_code


class _HelpFormatter(argparse.RawDescriptionHelpFormatter, jsonargparse.DefaultHelpFormatter):
    """Keeps the paragraphs of a description."""


def _paragraphs(described: docstring_parser.Docstring) -> str:
    """All of a docstring that stands before `Args`."""
    text = f"{described.short_description or ''}\n\n{described.long_description or ''}"
    return "\n\n".join(textwrap.fill(" ".join(paragraph.split()), 78) for paragraph in text.split("\n\n")).strip()


def _by_place(function: Callable) -> list[inspect.Parameter]:
    return [p for p in inspect.signature(function).parameters.values() if p.kind is p.POSITIONAL_ONLY]


def _add_arguments(parser: jsonargparse.ArgumentParser, function: Callable, described: Mapping[str, str]) -> None:
    """jsonargparse would give a place to every option without a default, and no default to what has a place."""
    by_place, types = _by_place(function), get_type_hints(function)
    for parameter in by_place:
        optional: dict[str, Any] = {}
        if parameter.default is not parameter.empty:
            optional = {"nargs": "?", "default": parameter.default}
        parser.add_argument(parameter.name, type=types[parameter.name], help=described[parameter.name], **optional)
    parser.add_function_arguments(function, as_group=False, skip={parameter.name for parameter in by_place})
