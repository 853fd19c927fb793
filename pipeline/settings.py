"""Extraction settings: part of the store, told apart by their hash."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any

from pipeline.errors import UsageError
from pipeline.views import VIEWS, View, ViewSettings, stored_settings


@dataclass(frozen=True)
class ExtractionSettings:
    """What is stored of every video: the settings of each view by its name. `rgb` is always among them."""

    views: dict[str, ViewSettings]

    def resolved(self) -> ExtractionSettings:
        """With every choice spelled out (which estimator, all its parameters) and checked. Raises UsageError."""
        if "rgb" not in self.views:
            raise UsageError("the view rgb is always stored", remedy=f"views are {', '.join(VIEWS)}")
        return ExtractionSettings({name: settings.resolved() for name, settings in self.views.items()})

    def create_views(self) -> list[View]:
        """The views, fresh for one video."""
        return [VIEWS[name](settings) for name, settings in self.views.items()]

    def as_dict(self) -> dict[str, Any]:
        return {name: dataclasses.asdict(settings) for name, settings in self.views.items()}  # type: ignore[call-overload]

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ExtractionSettings:
        return cls({name: stored_settings(name, settings) for name, settings in data.items()})


def settings_hash(settings: dict[str, Any]) -> str:
    """Hash of settings as stored: the same settings, the same hash, whatever the order of the keys."""
    canonical = json.dumps(settings, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def differences(stored: dict[str, Any], asked: dict[str, Any], prefix: str = "") -> list[str]:
    """Field by field, what differs: ["flow.bound: stored 20.0, asked 15.0", ...]."""
    found = []
    for key in sorted(stored.keys() | asked.keys()):
        one, two = stored.get(key), asked.get(key)
        if isinstance(one, dict) and isinstance(two, dict):
            found += differences(one, two, f"{prefix}{key}.")
        elif one != two:
            found.append(f"{prefix}{key}: stored {_brief(one)}, asked {_brief(two)}")
    return found


def _brief(value: Any) -> str:
    return "nothing" if value is None else json.dumps(value)
