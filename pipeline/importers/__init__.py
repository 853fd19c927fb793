"""Importers turn what a data set ships (folders, official lists) into a Manifest.

An importer is one module with `read(videos: Path) -> Manifest` and one line here. `data_manifests/<data set>.yaml` names
the importer of each known data set.
"""

from __future__ import annotations

import importlib
from pathlib import Path

import yaml

from pipeline.errors import UsageError, refuse_unknown
from pipeline.manifest import Manifest

IMPORTERS = {"folder": "pipeline.importers.folder"}
DATASETS = Path(__file__).resolve().parents[2] / "data_manifests"


def read(dataset: str, videos: Path) -> Manifest:
    """The Manifest of a data set below the folder `videos`.

    dataset: a name in `data_manifests/` or the path of a YAML file like those. Raises Refusal (folder missing or empty)
    and UsageError (no such data set).
    """
    description = describe(dataset)
    module = importlib.import_module(IMPORTERS[description["importer"]])
    return module.read(videos, **description.get("settings", {}))


def describe(dataset: str) -> dict:
    """The YAML description of a data set: title, importer, settings."""
    path = Path(dataset) if dataset.endswith((".yaml", ".yml")) else DATASETS / f"{dataset}.yaml"
    if not path.is_file():
        refuse_unknown("data set", dataset, sorted(file.stem for file in DATASETS.glob("*.yaml")), where=str(path))
    description = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(description, dict) or description.get("importer") not in IMPORTERS:
        raise UsageError(
            "it does not name an importer", where=str(path), remedy=f"importer: one of {', '.join(IMPORTERS)}"
        )
    return description
