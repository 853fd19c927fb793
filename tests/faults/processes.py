"""Extractions in processes of their own, to be killed."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from pipeline.settings import ExtractionSettings
from pipeline.views.flow import FlowSettings
from pipeline.views.rgb import RgbSettings

PATIENCE = 90.0  # seconds; reached only when something is wrong
OPTIONS = ["--rgb.quality", "90", "--flow.estimator", "dis"]
SETTINGS = ExtractionSettings({"rgb": RgbSettings(quality=90), "flow": FlowSettings(estimator="dis")}).resolved()


def wait_for(condition: Callable[[], object], what: str) -> None:
    """Return as soon as the condition holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.01)


def running(pid: int) -> bool:
    """Whether a process runs; one that ended and was not yet collected by its parent does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def descendants(pid: int) -> set[int]:
    """Every process below one, as far down as it goes."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
    found: set[int] = set()
    fresh = {pid}
    while fresh:
        fresh = {child for child, parent in parents.items() if parent in fresh} - found
        found |= fresh
    return found


class Extraction:
    """`python -m pipeline extract` as a process, with the gate in its workers."""

    def __init__(
        self, videos: Path, store: Path, gate: Path, workers: int = 2, time_limit: float = 0, **environment: str
    ) -> None:
        preload = json.dumps([str(Path(__file__).with_name("gate.py"))])
        variables = {
            "GATE": str(gate),
            "PYTHONFAULTHANDLER": "1",
            "DASK_DISTRIBUTED__WORKER__PRELOAD": preload,
            **environment,
        }
        command = [sys.executable, "-m", "pipeline", "extract", "--videos", videos, "--store", store]
        self.gate = gate
        self.process = subprocess.Popen(
            [*command, "--workers", str(workers), "--time_limit", str(time_limit), *OPTIONS],
            env={**os.environ, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # Shells let what they start in the background ignore Ctrl-C; these processes must not, wherever the tests run.
            preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        )

    def held(self) -> int:
        """The worker that waits at the gate, as soon as there is one."""
        wait_for(lambda: list(self.gate.glob("held.*")) or self.process.poll() is not None, "a worker at the gate")
        assert self.process.poll() is None, self.end()
        (file,) = self.gate.glob("held.*")
        return int(file.suffix[1:])

    def open_gate(self) -> None:
        (self.gate / "open").touch()

    def end(self) -> tuple[int, str, str]:
        """Exit code, output and errors, once it has ended."""
        try:
            out, err = self.process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired as error:
            self.process.send_signal(signal.SIGABRT)  # which prints where every thread is
            _, err = self.process.communicate()
            raise AssertionError(f"the run did not end in {PATIENCE:g} s; it was here:\n{err}") from error
        return self.process.returncode, out, err
