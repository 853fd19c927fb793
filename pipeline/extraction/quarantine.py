"""Refused videos as people read them: by reason, most frequent first, a few of each with the command that shows it."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping

from rich.text import Text

from pipeline.terminal import in_line, marked

SHOWN = 5  # of each reason; a data set of thousands has hundreds that fail alike


def by_reason(reasons: Mapping[str, str]) -> list[tuple[str, list[str]]]:
    """Video id -> reason, as (reason, ids): reasons that differ only in numbers are one, with N for each number."""
    alike: dict[str, list[str]] = defaultdict(list)
    for video_id in sorted(reasons):
        alike[re.sub(r"\d+(\.\d+)?", "N", reasons[video_id])].append(video_id)
    groups = sorted(alike.items(), key=lambda group: (-len(group[1]), group[0]))
    return [(reasons[ids[0]] if len(ids) == 1 else reason, ids) for reason, ids in groups]


def lines(reasons: Mapping[str, str], reproduce: Mapping[str, str]) -> Iterator[str | Text]:
    """Lines for a Terminal. reproduce: video id -> the command that shows the failure again, where it is to be told."""
    for reason, ids in by_reason(reasons):
        yield f"  {len(ids)} x {reason}"
        for video_id in ids[:SHOWN]:
            yield f"    {in_line(video_id)}" + (f": {reasons[video_id]}" if len(ids) > 1 else "")
            if video_id in reproduce:
                yield marked(f"      {reproduce[video_id]}", "dim")
        if len(ids) > SHOWN:
            yield f"    and {len(ids) - SHOWN} more; the store's folder quarantine has a file for each"
