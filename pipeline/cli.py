"""How every command of the three packages is run: jsonargparse in front, Refusal and exit codes behind."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping

import jsonargparse

from pipeline.errors import Refusal


def main(commands: Mapping[str, Callable[..., int | None]], description: str, program: str) -> int:
    """Parse the command line, run the chosen command, return its exit code.

    `commands` maps subcommand names to functions; their signatures and docstrings are the options and the help. A
    command returns an exit code, or None for 0. A Refusal is printed without a traceback.
    """
    parser = jsonargparse.ArgumentParser(prog=program, description=description)
    subcommands = parser.add_subcommands(required=True, dest="command")
    for name, function in commands.items():
        summary = (function.__doc__ or "").strip()
        sub = jsonargparse.ArgumentParser(description=summary.split("\n\n")[0])
        sub.add_function_arguments(function, as_group=False)
        subcommands.add_subcommand(name, sub, help=summary.split("\n")[0])
    chosen = parser.parse_args()
    try:
        options = parser.instantiate(chosen)[chosen.command].as_dict()
        options.pop("config", None)
        return commands[chosen.command](**options) or 0
    except Refusal as refusal:
        print(f"{program} {chosen.command}: {refusal}", file=sys.stderr)
        return refusal.exit_code
    except KeyboardInterrupt:
        print(f"{program} {chosen.command}: interrupted; run the same command again to go on", file=sys.stderr)
        return 130
