"""YAML files that people write: data sets, recipes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from pipeline import storage


def read(path: Path, loader: type[yaml.SafeLoader] = yaml.SafeLoader) -> Any:
    """What the file holds. Raises ValueError, which says why, for whatever cannot be read."""
    try:
        return yaml.load(storage.read_regular(path, storage.LARGEST_RECORD).decode(), Loader=loader)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    # PyYAML's own, of `!!bool perhaps`, `!!timestamp x`, `!!int ""` and the like, are told as they come.
    except (OSError, yaml.YAMLError, LookupError, AttributeError, TypeError) as error:
        raise ValueError(str(error) or type(error).__name__) from error
