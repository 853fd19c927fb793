"""Importers turn what a data set ships (folders, official lists) into a Manifest.

An importer is one module with `read(videos: Path, ...) -> Manifest` and one line here. What else `read` takes is what
can be set: `settings` of `data_manifests/<data set>.yaml`, and of these `split`, `lists` and `classes` on the command
line. `known` of that file says how many videos the whole set has, which people are told where theirs has not.
"""

from __future__ import annotations

import importlib
import inspect
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline import called, yaml_file
from pipeline.errors import UsageError, refuse_unknown
from pipeline.importers.inventory import Place
from pipeline.importers.matching import Known, differences
from pipeline.manifest import SPLITS, Manifest

IMPORTERS = {
    "coclr": "pipeline.importers.coclr",
    "folder": "pipeline.importers.folder",
    "hmdb51": "pipeline.importers.hmdb51",
    "huggingface": "pipeline.importers.huggingface",
    "kinetics": "pipeline.importers.kinetics",
    "mmaction": "pipeline.importers.mmaction",
    "table": "pipeline.importers.table",
    "ucf101": "pipeline.importers.ucf101",
}
DATASETS = Path(__file__).resolve().parents[2] / "data_manifests"
PATHS = ("lists", "classes")  # in a YAML file they are relative to it


def read(
    dataset: str, videos: Place, *, split: int | None = None, lists: Path | None = None, classes: Path | None = None
) -> Manifest:
    """The Manifest of a data set below the folder `videos`, or of its frames.

    dataset: a name in `data_manifests/` or the path of a YAML file like those. split: which of the official splits.
    lists: where the official lists are. classes: a class list. None leaves a setting as the data set's file has it.
    Raises Refusal (folder or lists missing, nothing found) and UsageError (no such data set, or it takes no such
    setting).
    """
    description = describe(dataset)
    module = importlib.import_module(IMPORTERS[description["importer"]])
    taken = list(inspect.signature(module.read).parameters)[1:]
    settings = _settings(description, taken)
    for name, value in {"split": split, "lists": lists, "classes": classes}.items():
        if value is None:
            continue
        if name not in taken:
            raise UsageError(
                f'data set "{dataset}" takes no --{name}',
                where=f"importer {description['importer']}",
                remedy=f"leave it out, or choose another data set as {called.option('dataset')};"
                f" known: {', '.join(names())}",
            )
        settings[name] = value
    known, manifest = _known(description), module.read(videos, **settings)
    return replace(manifest, notes=(*manifest.notes, *differences(manifest.rows, known))) if known else manifest


def listed(
    dataset: str,
    videos: Place,
    *,
    split: int | None = None,
    lists: Path | None = None,
    classes: Path | None = None,
    manifest: Path | None = None,
) -> Manifest:
    """The manifest that was given, or else as `read`. Raises UsageError where both were, and what the two raise."""
    if manifest is None:
        return read(dataset, videos, split=split, lists=lists, classes=classes)
    if (split, lists, classes) != (None, None, None):
        raise UsageError(
            "a manifest says already what split, lists and classes would",
            where=str(manifest),
            remedy="leave them out, or the manifest",
        )
    return Manifest.load(manifest)


def names() -> list[str]:
    """The data sets in `data_manifests/`."""
    return sorted(file.stem for file in DATASETS.glob("*.yaml"))


def describe(dataset: str) -> dict[str, Any]:
    """The YAML description of a data set: title, importer, settings."""
    path = Path(dataset) if dataset.endswith((".yaml", ".yml")) else DATASETS / f"{dataset}.yaml"
    if not path.is_file():
        refuse_unknown("data set", dataset, names(), where=str(path))
    try:
        description = yaml_file.read(path)
    except ValueError as error:
        raise UsageError(f"it cannot be read: {error}", where=str(path), remedy="it is a YAML file") from error
    importer = description.get("importer") if isinstance(description, dict) else None
    if not isinstance(importer, str) or importer not in IMPORTERS:
        raise UsageError(
            "it does not name an importer", where=str(path), remedy=f"importer: one of {', '.join(IMPORTERS)}"
        )
    return {**description, "file": path}


def _known(description: dict[str, Any]) -> Known | None:
    """What the file says of the whole data set: its `classes` (0: it has no labels) and videos by split."""
    told = description.get("known")
    if told is None:
        return None
    where, counts = f"{description['file']}, known", told if isinstance(told, dict) else {"known": told}
    for name, value in counts.items():
        if name not in ("name", "classes", *SPLITS[:-1]):
            refuse_unknown("count", name, ["name", "classes", *SPLITS[:-1]], where=where)
        if type(value) is not (str if name == "name" else int):
            raise UsageError(
                f"{name} {value!r} is no {'text' if name == 'name' else 'number'}",
                where=where,
                remedy="correct it, or leave it out",
            )
    splits = {name: counts[name] for name in SPLITS if name in counts}
    return Known(counts.get("name", description.get("title", "The data set")), counts.get("classes", 0), splits)


def _settings(description: dict[str, Any], taken: list[str]) -> dict[str, Any]:
    """The settings of a description, checked by name; its paths start at its own folder."""
    settings, file = description.get("settings") or {}, description["file"]
    if not isinstance(settings, dict):
        raise UsageError("`settings` is not a mapping", where=str(file), remedy="write each as `name: value`")
    for name in settings:
        if name not in taken:
            refuse_unknown("setting", name, taken, where=f"{file}, settings")
        if type(settings[name]) is not (int if name == "split" else str):
            raise UsageError(
                f"{name} {settings[name]!r} is not {'a number' if name == 'split' else 'text'}",
                where=f"{file}, settings",
                remedy="correct it, or leave it out",
            )
    return {name: file.parent / value if name in PATHS else value for name, value in settings.items()}
