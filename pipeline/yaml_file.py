"""YAML files that people write: data sets, recipes."""

from __future__ import annotations

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
        return yaml.load(storage.read_regular(path, storage.LARGEST_RECORD).decode(), Loader=loader)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    # PyYAML's own, of `!!bool perhaps`, `!!timestamp x`, `!!int ""` and the like, are told as they come.
    except (OSError, yaml.YAMLError, LookupError, AttributeError, TypeError) as error:
        raise ValueError(str(error) or type(error).__name__) from error
