"""Which frames of which videos a sample's clips show, as pure functions: samplings of the papers, by name.

A sampling is one module here and one line in SAMPLINGS: a class of settings, which are the keys below a recipe's
`sampling`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import PlainValidator, SerializeAsAny

from pipeline.errors import UsageError
from train.sampling.sampling import Sample, Sampling
from train.settings import cannot_be, read
from train.settings.registry import Registry

__all__ = ["SAMPLINGS", "AnySampling", "Sample", "Sampling", "chosen"]

SAMPLINGS = Registry(
    "sampling",
    {
        "random": "train.sampling.random:Random",
        "multiscale": "train.sampling.multiscale:Multiscale",
        "cluster": "train.sampling.cluster:Cluster",
        "blocks": "train.sampling.blocks:Blocks",
    },
)


def chosen(data: Mapping[str, Any], where: str = "") -> Sampling:
    """A sampling from what YAML or a checkpoint holds: its settings and, if it is not random, its name.

    Raises UsageError for a name, key or value that cannot be meant.
    """
    return read(SAMPLINGS.find(str(data.get("name", "random"))), data, where)


def _read(given: Any) -> Sampling:
    if isinstance(given, Sampling):
        return given
    if not isinstance(given, Mapping):
        raise cannot_be(f"{given!r} is not a mapping", "a sampling's name and settings")
    try:
        return chosen(given)
    except UsageError as error:
        raise cannot_be(error.what, error.remedy, error.where) from error


AnySampling = Annotated[SerializeAsAny[Sampling], PlainValidator(_read)]  # of the settings that have one
