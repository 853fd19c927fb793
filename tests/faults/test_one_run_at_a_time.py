"""Two runs on one store: the second is refused and told who the first is; a run that was killed holds nothing."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.errors import Refusal
from pipeline.extraction.run import extract
from pipeline.importers import folder
from tests.faults import small
from tests.faults.small import OTHER, SMALL
from tests.pipeline.reference import content, run_here

HOLD = """
import sys, pathlib
from pipeline.store.lock import only_writer
with only_writer(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def first(store: Path) -> Iterator[subprocess.Popen]:
    """Another process that writes to the store."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, store],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


@pytest.mark.parametrize("settings", [SMALL, OTHER], ids=["rerun", "overwrite"])
def test_a_second_run_is_refused_and_told_who_the_first_is(
    videos: Path, store: Path, first: subprocess.Popen, settings: object
) -> None:
    small.write(videos / "walk" / "new.mp4", seed=5)  # something to do
    before = content(store)
    with pytest.raises(Refusal) as refused:
        extract(folder.read(videos), videos, store, settings, workers=1, overwrite=settings is OTHER)
    assert f"pid {first.pid} on {socket.gethostname()}" in refused.value.what
    assert content(store) == before


def test_the_lock_of_a_killed_run_is_stale(videos: Path, store: Path, first: subprocess.Popen) -> None:
    first.kill()
    first.wait()
    small.write(videos / "walk" / "new.mp4", seed=5)
    summary = run_here(folder.read(videos), videos, store, SMALL)
    assert (summary.stored, summary.skipped) == (1, 3)


def test_a_run_with_nothing_to_do_needs_no_lock(videos: Path, store: Path, first: subprocess.Popen) -> None:
    assert extract(folder.read(videos), videos, store, SMALL, workers=1).skipped == 3
