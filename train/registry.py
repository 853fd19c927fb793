"""Things chosen by name in a recipe: refused by name when unknown, imported only when asked for."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

from pipeline.errors import UsageError, refuse_unknown


class Registry:
    """Maps names to classes given as "module:Class"; adding one is a new module and one line of `entries`."""

    def __init__(self, kind: str, entries: dict[str, str]) -> None:
        self.kind, self.entries = kind, entries

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.entries)

    def find(self, name: str) -> type:
        """The class called `name`.

        Raises:
            UsageError: unknown name, with the nearest spelling and the list of known ones.
        """
        if name not in self.entries:
            refuse_unknown(self.kind, name, self.names)
        module, _, attribute = self.entries[name].partition(":")
        return getattr(importlib.import_module(module), attribute)

    def create(self, name: str, **settings: Any) -> Any:
        """An instance of the class called `name`.

        Raises:
            UsageError: unknown name or setting, or a setting without default that is missing.
        """
        found = self.find(name)
        parameters = _parameters(found)
        for setting in settings:
            if setting not in parameters:
                refuse_unknown("setting", setting, parameters, where=f'{self.kind} "{name}"')
        required = [p.name for p in parameters.values() if p.default is p.empty and p.name not in settings]
        if required:
            raise UsageError(f"missing setting: {', '.join(required)}", where=f'{self.kind} "{name}"', remedy="add it")
        return found(**settings)


def _parameters(found: type) -> dict[str, inspect.Parameter]:
    """What a class is made with. One that passes `**settings` on takes what its parent takes, beside its own."""
    own = dict(inspect.signature(found).parameters)
    passed_on = [name for name, parameter in own.items() if parameter.kind is parameter.VAR_KEYWORD]
    if not passed_on:
        return own
    return {**_parameters(found.__mro__[1]), **{name: own[name] for name in own if name not in passed_on}}
