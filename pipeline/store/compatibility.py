"""What a store was made with: its settings, and the software whose major version decides its bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pipeline import environment, flow
from pipeline.errors import Refusal
from pipeline.store import layout
from pipeline.store.reading import VideoStore
from pipeline.store.settings import ExtractionSettings, differences, settings_hash

# Our own rules, arithmetic, and resizing, colour and JPEG: another version may store other bytes of the same file. What
# carries bytes and computes none is left out (python, zarr), and so is what only training uses.
ALWAYS = ("costream", "numpy", "opencv-contrib-python")
DECODER = ("av",)
IMPORTED = "imported"  # the estimator of flow that was brought


def root_record(settings: ExtractionSettings) -> bytes:
    """The zarr.json of a store that is made here and now."""
    plain = settings.as_dict()
    return _root(plain, settings_hash(plain), environment.versions())


def upgraded_root_record(store: VideoStore) -> bytes:
    """The zarr.json of a store of an earlier schema to which videos of this one are added."""
    return _root(store.settings, store.settings_hash, store.software)


def _root(settings: dict[str, Any], hashed: str, software: dict[str, str]) -> bytes:
    facts = {"schema": layout.SCHEMA, "settings": settings, "settings_hash": hashed, "software": software}
    return layout.group({layout.ATTRIBUTE: layout.seal(facts)})


def refuse_other(store: VideoStore, settings: ExtractionSettings) -> None:
    """Raises Refusal, field by field, where the store was made with other settings or another major version."""
    if found := disagreements(store, settings):
        raise Refusal(
            "the store was made with other settings or other software:\n    " + "\n    ".join(found),
            where=str(store.root),
            remedy="use what it was made with, or another STORE=; `--overwrite true` redoes the whole store;"
            " nothing was written",
        )


def disagreements(store: VideoStore, settings: ExtractionSettings) -> list[str]:
    """Field by field, why videos made here with these settings do not belong beside those of the store."""
    # A store whose frames are taken as they come has no group `decode`; an empty one names the fields that differ.
    found = differences({"decode": {}, **store.settings}, {"decode": {}, **settings.as_dict()})
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
    decoder = () if "imported" in settings["rgb"] else DECODER
    estimator = settings.get("flow", {}).get("estimator", IMPORTED)
    return (*ALWAYS, *decoder, *(() if estimator == IMPORTED else flow.software(estimator)))
