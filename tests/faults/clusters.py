"""Dask schedulers and workers that somebody else started, and a SLURM that runs its jobs on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.faults.processes import wait_for

WITHOUT_COSTREAM = (
    "import sys; sys.modules['pipeline'] = None; from distributed.cli.dask_worker import main; sys.exit(main())"
)
SBATCH = """#!/bin/sh
cp "$1" "{folder}/job.$$"
setsid sh "{folder}/job.$$" > "{folder}/out.$$" 2>&1 &
echo "Submitted batch job $!"
"""
SCANCEL = """#!/bin/sh
kill -KILL -- "-$1"
echo "$1" >> "{folder}/cancelled"
"""


class RunningScheduler:
    """A `dask scheduler` and its workers, as processes; to be closed."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "scheduler.json"
        self.processes: list[subprocess.Popen] = []
        self.scheduler = self._start(
            *["-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0"],
            *["--dashboard-address", "127.0.0.1:0", "--scheduler-file", str(self.file)],
        )
        wait_for(lambda: self.file.exists() and self.file.read_text().endswith("}"), "the scheduler")
        self.address: str = json.loads(self.file.read_text())["address"]

    def add_worker(self, *options: str, costream: bool = True, **environment: str) -> subprocess.Popen:
        """A process with one worker; it takes a moment to get there."""
        program = ["-m", "distributed.cli.dask_worker"] if costream else ["-c", WITHOUT_COSTREAM]
        address = [self.address, "--host", "127.0.0.1", "--no-dashboard", "--no-nanny"]
        return self._start(*program, *address, *(options or ("--nthreads", "1")), **environment)

    def _start(self, *arguments: str, **environment: str) -> subprocess.Popen:
        self.processes.append(
            subprocess.Popen(
                [sys.executable, *arguments],
                env={**os.environ, **environment},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        )
        return self.processes[-1]

    def close(self) -> None:
        for process in reversed(self.processes):
            process.kill()
            process.wait()


def fake_slurm(folder: Path) -> None:
    """Write `sbatch` and `scancel` into the folder, which run jobs as local processes and keep their scripts."""
    folder.mkdir()
    for name, script in (("sbatch", SBATCH), ("scancel", SCANCEL)):
        (folder / name).write_text(script.format(folder=folder))
        (folder / name).chmod(0o755)
