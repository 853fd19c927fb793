"""What a store was made with: its settings, and the software whose major version decides its bytes."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from pipeline import called, environment
from pipeline.errors import Refusal
from pipeline.store import layout
from pipeline.store.reading import VideoStore
from pipeline.store.settings import ExtractionSettings, differences, settings_hash
from pipeline.views import VIEWS

# Our own rules, arithmetic, and resizing, colour and JPEG: another version may store other bytes of the same file. What
# carries bytes and computes none is left out (python, zarr), and so is what only training uses.
ALWAYS = ("costream", "numpy", "opencv-contrib-python")


def root_record(settings: ExtractionSettings) -> bytes:
    """The zarr.json of a store that is made here and now."""
    return _root(layout.SCHEMA, settings.as_dict(), environment.versions())


def upgraded_root_record(store: VideoStore) -> bytes:
    """The zarr.json of a store of an earlier schema to which videos of this one are added."""
    return _root(layout.SCHEMA, store.settings, store.software)


def grown_root_record(store: VideoStore, settings: ExtractionSettings) -> bytes:
    """The zarr.json of a store that gets the views of `settings` that it lacks; the others stay as they are."""
    new = {name: group for name, group in settings.as_dict().items() if name not in store.settings}
    here, before = environment.versions(), _deciding(store.settings)
    software = {name: here[name] for name in _deciding(new) if name in here and name not in before}
    return _root(store.schema, {**store.settings, **new}, {**store.software, **software})


def _root(schema: int, settings: dict[str, Any], software: dict[str, str]) -> bytes:
    facts = {"schema": schema, "settings": settings, "settings_hash": settings_hash(settings), "software": software}
    return layout.group({layout.ATTRIBUTE: layout.seal(facts)})


def refuse_other(store: VideoStore, settings: ExtractionSettings, add_views: bool = False) -> None:
    """Raises Refusal, field by field, where the store was made with other settings or another major version."""
    if found := disagreements(store, settings, add_views):
        raise Refusal(
            "the store was made with other settings or other software:\n    " + "\n    ".join(found),
            where=str(store.root),
            remedy=f"use what it was made with, or another {called.option('store')};"
            " `--overwrite true` redoes the whole store;"
            " nothing was written",
        )


def disagreements(store: VideoStore, settings: ExtractionSettings, add_views: bool = False) -> list[str]:
    """Field by field, why videos made here with these settings do not belong beside those of the store.

    add_views: views that the store lacks are no reason, as it gets them.
    """
    # A store whose frames are taken as they come has no group `decode`; an empty one names the fields that differ.
    stored, asked = {"decode": {}, **store.settings}, {"decode": {}, **settings.as_dict()}
    found = differences(stored, {name: group for name, group in asked.items() if name in stored or not add_views})
    return found + version_differences(store, _major)


def version_differences(store: VideoStore, part: Callable[[str], str] = str) -> list[str]:
    """Which of the software that decides bytes is here in another version; `part` is what is compared of a version."""
    found = []
    here = environment.versions()
    for name in _deciding(store.settings):
        stored, present = store.software.get(name), here.get(name)
        if stored and present and part(stored) != part(present):  # what was not recorded at the time tells nothing
            found.append(f"software.{name}: stored {stored}, here {present}")
    return found


def _major(version: str) -> str:
    return version.partition(".")[0]


def _deciding(settings: dict[str, Any]) -> tuple[str, ...]:
    views = (view.software(settings[name]) for name, view in VIEWS.items() if name in settings)
    return tuple(dict.fromkeys(itertools.chain(ALWAYS, *views)))
