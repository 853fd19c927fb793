"""The processes that extract, and where they are: on this machine, with a running Dask scheduler, in jobs of SLURM."""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import multiprocessing.resource_tracker
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import dask
from distributed import Client, LocalCluster, Worker, WorkerPlugin
from distributed.security import Security

from pipeline import called, storage
from pipeline.errors import Refusal, UsageError
from pipeline.extraction.workers import slurm
from pipeline.extraction.workers.gpus import LOCAL_DASHBOARD, gpu_cluster
from pipeline.extraction.workers.slurm import SlurmSettings
from pipeline.extraction.workers.stopping import SIGNALS

DASK_SETTINGS = {
    # A video that was with a worker when it died is not tried again among others: see
    # `pipeline.extraction.workers.dispatch`.
    "distributed.scheduler.allowed-failures": 0,
    "distributed.scheduler.worker-saturation": 1.0,
    **slurm.WORKER_SETTINGS,
    # A cluster gives up a process whose new worker is not there 15 s after the old one died, also while it works on a
    # video.
    "distributed.deploy.lost-worker-timeout": "365d",
    # What watches workers for other uses takes 7 % of their time with short videos, and nobody looks at it here.
    "distributed.worker.profile.enabled": False,
    "distributed.admin.system-monitor.interval": "10s",
    # Idle processes look after themselves ten to fifty times a second, which takes 5 % of a core here and 2 % in each
    # worker.
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.tick.cycle": "10s",
    "distributed.worker.memory.monitor-interval": "1s",
    "distributed.diagnostics.nvml": False,
    # A video is with the worker that is to do it next, and its result is a few numbers: nothing to steal or to drop.
    "distributed.scheduler.work-stealing": False,
    "distributed.scheduler.active-memory-manager.start": False,
    "distributed.worker.multiprocessing-method": "spawn",
    "distributed.comm.timeouts.connect": "60s",
    # Workers that say nothing are ended by `dispatch`, and by the scheduler itself where nobody dispatches; Dask's own
    # default is five minutes, and then a minute or two until it is so.
    "distributed.scheduler.worker-ttl": "60s",
}
Kind = Literal["processes", "gpus", "here"]
SCRATCH = "DASK_TEMPORARY_DIRECTORY"
CONNECT_SECONDS = 20  # to wait for the answer of a running scheduler


def check_scheduler(scheduler: str, workers: int) -> None:
    """Raises UsageError for a choice that cannot be meant; see `workers_for_extraction`."""
    if scheduler in ("", "slurm"):
        return
    if "://" not in scheduler and not Path(scheduler).is_file():
        raise UsageError(
            f"scheduler {scheduler!r} is no address (tcp://host:port), no scheduler file that is here, and not slurm",
            remedy="start one with `dask scheduler --scheduler-file FILE`, or leave it out: workers on this machine",
        )
    if "://" not in scheduler:
        _check_scheduler_file(Path(scheduler))
    if workers:
        raise UsageError(
            f"a running scheduler has the workers it has: {workers} cannot be asked for",
            where=scheduler,
            remedy=f"leave {called.option('workers')} out, or start as many with `dask worker`",
        )


def _check_scheduler_file(path: Path) -> None:
    try:
        known = isinstance(json.loads(storage.read_regular(path, storage.LARGEST_RECORD))["address"], str)
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        known = False
    if not known:
        raise UsageError(
            "it is no scheduler file: it holds no address",
            where=str(path),
            remedy="give the file that `dask scheduler --scheduler-file FILE` has written",
        )


@contextlib.contextmanager
def workers_for_extraction(
    scheduler: str, workers: int, jobs: SlurmSettings, kind: Kind = "processes", gpu_processes: int = 1
) -> Iterator[Client]:
    """Workers to submit videos to; what was started for it ends with it.

    scheduler: empty for processes on this machine; address or scheduler file of a running Dask scheduler, whose
    workers are taken as they are; or "slurm", which submits `jobs`. workers: how many videos are in work at once; a
    running scheduler has its own. kind, on this machine: "processes" have one thread each, so that OpenCV and
    FFmpeg get one core each and a crash costs one video; "gpus" are `gpu_processes` for each GPU, see
    `gpus.gpu_cluster`; "here" is one thread of this process, for a store that no other process sees. Raises Refusal
    where the scheduler does not answer, or no job can be submitted.
    """
    with dask.config.set(DASK_SETTINGS):
        if scheduler == "":
            chosen = _on_this_machine(workers, kind, gpu_processes)
        elif scheduler == "slurm":
            chosen = _in_jobs(workers, jobs)
        else:
            chosen = _with_running_scheduler(scheduler)
        with chosen as client:
            yield client


