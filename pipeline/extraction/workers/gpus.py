"""The processes that extract on GPUs: one Dask worker per GPU, with several videos in work at once in each."""

from __future__ import annotations

import os

from distributed import Nanny, Scheduler, SpecCluster
from distributed.security import Security
from distributed.system import MEMORY_LIMIT

from pipeline import called
from pipeline.errors import Refusal

LOCAL_DASHBOARD = "127.0.0.1:0"  # any free port, and for this machine's eyes only
MOST_THREADS = 16  # videos in work in one process; each holds up to 0.2 GB of frames and flow


def gpu_cluster(videos: int, processes: int = 1) -> SpecCluster:
    """So many processes for each GPU that this process may use; `videos` in work at once in all of them.

    In each there are at least two threads and at most MOST_THREADS, one video each: while some wait for the GPU, others
    decode and encode. Threads share an interpreter's lock, which several processes do not; the GPU works for them in
    turn, or at once under NVIDIA's MPS. A crash costs the videos that are in work in one process. Raises Refusal where
    there is no GPU.
    """
    gpus = (processes * visible_gpus())[:videos]
    if not gpus:
        raise Refusal(
            "flow is to be computed on a GPU, and PyTorch finds none",
            remedy="see why `nvidia-smi` or CUDA_VISIBLE_DEVICES does not list one, or take another"
            f" {called.option('flow.estimator')}",
        )
    security = Security.temporary()  # as in `cluster._local_cluster`
    options = {
        "nthreads": threads_each(videos, len(gpus)),
        "memory_limit": MEMORY_LIMIT // len(gpus),
        "host": "127.0.0.1",
        "security": security,
    }
    # CUDA reads the variable when a process first uses it, hence set it as the process starts.
    specs = {
        number: {"cls": Nanny, "options": {**options, "env": {"CUDA_VISIBLE_DEVICES": gpu}}}
        for number, gpu in enumerate(gpus)
    }
    scheduler = {
        "cls": Scheduler,
        "options": {"host": "127.0.0.1", "dashboard_address": LOCAL_DASHBOARD, "security": security},
    }
    return SpecCluster(workers=specs, scheduler=scheduler, security=security)


def threads_each(videos: int, gpus: int) -> int:
    """Of each GPU's process, to have so many videos in work at once in all of them."""
    return min(MOST_THREADS, max(2, videos // gpus))


def visible_gpus() -> list[str]:
    """What CUDA_VISIBLE_DEVICES must be for each GPU that this process may use: an index, a UUID or the name of a MIG
    slice."""
    import torch  # takes seconds, and extraction on CPUs has no use for it

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return [str(index) for index in range(torch.cuda.device_count())]
    names = [name.strip() for name in named.split(",")]
    if names[0].startswith("MIG-"):  # a process sees one slice of those it names, but each can have a process
        return list(dict.fromkeys(names))
    return names[: torch.cuda.device_count()]  # CUDA ignores what follows the first name it does not know
