"""Whether workers on other machines can do a run's work: what differs is refused, by host, before work starts."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import dask
from distributed import Client, KilledWorker, get_worker

from pipeline import called, environment, storage
from pipeline.errors import Refusal, counted, named
from pipeline.extraction.workers.cluster import address_of
from pipeline.extraction.workers.stopping import left_running
from pipeline.store import open_store
from pipeline.store.settings import ExtractionSettings

Requirements = tuple[str, str, tuple[tuple[str, str], ...]]
Result = TypeVar("Result")

NAMED = 8  # workers that a refusal names
FAILURES = "distributed.scheduler.allowed-failures"
PROTOCOL = ("dask", "distributed")
REMEDY = "give workers this environment (versions included), and folders on a file system that all share under one path"


def wait_for_workers(client: Client, say: Callable[[str], None]) -> None:
    """Return as soon as the client has a worker; say so where there is none yet."""
    if not client.scheduler_info(n_workers=-1)["workers"]:
        say(f"there is no worker yet; waiting for the first, at {address_of(client)} (Ctrl-C ends it)")
        client.wait_for_workers(1)


def admit(client: Client, root: Path, store: Path, say: Callable[[str], None]) -> None:
    """Raises Refusal where a worker of the client cannot work on the videos below `root` for `store`.

    A worker must have this version of Dask, costream and the packages that a store names (others would write other
    bytes), and see both folders; what else it must, `try_out` finds. None may still be at a video of an earlier run
    into this store: two writers would spoil it.
    """
    if wrong := _other_dask(client) or _unfit(client, root, store):
        raise _not_all(client, wrong, REMEDY)
    running = client.run(left_running, str(store), on_error="ignore")
    if left := {address: videos for address, videos in running.items() if videos}:
        raise Refusal(
            f"workers are still at {counted(sum(map(len, left.values())), 'video')} of an earlier run,"
            f" as {min(left.values())[0]!r}",
            where=named(sorted(left), NAMED),
            remedy="wait until they are through (the dashboard shows it), then run the same command again",
        )
    if not address_of(client).startswith("tls://"):
        say(
            "note: this scheduler runs code for whoever reaches its port;"
            " docs/clusters.md tells how to give it a certificate"
        )
    if failures := client.run_on_scheduler(dask.config.get, FAILURES):
        say(
            f"note: a video that kills its worker will kill {2 * failures + 2} before it lands in quarantine, as this"
            f" scheduler has {FAILURES}: {failures}; with 0 it is 2"
        )


def try_out(client: Client, settings: dict[str, Any]) -> None:
    """Raises Refusal where a worker cannot compute what `settings` (`as_dict`) ask for, whatever the video: each does
    a little of it first.

    What would fail with every video, or take its process along (a driver that is too old, a compiler that is missing),
    is so no video's fault. As tasks, for it may take a minute to compile, in which a worker must answer.
    """
    text = json.dumps(settings)
    trials = {
        address: client.submit(require_able, text, workers=[address], allow_other_workers=True, pure=False)
        for address in client.scheduler_info(n_workers=-1)["workers"]
    }
    errors = {address: trial.exception() for address, trial in trials.items()}
    wrong = {address: _told(error) for address, error in errors.items() if error is not None}
    if wrong:
        remedies = {error.remedy for error in errors.values() if isinstance(error, Refusal)}
        raise _not_all(client, wrong, "; ".join(sorted(remedies)) or _died())


def _told(error: BaseException) -> str:
    if isinstance(error, KilledWorker):
        return "died of its first computation, of black frames"
    return error.what if isinstance(error, Refusal) else f"cannot run extraction: {type(error).__name__}: {error}"


def _not_all(client: Client, wrong: dict[str, str], remedy: str) -> Refusal:
    workers = client.scheduler_info(n_workers=-1)["workers"]
    lines = "\n    ".join(_lines(wrong, workers))
    return Refusal(f"not all workers can do this work:\n    {lines}", where=address_of(client), remedy=remedy)


def _other_dask(client: Client) -> dict[str, str]:
    """What the scheduler and workers have of another version, by address."""
    found: Any = client.get_versions()
    ours = found["client"]["packages"]
    wrong = {}
    for address, versions in {"the scheduler": found["scheduler"], **found["workers"]}.items():
        theirs = versions["packages"]
        if other := [
            f"{name} {theirs[name]} instead of {ours[name]}" for name in PROTOCOL if theirs[name] != ours[name]
        ]:
            wrong[address] = f"has {', '.join(other)}"
    return wrong


def _unfit(client: Client, root: Path, store: Path) -> dict[str, str]:
    # Errors are returned: a worker without costream cannot even read which function it is to call.
    found = client.run(require_fit, *requirements(root, store), on_error="return")
    wrong = {}
    for address, error in found.items():
        if error is not None:
            wrong[address] = error.what if isinstance(error, Refusal) else f"cannot import what this run needs: {error}"
    return wrong


def _lines(wrong: dict[str, str], workers: dict[str, Any]) -> Iterator[str]:
    """A line for each reason, with the hosts and addresses that it holds for."""
    for reason in sorted(set(wrong.values())):
        holders = [
            f"{workers[address]['host']} ({address})" if address in workers else address
            for address, its_reason in wrong.items()
            if its_reason == reason
        ]
        yield f"{named(holders, NAMED)} {reason}"


def requirements(root: Path, store: Path) -> Requirements:
    """The arguments of `require_fit`."""
    return str(root), str(store), tuple(environment.versions().items())


@functools.cache
def require_fit(root: str, store: str, versions: tuple[tuple[str, str], ...]) -> None:
    """In a worker: raise Refusal if this process cannot do the run's work; asked once, as each video asks."""
    here = environment.versions()
    other = [f"{name} {here.get(name)} instead of {wanted}" for name, wanted in versions if here.get(name) != wanted]
    if other:
        raise Refusal(f"has {', '.join(other)}", where=socket.gethostname(), remedy=REMEDY)
    if not os.access(root, os.R_OK | os.X_OK):
        raise Refusal(f"cannot read the folder of videos {root}", where=socket.gethostname(), remedy=REMEDY)
    try:
        open_store(store)
    except Refusal as refusal:
        raise Refusal(
            f"cannot read the store {store}: {refusal.what}", where=socket.gethostname(), remedy=REMEDY
        ) from None
    if storage.is_local(storage.location(store)) and not os.access(store, os.W_OK):
        raise Refusal(f"cannot write to the store {store}", where=socket.gethostname(), remedy=REMEDY)


