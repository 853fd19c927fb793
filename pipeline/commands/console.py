"""How every command of the three packages is run: jsonargparse in front, Refusal and exit codes behind."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import inspect
import itertools
import json
import signal
import sys
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_type_hints

import docstring_parser
import jsonargparse
import jsonargparse.typing
import yaml

from pipeline import arguments, storage
from pipeline.errors import Interrupted, Refusal
from pipeline.terminal import escape_unknown_letters, visible

REMEDY = "see whether it answers, has room and may be used by you; run the same command again"
TOLD_GIVEN = "told_given"  # attribute of a command that takes `given`, the names of the options in its line


def main(commands: Mapping[str, Callable[..., int | None]], description: str, program: str) -> int:
    """Parse the command line, run the chosen command, return its exit code.

    `commands` maps subcommand names to functions; their signatures and docstrings are the options and the help, and
    positional-only parameters are given by their place. A command returns an exit code, or None for 0. A Refusal is
    printed without a traceback.
    """
    words = sys.argv[1:]
    # Of a command that is called, all others need no more than their names.
    described = {name: commands[name] for name in words[:1] if name in commands} or commands
    parser = _parser(prog=program, description=description, formatter_class=_HelpFormatter)
    subcommands = parser.add_subcommands(required=True, dest="command")
    for name in commands:
        help, sub = _described(described[name]) if name in described else (None, _parser())
        subcommands.add_subcommand(name, sub, help=help)
    escape_unknown_letters()
    if endless := _endless_settings(described, words):
        parser.error(f"{endless} is a device, a pipe or a socket; settings are read from files")
    chosen = parser.parse_args()
    try:
        options = parser.instantiate(chosen)[chosen.command].as_dict()
        options.pop("config", None)
        arguments.check(commands[chosen.command], options)
        if hasattr(commands[chosen.command], TOLD_GIVEN):
            options["given"] = frozenset(parser.parse_args(defaults=False)[chosen.command].keys())
        by_place = [options.pop(parameter.name) for parameter in _by_place(commands[chosen.command])]
        return commands[chosen.command](*by_place, **options) or 0
    except Refusal as refusal:
        print(visible(f"{program} {chosen.command}: {refusal}"), file=sys.stderr)
        return refusal.exit_code
    except OSError as error:  # of a library, or of a look into a folder
        if error.errno not in storage.DISK_FAILURES:
            raise
        told = Refusal(f"a disk fails: {error.strerror}", where=str(error.filename or ""), remedy=REMEDY)
        print(visible(f"{program} {chosen.command}: {told}"), file=sys.stderr)
        return told.exit_code
    except KeyboardInterrupt as interrupt:
        ended = interrupt if isinstance(interrupt, Interrupted) else Interrupted(signal.SIGINT)
        print(visible(f"{program} {chosen.command}: {ended}"), file=sys.stderr)
        return ended.exit_code


def _described(function: Callable) -> tuple[str | None, jsonargparse.ArgumentParser]:
    """A line that says what a command does, and its parser."""
    told = docstring_parser.parse(function.__doc__ or "")
    parser = _parser(description=_paragraphs(told))
    _add_arguments(parser, function, {p.arg_name: p.description or "" for p in told.params})
    return told.short_description, parser


def _endless_settings(commands: Mapping[str, Callable], words: list[str]) -> str:
    """The option that names something to read settings from, whose bytes may never come or never end."""
    hints = [kind for function in commands.values() for kind in get_type_hints(function).items()]
    groups = {f"--{name}" for name, kind in hints if dataclasses.is_dataclass(kind)}
    for word, following in itertools.zip_longest(words, words[1:], fillvalue=""):
        name, equals, value = word.partition("=")
        with contextlib.suppress(OSError, ValueError):  # no path, but settings that are spelled out
            if name in groups and arguments.is_special(Path(value if equals else following)):
                return f"{name}: {value or following}"
    return ""


def _structured(text: str) -> Any:
    """The list or mapping that an option's value spells out; all else stays the text that was given.

    YAML would take `#a`, `~`, `&a` or `1e3` for something else than a name; numbers and truth values are read by the
    types of their options.
    """
    try:
        value = json.loads(text)
        if isinstance(value, list | dict) and _of_texts(
            value
        ):  # letters that YAML has not, and escapes of those beyond 16 bits, are JSON's
            return value
    except (ValueError, RecursionError):
        pass
    try:
        if any(map(_is_no_data, yaml.parse(text, Loader=yaml.BaseLoader))):
            return text
        value = yaml.load(text, Loader=yaml.BaseLoader)
    except (yaml.YAMLError, TypeError, RecursionError):  # TypeError: PyYAML's own, of a lone `?`
        return text
    return value if isinstance(value, list | dict) else text


def _is_no_data(event: yaml.Event) -> bool:
    """Whether it is YAML's own: `&a`, `*a` or `!a` begin names, too, and aliases stand for more than fits into
    memory."""
    return bool(getattr(event, "anchor", None) or getattr(event, "tag", None))


def _of_texts(value: Any) -> bool:
    """Whether nothing in a list or mapping is a number, a truth value or null."""
    if isinstance(value, dict | list):
        return all(map(_of_texts, value.values() if isinstance(value, dict) else value))
    return isinstance(value, str)


jsonargparse.set_loader("structured", _structured)
jsonargparse.typing.register_type(Path, str, arguments.path, type_check=lambda value, kind: isinstance(value, Path))


def _parser(**options: Any) -> jsonargparse.ArgumentParser:
    return jsonargparse.ArgumentParser(parser_mode="structured", **options)


class _HelpFormatter(argparse.RawDescriptionHelpFormatter, jsonargparse.DefaultHelpFormatter):
    """Keeps the paragraphs of a description."""


def _paragraphs(described: docstring_parser.Docstring) -> str:
    """All of a docstring that stands before `Args`."""
    text = f"{described.short_description or ''}\n\n{described.long_description or ''}"
    return "\n\n".join(textwrap.fill(" ".join(paragraph.split()), 78) for paragraph in text.split("\n\n")).strip()


def _by_place(function: Callable) -> list[inspect.Parameter]:
    return [p for p in inspect.signature(function).parameters.values() if p.kind is p.POSITIONAL_ONLY]


def _add_arguments(parser: jsonargparse.ArgumentParser, function: Callable, described: Mapping[str, str]) -> None:
    """jsonargparse would give a place to every option without a default, and no default to what has a place.

    Of a text or path that may be left out it would also take `null` for None.
    """
    types, own = get_type_hints(function), set[str | int]()
    annotated = get_type_hints(function, include_extras=True)
    for parameter in inspect.signature(function).parameters.values():
        name, text = parameter.name, _OPTIONAL_TEXT.get(types.get(parameter.name))
        place = parameter.kind is parameter.POSITIONAL_ONLY
        if annotated.get(name) == arguments.Changes | None:
            own.add(name)
            parser.add_argument(f"--{name}", action="append", type=str, metavar="KEY=VALUE", help=described.get(name))
        elif place or text:
            own.add(name)
            optional: dict[str, Any] = {} if parameter.default is parameter.empty else {"default": parameter.default}
            if place and optional:
                optional["nargs"] = "?"
            flag = name if place else f"--{name}"
            parser.add_argument(flag, type=text or types[name], help=described.get(name), **optional)
    parser.add_function_arguments(function, as_group=False, skip=own)


_OPTIONAL_TEXT: dict[Any, type] = {Path | None: Path, str | None: str}
