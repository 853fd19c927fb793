"""Self-contained HTML pages: how their templates are read."""

from __future__ import annotations

import functools
from typing import Any

import jinja2
import markupsafe

from pipeline import called
from pipeline.terminal import visible


@functools.cache
def environment(package: str) -> jinja2.Environment:
    """The templates of a package; every name that one uses must be given, and text is escaped, also what would
    steer the page as a terminal."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader(package),
        autoescape=True,
        finalize=_shown,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals["command"] = called.command
    made.filters["e"] = made.filters["escape"] = lambda value: markupsafe.escape(_shown(value))
    return made


def _shown(value: Any) -> Any:
    return visible(value) if type(value) is str else value  # and not what is escaped already
