"""Workers that stand still: told, and ended from outside, for what stands still may not be able to end itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from pipeline.video.watchdog import READS, WRITES  # of a worker's metrics: `watchdog.longest_wait`

LATER = 1.2  # times its limit that a wait may take until a worker is ended that should have ended itself


@dataclass(frozen=True)
class Limits:
    """Seconds without a sign of life of a worker until that is told, and until the worker is ended."""

    told: float = 10.0
    ended: float = 60.0


class Found(NamedTuple):
    """A worker that stands still. says: what is to be told. ends: whether it is to be ended. writes: seconds that the
    store has not taken what it writes."""

    address: str
    says: str
    ends: bool
    writes: float


class Silence:
    """Notices workers that stand still. No clocks are compared: a sign of life is one that differs from the last.

    time_limit: seconds that a worker may wait for one frame, see `job.extract_video`, or for one write: flushing a disk
    takes longer than `Limits.ended` where others write to it, too; 0 is for ever.
    """

    def __init__(self, limits: Limits, time_limit: float, now: Callable[[], float] = time.monotonic) -> None:
        self.limits, self.time_limit, self.now = limits, time_limit, now
        self.heard: dict[str, tuple[float, float]] = {}  # address -> (its last sign of life, when it was new here)
        self.told: dict[str, bool] = {}  # address -> whether it was ended, too

    def of(self, workers: Mapping[str, Mapping[str, Any]]) -> list[Found]:
        """workers: as `Client.scheduler_info` has them, by address. What is new, each once."""
        signs = {address: worker["last_seen"] for address, worker in workers.items()}
        self.heard = {
            address: self.heard[address]
            if address in self.heard and self.heard[address][0] == sign
            else (sign, self.now())
            for address, sign in signs.items()
        }
        found = []
        for address, worker in workers.items():
            silent = self.now() - self.heard[address][1]
            waits, writes = (worker.get("metrics", {}).get(kind, 0.0) for kind in (READS, WRITES))
            over = self.time_limit > 0 and max(waits, writes) > self.time_limit * LATER + self.limits.told
            ends = silent > self.limits.ended or over
            if max(silent, waits, writes) <= self.limits.told:
                self.told.pop(address, None)
            elif address not in self.told or (ends and not self.told[address]):
                self.told[address] = ends
                says = self._says(worker["name"], address, silent, waits, writes, ends)
                found.append(Found(address, says, ends, writes))
        return found

    def _says(self, name: object, address: str, silent: float, waits: float, writes: float, ends: bool) -> str:
        if silent > self.limits.told:
            what = f"has said nothing for {silent:.0f} s: its process stands still, or a disk that it waits for"
            then = f"after {self.limits.ended:g} s it is ended and its video is done again"
        elif writes > waits:
            what = f"has waited {writes:.0f} s for the store to take what it writes"
            limit = f"after {self.time_limit * LATER + self.limits.told:g} s it is ended, and its video done again"
            then = limit if self.time_limit else "without a time limit it waits for ever"
        else:
            what = f"has waited {waits:.0f} s for the next frame of its video"
            limit = f"after {self.time_limit:g} s the video lands in quarantine"
            then = limit if self.time_limit else "without a time limit it waits for ever"
        return f"worker {name} ({address}) {what}; {'it is ended, and its video done again' if ends else then}"
