"""YAML files that people write: data sets, recipes."""

from __future__ import annotations

import copy
import functools
from pathlib import Path
from typing import Any

import yaml

from pipeline import storage


class Loader(yaml.SafeLoader):
    """Refuses to merge several mappings into one (`<<: [*a, *b]`): few lines of it stand for more than fits into
    memory."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        merged = [value for key, value in node.value if key.tag == "tag:yaml.org,2002:merge"]
        if len(merged) > 1 or any(isinstance(value, yaml.SequenceNode) for value in merged):
            raise yaml.constructor.ConstructorError(
                problem="it merges several mappings into one", problem_mark=node.start_mark
            )
        super().flatten_mapping(node)


def read(path: Path, loader: type[Loader] = Loader) -> Any:
    """What the file holds. Raises ValueError, which says why, for whatever cannot be read."""
    try:
        text = storage.read_regular(path, storage.LARGEST_RECORD).decode()
        return copy.deepcopy(_parsed(text, loader))  # type: ignore[arg-type]  # mypy wants its objects hashable
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    # PyYAML's own, of `!!bool perhaps`, `!!timestamp x`, `!!int ""` and the like, are told as they come.
    except (OSError, yaml.YAMLError, LookupError, AttributeError, TypeError) as error:
        raise ValueError(str(error) or type(error).__name__) from error


@functools.lru_cache(maxsize=4)
def _parsed(text: str, loader: type[Loader]) -> Any:
    """A command asks for its run's recipe more than once; PyYAML takes a hundredth of a second for one."""
    return yaml.load(text, Loader=loader)
