"""What each run did, video by video: times do not belong into records that are to be equal from run to run."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.job import Outcome


@dataclass
class Summary:
    """What a run did. `seconds` sums the workers' time by kind of work; `wall` is the run's own."""

    stored: int = 0
    skipped: int = 0
    frames: int = 0
    partial: dict[str, str] = field(default_factory=dict)  # of the stored ones: video id -> why its end is missing
    quarantined: dict[str, str] = field(default_factory=dict)
    in_quarantine: int = 0  # refused by earlier runs and left alone by this one
    seconds: dict[str, float] = field(default_factory=dict)
    wall: float = 0.0

    def count(self, outcome: Outcome) -> None:
        if outcome.status == "stored":
            self.stored += 1
            self.frames += outcome.frames
            if outcome.reason:
                self.partial[outcome.video_id] = outcome.reason
            for kind, spent in outcome.seconds.items():
                self.seconds[kind] = self.seconds.get(kind, 0.0) + spent
        else:
            self.quarantined[outcome.video_id] = outcome.reason


def journal(store: Path, outcome: Outcome) -> None:
    """Add a line for one video."""
    line = {"time": round(time.time(), 3), **vars(outcome)}
    with open(store / "journal.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(line, ensure_ascii=False) + "\n")
