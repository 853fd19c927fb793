"""The processes that extract: one single-threaded Dask worker per core."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

# Workers that end with the run log lost connections as errors; read when distributed is imported, here and in them.
os.environ.setdefault("DASK_LOGGING__DISTRIBUTED", "critical")

import dask
from distributed import Client, LocalCluster, Worker, WorkerPlugin

DASK_SETTINGS = {
    # A video that was with a worker when it died is not tried again among others: see `pipeline.extract._run`.
    "distributed.scheduler.allowed-failures": 0,
    "distributed.scheduler.worker-saturation": 1.0,
    # Tasks return next to nothing, so there is nothing to spill, and a worker that pauses for memory may pause for ever.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 0.95,
    # A cluster gives up a process whose new worker is not there 15 s after the old one died, also while it works on a video.
    "distributed.deploy.lost-worker-timeout": "365d",
    "distributed.worker.multiprocessing-method": "spawn",
    "distributed.comm.timeouts.connect": "60s",
}


@contextlib.contextmanager
def workers_for_extraction(workers: int) -> Iterator[Client]:
    """One single-threaded process per worker: OpenCV and FFmpeg get one core each, and a crash costs one video."""
    with (
        dask.config.set(DASK_SETTINGS),
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            dashboard_address="127.0.0.1:0",  # any free port, and for this machine's eyes only
        ) as cluster,
        Client(cluster) as client,
    ):
        client.register_plugin(LeaveInterruptsToTheRun())
        yield client


class LeaveInterruptsToTheRun(WorkerPlugin):
    """Ctrl-C reaches every process of the terminal; the run alone acts on it, and ends its workers."""

    def setup(self, worker: Worker) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