@functools.cache
def require_able(settings: str) -> None:
    """In a worker: raise Refusal if this process cannot compute what the settings (`as_dict`, as JSON) ask for.

    It must have one thread, so that a video that kills its process takes only itself along, and as estimators keep
    state; only where flow is computed on a GPU there may be several, which share it (`flow.gathering`).
    """
    host = socket.gethostname()
    asked = ExtractionSettings.from_dict(json.loads(settings))
    try:
        with contextlib.suppress(ValueError):  # in no worker
            threads = get_worker().state.nthreads
            if threads > 1 and not asked.on_gpu:
                raise Refusal(f"has {threads} threads", where=host, remedy="start workers with --nthreads 1")
        asked.try_out()
    except Refusal as refusal:
        raise Refusal(refusal.what, where=host, remedy=refusal.remedy) from None


def when_fit(needs: Requirements, settings: str, work: Callable[..., Result], *arguments: Any) -> Result:
    """In a worker, which may have come after `admit` and `try_out`: call `work`. Raises Refusal."""
    require_fit(*needs)
    require_able(settings)
    return work(*arguments)


def _died() -> str:
    return (
        "see what the workers printed, and what `nvidia-smi` says where flow is computed on a GPU; or take another"
        f" {called.option('flow.estimator')}"
    )
