"""Streams in words: what each shows, how several are called together, and in which order a page shows them."""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.views import VIEWS

TOGETHER = {2: "two-stream"}
ALL = "all streams"
FUSED = {"two-stream": "both streams together", ALL: "all streams together"}


def together(count: int) -> str:
    """The name of so many streams that are fused."""
    return TOGETHER.get(count, ALL)


def in_words(stream: str) -> str:
    """The title of the view that a stream is named after, or what fused ones are; another stream's own name."""
    return FUSED.get(stream) or (VIEWS[stream].title if stream in VIEWS else stream)


def in_order(streams: Iterable[str]) -> list[str]:
    """As pages show them: by name, fused ones last."""
    return sorted(set(streams), key=lambda stream: (stream in FUSED, stream))


def fused_in_order(streams: Iterable[str]) -> list[str]:
    """As they are named where they are fused: views in the order of VIEWS, then others by name."""
    known = list(VIEWS)
    return sorted(set(streams), key=lambda stream: (known.index(stream) if stream in known else len(known), stream))