def address_of(client: Client) -> str:
    """Where the client's scheduler is."""
    if client.scheduler is None:
        raise RuntimeError("this client has no scheduler")
    return str(client.scheduler.address)


@contextlib.contextmanager
def _on_this_machine(workers: int, kind: Kind, gpu_processes: int) -> Iterator[Client]:
    with _deaf_to_signals(), _scratch_folder():
        cluster = (
            gpu_cluster(workers, gpu_processes) if kind == "gpus" else _local_cluster(workers, kind == "processes")
        )
    with cluster, Client(cluster) as client:
        if kind != "here":
            client.register_plugin(_EndAtOnce())
        yield client


def _local_cluster(workers: int, processes: bool) -> LocalCluster:
    return LocalCluster(
        n_workers=workers if processes else 1,
        threads_per_worker=1,
        processes=processes,
        dashboard_address=LOCAL_DASHBOARD,
        # Whoever reaches the scheduler's port runs code as this user: it takes a certificate that only this run has.
        security=Security.temporary() if processes else None,
    )


@contextlib.contextmanager
def _scratch_folder() -> Iterator[None]:
    """Raises Refusal where Dask's workers would find no folder for what they write aside."""
    named = dask.config.get("temporary-directory")
    where = Path(named or tempfile.gettempdir())
    try:
        with tempfile.TemporaryFile(dir=where) as file:
            file.write(b"0")
    except OSError as error:
        raise Refusal(
            f"Dask's scratch folder cannot be written to: {error.strerror or error}",
            where=str(where.absolute()),
            remedy=f"make that folder, or name another one: export {SCRATCH}=/path/to/folder",
        ) from error
    with dask.config.set({"temporary-directory": str(where)}):
        yield


class _EndAtOnce(WorkerPlugin):
    """A worker has nothing to tidy: taking all its modules apart would make the end of a run ten times as long."""

    def setup(self, worker: Worker) -> None:
        atexit.register(os._exit, 0)


@contextlib.contextmanager
def _deaf_to_signals() -> Iterator[None]:
    """Processes (and threads that start processes later) begun in here never get Ctrl-C or SIGTERM; what came is heard
    after.

    Ctrl-C, and the SIGTERM of `timeout` or systemd, reach every process; the run alone acts on them, and ends its
    workers. What is blocked stays so in children, from their first moment, while a handler of theirs would come after
    their imports.
    """
    multiprocessing.resource_tracker.ensure_running()  # which otherwise unblocks them in the thread that needs it first
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _in_jobs(workers: int, jobs: SlurmSettings) -> Iterator[Client]:
    with slurm.cluster(jobs, workers) as cluster, Client(cluster) as client:
        yield client


def _refuse_other_certificate(address: str) -> None:
    """Raises Refusal where the scheduler or this process has a certificate, and not both."""
    ours, secured = Security().get_connection_args("client"), address.startswith("tls://")
    if (secured and ours["ssl_context"] is None) or (not secured and ours["require_encryption"]):
        raise Refusal(
            f"{'the Dask scheduler' if secured else 'this command'} has a certificate, and not both have it",
            where=address,
            remedy="give both the same environment, as docs/clusters.md tells",
        )


@contextlib.contextmanager
def _with_running_scheduler(scheduler: str) -> Iterator[Client]:
    try:
        address = (
            scheduler
            if "://" in scheduler
            else str(json.loads(storage.read_text(Path(scheduler), storage.LARGEST_RECORD))["address"])
        )
        _refuse_other_certificate(address)
        connected = Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, KeyError) as error:
        raise Refusal(
            f"the Dask scheduler does not answer: {error}",
            where=scheduler,
            remedy="start it with `dask scheduler`, and workers with `dask worker ADDRESS --nthreads 1`",
        ) from error
    log = logging.getLogger("distributed.client")
    before = log.level
    log.setLevel(logging.CRITICAL)  # a scheduler that is lost is told by `dispatch`, without a traceback
    try:
        with connected as client:
            yield client
    finally:
        log.setLevel(before)
