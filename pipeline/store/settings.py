"""Extraction settings: part of the store, told apart by their hash."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Collection, Container
from dataclasses import dataclass
from typing import Any

from pipeline import validation
from pipeline.errors import UsageError
from pipeline.video.decode import DecodeSettings
from pipeline.views import VIEWS, Extractor, ViewSettings


@dataclass(frozen=True)
class ExtractionSettings:
    """What is stored of every video: which frames, and the settings of each view by its name."""

    views: dict[str, ViewSettings]
    decode: DecodeSettings = DecodeSettings()

    def resolved(self) -> ExtractionSettings:
        """With every choice spelled out (which estimator, all its parameters) and checked. Raises UsageError."""
        if not self.views:
            raise UsageError("no view is to be stored", remedy=f"views are {', '.join(VIEWS)}")
        views = {name: settings.resolved() for name, settings in self.views.items()}
        return ExtractionSettings(views, self.decode.resolved())

    @property
    def exact_sizes(self) -> list[tuple[int, int]]:
        """Heights and widths that views have whatever the video's."""
        return [size for settings in self.views.values() if (size := getattr(settings, "size", None))]

    def extractors(self, video_id: str) -> list[Extractor]:
        """What makes the views, fresh for one video."""
        return [VIEWS[name].extractor(settings, video_id) for name, settings in self.views.items()]

    def only(self, names: Container[str]) -> ExtractionSettings:
        """Of these views alone."""
        return ExtractionSettings({name: view for name, view in self.views.items() if name in names}, self.decode)

    def beside(self, stored: dict[str, Any]) -> ExtractionSettings:
        """Together with the views of a store that these do not name, as it has them."""
        others = {name: group for name, group in stored.items() if name not in self.views}
        views = {**self.from_dict(others).views, **self.views}
        return ExtractionSettings({name: views[name] for name in VIEWS if name in views}, self.decode)

    def continuing(self, stored: dict[str, Any], given: Collection[str]) -> ExtractionSettings:
        """What is asked of a store of these settings: they stand where nothing else was `given`, by names of options as
        "rgb.short_side". Of a view that the store lacks all is as asked, and so where it was brought."""
        like = self.from_dict(stored)

        def fields(name: str) -> list[str]:
            return [key.partition(".")[2] for key in given if key.startswith(f"{name}.")]

        views = {
            name: VIEWS[name].continued(asked, like.views[name], fields(name))
            if name in like.views and type(like.views[name]) is type(asked)
            else asked
            for name, asked in self.views.items()
        }
        decode = dataclasses.replace(like.decode, **{name: getattr(self.decode, name) for name in fields("decode")})
        return ExtractionSettings(views, decode)

    def prepare(self) -> None:
        """Do what the workers of this machine would wait for before their first video and can be done once for all."""
        for name, settings in self.views.items():
            VIEWS[name].prepare(settings)

    def try_out(self) -> None:
        """Compute a little of each view in this process. Raises Refusal where one cannot be computed at all."""
        for name, settings in self.views.items():
            VIEWS[name].try_out(settings)

    @property
    def on_gpu(self) -> bool:
        """Whether a view is computed on a GPU here."""
        return any(VIEWS[name].on_gpu(settings) for name, settings in self.views.items())

    def as_dict(self, running: bool = False) -> dict[str, Any]:
        """As it is stored: plain JSON, one group per view and, where it differs from its defaults, the group `decode`.

        running: with what the store does not depend on and a worker must know, `FlowSettings.running`.
        """
        # Stores that are older than these choices lack them. Leaving out what is not asked for (None in a view, the
        # default in `decode`) gives such stores the same settings and the same hash now as when they were made.
        groups = {name: _plain(settings) for name, settings in self.views.items()}
        if not running:
            for group in groups.values():
                group.pop("running", None)
        default = dataclasses.asdict(DecodeSettings())
        chosen = {key: value for key, value in _plain(self.decode).items() if value != default[key]}
        return {**groups, **({"decode": chosen} if chosen else {})}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ExtractionSettings:
        """What `as_dict` gave. Raises ValueError, naming the group and the key, where that cannot be meant."""
        if not isinstance(data, dict) or not all(isinstance(group, dict) for group in data.values()):
            raise ValueError("settings of views are a mapping of mappings")
        if unknown := data.keys() - {*VIEWS, "decode"}:
            raise ValueError(f"{min(map(str, unknown))}: there is no such view")
        views = {name: _checked(name, VIEWS[name].stored_settings, data[name]) for name in data if name != "decode"}
        return cls(views, _checked("decode", lambda group: DecodeSettings(**group), data.get("decode", {})))


def _checked(name: str, read: Callable[[dict[str, Any]], Any], group: dict[str, Any]) -> Any:
    try:
        settings = read(_tuples(group))
        validation.check_dataclass(settings)
        settings.check()
    except (TypeError, ValueError, UsageError) as error:  # TypeError: of a key that is not known
        raise ValueError(f"{name}: {error.what if isinstance(error, UsageError) else error}") from error
    return settings


def _plain(settings: Any) -> dict[str, Any]:
    fields = dataclasses.asdict(settings).items()
    return {key: list(value) if isinstance(value, tuple) else value for key, value in fields if value is not None}


def _tuples(group: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in group.items()}


def settings_hash(settings: dict[str, Any]) -> str:
    """Hash of settings as stored: the same settings, the same hash, whatever the order of the keys.

    A video's record has that of its own views alone, so that it stays right when the store gets another view.
    """
    canonical = json.dumps(settings, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def differences(stored: dict[str, Any], asked: dict[str, Any], prefix: str = "") -> list[str]:
    """What differs, by field: ["flow.bound: stored 20.0, asked 15.0", "stages.1.steps: stored 8, asked 9", ...]."""
    found = []
    for key in sorted(stored.keys() | asked.keys()):
        one, two = _numbered(stored.get(key)), _numbered(asked.get(key))
        if isinstance(one, dict) and isinstance(two, dict):
            found += differences(one, two, f"{prefix}{key}.")
        elif _brief(one) != _brief(two):  # as text, which the hash is made of: 20 is not 20.0 there
            found.append(f"{prefix}{key}: stored {_brief(one)}, asked {_brief(two)}")
    return found


def _numbered(value: Any) -> Any:
    """A list of mappings as a mapping by their places."""
    listed = isinstance(value, list) and value and all(isinstance(item, dict) for item in value)
    return {str(place): item for place, item in enumerate(value)} if listed else value


def _brief(value: Any) -> str:
    return "nothing" if value is None else json.dumps(value)
