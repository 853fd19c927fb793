"""What is done next, as a command that can be typed as it stands."""

from __future__ import annotations

import os
import shlex
import sys

from pipeline.store import VideoStore


def following(command: str, **options: str) -> str:
    """A line that says so: by `costream`, where that was typed, as there may be no Makefile; else by make."""
    if os.path.basename(sys.argv[0]) == "costream":
        words = ["costream", command, *(word for name, value in options.items() for word in (f"--{name}", value))]
        return f"next: {shlex.join(words)}"
    target = {"extract": "extract-flow"}.get(command, command)
    return " ".join(["next: make", target, *(f"{name.upper()}={shlex.quote(it)}" for name, it in options.items())])


def after_store(store: VideoStore, method: str = "vicc", recipe: str = "small-real") -> str:
    """A store is trained on; where nothing is kept for a test, which training refuses, a split is drawn before."""
    place = str(store.root)
    if store.annotated.without_split():
        return following("annotate", store=place, test_share="0.2")
    return following("pretrain", method=method, recipe=recipe, store=place, run=f"runs/{store.root.name}")
