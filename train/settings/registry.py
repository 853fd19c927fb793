"""Things chosen by name in a recipe: refused by name when unknown, imported only when asked for."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Collection, Mapping
from typing import Any

from pydantic import create_model

from pipeline.errors import UsageError, refuse_unknown
from train.settings import Settings, read


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

    def check(self, name: str, settings: Mapping[str, Any] = {}, given: Collection[str] = ()) -> dict[str, Any]:
        """All settings of the class called `name`, defaults included, of which nothing is made.

        given: arguments of the class that are no settings.

        Raises:
            UsageError: unknown name or setting, a missing one, or one of another type or range than the class
                annotates.
        """
        found = self.find(name)
        fields = {
            argument.name: (argument.annotation, ... if argument.default is argument.empty else argument.default)
            for argument in inspect.signature(found, eval_str=True).parameters.values()
            if argument.name not in given
        }
        model: type[Settings] = create_model(name, __base__=Settings, **fields)  # type: ignore[call-overload]
        return read(model, dict(settings), f'{self.kind} "{name}"').as_dict()

    def create(self, name: str, **settings: Any) -> Any:
        """An instance of the class called `name`.

        Raises:
            UsageError: unknown name or setting, or a setting without default that is missing.
        """
        found = self.find(name)
        parameters = inspect.signature(found).parameters
        for setting in settings:
            if setting not in parameters:
                refuse_unknown("setting", setting, parameters, where=f'{self.kind} "{name}"')
        required = [p.name for p in parameters.values() if p.default is p.empty and p.name not in settings]
        if required:
            raise UsageError(f"missing setting: {', '.join(required)}", where=f'{self.kind} "{name}"', remedy="add it")
        return found(**settings)
