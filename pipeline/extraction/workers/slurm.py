"""Workers in jobs of a SLURM cluster, by dask-jobqueue; the only module that needs it."""

from __future__ import annotations

import contextlib
import math
import re
import shlex
import shutil
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from dask.utils import parse_bytes
from distributed import Status

from pipeline.arguments import Cores, Line
from pipeline.errors import Refusal, UsageError, refuse_unknown

LEAST_MEMORY, MOST_MEMORY = 2**26, 2**50  # bytes
WALLTIME = re.compile(r"\d{1,4}-\d{1,2}(:\d{2}){0,2}|\d{1,6}(:\d{2}){0,2}")  # as sbatch has it: days-hours, or minutes
# Of every worker that a run starts, on whatever machine.
WORKER_SETTINGS = {
    # Tasks return next to nothing, so there is nothing to spill, and a worker that pauses for memory may pause for
    # ever.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 0.95,
}


@dataclass(frozen=True)
class SlurmSettings:
    """Jobs of `--scheduler slurm`. As many are submitted as `--workers` need, each with `cores` workers.

    Args:
        queue: Partition (sbatch -p); empty takes the cluster's default.
        account: Account that is charged (sbatch -A).
        walltime: Time limit of a job, as 12:00:00. When it ends its jobs, repeat the command: what is stored stays.
        cores: Worker processes of one job, each on one core.
        memory: Of one worker; a job asks for `cores` times as much.
        directives: More options of sbatch, as [--constraint=avx2,--exclude=node7].
        setup: Lines of shell that a job runs before its workers, as [module load gcc].
        python: Python of the workers, with this version of costream; empty takes the one that runs this command.
        interface: Network interface of scheduler and workers, as ib0; empty takes the host's address.
        logs: Folder for the jobs' output, on a file system that they see; empty keeps sbatch's own.
    """

    queue: Line = ""
    account: Line = ""
    walltime: Line = "12:00:00"
    cores: Cores = 8
    memory: Line = "4GB"
    directives: tuple[Line, ...] = ()
    setup: tuple[Line, ...] = ()
    python: Line = ""
    interface: Line = ""
    logs: Line = ""

    def for_workers(self, workers: int) -> SlurmSettings:
        """With no more cores in a job than there are workers to be. Raises UsageError."""
        try:
            size = parse_bytes(self.memory)
        except ValueError:
            size = 0
        if not LEAST_MEMORY <= size <= MOST_MEMORY:
            raise UsageError(f"slurm memory {self.memory!r} is no size of a worker", remedy="write it as 4GB")
        if not WALLTIME.fullmatch(self.walltime):
            raise UsageError(f"slurm walltime {self.walltime!r} is no length of time", remedy="write it as 12:00:00")
        return replace(self, cores=min(self.cores, workers))


@contextlib.contextmanager
def cluster(settings: SlurmSettings, workers: int) -> Iterator[Any]:
    """A SLURMCluster whose jobs hold `workers` workers or, as jobs are whole, a few more. Raises Refusal."""
    settings = settings.for_workers(workers)
    jobqueue = _dask_jobqueue()
    if shutil.which("sbatch") is None:
        raise Refusal("there is no sbatch here", remedy="run this on a machine of the SLURM cluster that submits jobs")
    here = [name for _, name in socket.if_nameindex()]
    if settings.interface and settings.interface not in here:
        refuse_unknown("network interface", settings.interface, here, where="--slurm.interface")
    # Any free port: the usual one is often taken on a login node, and the run tells which it is.
    scheduler = {"dashboard_address": ":0", **({"interface": settings.interface} if settings.interface else {})}
    errors: list[str] = []

    class Job(jobqueue.slurm.SLURMJob):  # type: ignore[name-defined]
        async def start(self) -> None:
            try:
                await super().start()
            except (RuntimeError, ValueError, OSError) as error:  # Dask would only log it
                errors.append(str(error))
                self.status = Status.running

    with jobqueue.SLURMCluster(job_cls=Job, scheduler_options=scheduler, **_options(settings)) as started:

        async def submitted() -> None:
            await started

        started.scale(jobs=math.ceil(workers / settings.cores))
        started.sync(submitted)
        if errors:
            raise Refusal(
                f"a job could not be submitted: {errors[0].strip()}",
                where="sbatch",
                remedy="--dry_run true prints the job; --slurm.queue, --slurm.account and others change it",
            )
        yield started


def job_script(settings: SlurmSettings, workers: int) -> str:
    """What sbatch is given for one job; the address of the scheduler is known only once it runs."""
    options = _options(settings.for_workers(workers))
    return _dask_jobqueue().slurm.SLURMJob("tcp://THIS_HOST:PORT", name="NAME", **options).job_script()


def _options(settings: SlurmSettings) -> dict[str, Any]:
    """For dask-jobqueue. What is not asked for is spelled out too: somebody's jobqueue.yaml must not change the job."""
    memory = parse_bytes(settings.memory) * settings.cores
    # Workers are started by the job, not by this process, so they know none of its settings.
    exports = [f"export {_variable(key)}={shlex.quote(str(value))}" for key, value in WORKER_SETTINGS.items()]
    return {
        "queue": settings.queue or None,
        "account": settings.account or None,
        "walltime": settings.walltime,
        "cores": settings.cores,
        "processes": settings.cores,  # a thread each
        "memory": f"{memory}B",
        "job_extra_directives": list(settings.directives),
        "job_script_prologue": [*exports, *settings.setup],
        "python": shlex.quote(settings.python or sys.executable),
        "interface": settings.interface or None,
        "log_directory": settings.logs or None,
        "job_name": "costream",
    }


def _variable(key: str) -> str:
    """The environment variable by which Dask takes a setting: "a.b-c" -> DASK_A__B_C."""
    return "DASK_" + key.upper().replace(".", "__").replace("-", "_")


def _dask_jobqueue() -> Any:
    before = signal.getsignal(signal.SIGINT)
    try:
        import dask_jobqueue
    except ImportError as error:
        raise Refusal(
            "dask-jobqueue, which submits jobs to SLURM, is not installed",
            remedy="pip install 'costream[slurm]', or: pip install dask-jobqueue==0.9.0",
        ) from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, before)  # its import takes Ctrl-C for itself
    return dask_jobqueue
