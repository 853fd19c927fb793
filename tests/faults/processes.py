"""Extractions in processes of their own, to be killed."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from pipeline.store.settings import ExtractionSettings
from pipeline.views.flow import FlowSettings
from pipeline.views.rgb import RgbSettings
from tests.patience import PATIENCE

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
    return _state(pid) not in ("", "Z")


def asleep(pid: int) -> bool:
    """Whether a process has waited for something, and done nothing, all through a quarter of a second."""
    for _ in range(25):
        if _state(pid) != "S":
            return False
        time.sleep(0.01)
    return True


def _state(pid: int) -> str:
    """The letter of proc(5); nothing for a process that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


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
    """`python -m pipeline extract` as a process, with the gate in its workers. on_interrupt: what it does at SIGINT at
    first."""

    def __init__(
        self,
        videos: Path,
        store: Path,
        gate: Path,
        *options: str,
        workers: int = 2,
        time_limit: float = 0,
        on_interrupt: signal.Handlers = signal.SIG_DFL,
        **environment: str,
    ) -> None:
        preload = json.dumps([str(Path(__file__).with_name("gate.py"))])
        self.variables = {
            "GATE": str(gate),
            "PYTHONFAULTHANDLER": "1",
            "DASK_DISTRIBUTED__WORKER__PRELOAD": preload,
            **environment,
        }
        command = [sys.executable, "-m", "pipeline", "extract", "--videos", videos, "--store", store]
        self.gate = gate
        self.told = gate / f"told.{uuid.uuid4().hex}"  # a file, as it is read while the process runs
        with open(self.told, "w") as told:
            self.process = subprocess.Popen(
                [*command, "--workers", str(workers), "--time_limit", str(time_limit), *OPTIONS, *options],
                env={**os.environ, **self.variables},
                stdout=subprocess.PIPE,
                stderr=told,
                text=True,
                start_new_session=True,
                # Shells let what they start in the background ignore Ctrl-C; these processes must not, wherever the
                # tests run.
                preexec_fn=functools.partial(signal.signal, signal.SIGINT, on_interrupt),
            )

    def held(self) -> int:
        """The worker that waits at the gate, as soon as there is one."""
        self.wait_for(lambda: list(self.gate.glob("held.*")), "a worker at the gate")
        (file,) = self.gate.glob("held.*")
        return int(file.suffix[1:])

    def wait_for(self, condition: Callable[[], object], what: str) -> None:
        """As the function of that name; a process that ends is not waited for."""
        wait_for(lambda: condition() or self.process.poll() is not None, what)
        assert condition(), self.end()

    def wait_for_words(self, words: str) -> None:
        """Return as soon as it has said that among its errors."""
        self.wait_for(lambda: words in self.told.read_text(), f"the words {words!r}")

    def signal_all(self, number: signal.Signals) -> None:
        """As Ctrl-C and others do: to every process of its group."""
        os.killpg(self.process.pid, number)

    def open_gate(self) -> None:
        (self.gate / "open").touch()

    def end(self) -> tuple[int, str, str]:
        """Exit code, output and errors, once it has ended."""
        try:
            out, _ = self.process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired as error:
            self.process.send_signal(signal.SIGABRT)  # which prints where every thread is
            self.process.communicate()
            where = self.told.read_text()
            raise AssertionError(f"the run did not end in {PATIENCE:g} s; it was here:\n{where}") from error
        return self.process.returncode, out, self.told.read_text()
