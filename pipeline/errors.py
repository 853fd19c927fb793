"""The exceptions that people are meant to read, and how lists and numbers are told in them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import NoReturn


class Refusal(RuntimeError):
    """Work that was refused or given up: what is wrong, where, and what to do about it.

    Commands print it without a traceback and exit with `exit_code` (1 = failed, 2 = wrong usage).
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", remedy: str = "") -> None:
        super().__init__(what, where, remedy)
        self.what, self.where, self.remedy = what, where, remedy

    def __str__(self) -> str:
        lines = [self.what]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.remedy:
            lines.append(f"  to do: {self.remedy}")
        return "\n".join(lines)

    def __reduce__(self) -> tuple:
        # Exceptions with keyword arguments do not survive pickling between processes by themselves.
        return (_rebuild, (type(self), self.what, self.where, self.remedy))


class UsageError(Refusal):
    """A command line, recipe or settings file that cannot be meant."""

    exit_code = 2


class Interrupted(KeyboardInterrupt):
    """Work that a signal (SIGINT, as Ctrl-C sends it, or SIGTERM) ended; commands exit as shells tell it, 128 + its
    number."""

    def __init__(self, signal: int, what: str = "interrupted") -> None:
        super().__init__(signal, what)
        self.signal, self.exit_code, self.what = signal, 128 + signal, what

    def __str__(self) -> str:
        return f"{self.what}; run the same command again to go on"


def refuse_unknown(kind: str, name: object, known: Iterable[str], where: str = "") -> NoReturn:
    """Raises UsageError: there is no `kind` called `name`; names the nearest spelling and all known ones."""
    known = list(known)
    nearest = difflib.get_close_matches(str(name), known, n=1)
    meant = f'did you mean "{nearest[0]}"? ' if nearest else ""
    raise UsageError(f'unknown {kind} "{name}"', where=where, remedy=f"{meant}known: {', '.join(known)}")


def spelled_out(items: Sequence[str], most: int) -> str:
    """The first `most` items for a refusal, one a line below its first, and how many more there are."""
    more = [f"and {len(items) - most} more"] if len(items) > most else []
    return "".join(f"\n    {item}" for item in [*items[:most], *more])


def named(items: Sequence[str], most: int) -> str:
    """The same within a sentence."""
    return ", ".join(items[:most]) + (f", and {len(items) - most:,} more" if len(items) > most else "")


def counted(count: int, one: str, several: str = "") -> str:
    """How many of what there are, in words: 1 video, 2,000 videos; `several` where an s does not make it."""
    return f"{count:,} {one if count == 1 else several or one + 's'}"


def _rebuild(kind: type[Refusal], what: str, where: str, remedy: str) -> Refusal:
    return kind(what, where=where, remedy=remedy)
