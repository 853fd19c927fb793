"""Whether workers on other machines can do a run's work: what differs is refused, by host, before work starts."""

from __future__ import annotations

import functools
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import dask
from distributed import Client

from pipeline import environment, storage
from pipeline.errors import Refusal, named
from pipeline.extraction.workers.cluster import address_of
from pipeline.extraction.workers.stopping import left_running
from pipeline.store import open_store

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
    bytes), see both folders, and have one thread: a video that kills its process takes only itself along, and
    estimators keep state. None may still be at a video of an earlier run into this store: two writers would spoil it.
    """
    workers = client.scheduler_info(n_workers=-1)["workers"]
    if wrong := _other_dask(client) or _threads(workers) or _unfit(client, root, store):
        raise Refusal(
            "not all workers can do this work:\n    " + "\n    ".join(_lines(wrong, workers)),
            where=address_of(client),
            remedy=REMEDY,
        )
    running = client.run(left_running, str(store), on_error="ignore")
    if left := {address: videos for address, videos in running.items() if videos}:
        raise Refusal(
            f"workers are still at {sum(map(len, left.values()))} videos of an earlier run,"
            f" as {min(left.values())[0]!r}",
            where=named(sorted(left), NAMED),
            remedy="wait until they are through (the dashboard shows it), then run the same command again",
        )
    if not address_of(client).startswith("tls://"):
        say(
            "note: this scheduler runs code for whoever reaches its port;"
            " the README says under More machines how to give it a certificate"
        )
    if failures := client.run_on_scheduler(dask.config.get, FAILURES):
        say(
            f"note: a video that kills its worker will kill {2 * failures + 2} before it lands in quarantine, as this"
            f" scheduler has {FAILURES}: {failures}; with 0 it is 2"
        )


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


def _threads(workers: dict[str, Any]) -> dict[str, str]:
    several = {address: worker["nthreads"] for address, worker in workers.items() if worker["nthreads"] != 1}
    return {address: f"has {threads} threads; start it with --nthreads 1" for address, threads in several.items()}


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


def when_fit(needs: Requirements, work: Callable[..., Result], *arguments: Any) -> Result:
    """In a worker, which may have come after `admit`: call `work`. Raises Refusal."""
    require_fit(*needs)
    return work(*arguments)
