"""A worker that stood still while its run was killed and another one finished touches nothing when it goes on."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.errors import Refusal
from pipeline.extraction import job
from pipeline.importers import folder
from pipeline.store import fence, layout
from pipeline.store.lock import only_writer
from tests.faults import small
from tests.faults.processes import SETTINGS, Extraction, descendants, running, wait_for
from tests.faults.small import SMALL
from tests.pipeline.reference import content, run_here


def test_a_stopped_worker_goes_on_in_vain(
    eight: Path, undisturbed: dict[str, bytes], tmp_path: Path, extract_apart: Callable[..., Extraction]
) -> None:
    run = extract_apart(eight, tmp_path / "store", GATE_VIDEO="long")
    worker = run.held()
    processes = descendants(run.process.pid)
    os.kill(worker, signal.SIGSTOP)
    run.process.kill()
    run.process.wait()  # its pipes stay open as long as the worker stands still
    run_here(folder.read(eight), eight, tmp_path / "store", SETTINGS)
    assert content(tmp_path / "store") == undisturbed
    run.open_gate()
    os.kill(worker, signal.SIGCONT)
    wait_for(lambda: not any(running(pid) for pid in processes), "the killed run's workers to end")
    run.end()
    found = content(tmp_path / "store")
    assert {name: data for name, data in found.items() if ".partial/" not in name} == undisturbed


@pytest.mark.parametrize("name", ["walk/a", "jump/broken"])
def test_what_another_run_committed_is_not_touched(videos: Path, store: Path, name: str) -> None:
    """Neither a video nor a quarantine file; the run is told to end."""
    with only_writer(store):
        late = fence.holder(store)
    with only_writer(store):
        assert fence.holder(store) != late
    before = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}
    (row,) = [row for row in folder.read(videos).rows if row.video_id == name]
    outcome = job.extract_video(str(videos), str(store), row, SMALL.as_dict(), run=late)
    assert (outcome.status, outcome.reason.partition(":")[0]) == (
        "failed",
        "another run has taken the store over since this work began",
    )
    assert {path: path.read_bytes() for path in store.rglob("*") if path.is_file()} == before


def test_a_new_run_waits_for_who_is_in_the_middle_of_a_commit(
    videos: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fence, "PATIENCE", 0.0)
    small.write(videos / "walk" / "new.mp4", 5)
    with fence.inside(store, fence.holder(store)):
        with pytest.raises(Refusal, match="stands still in the middle of storing a video") as refused:
            run_here(folder.read(videos), videos, store, SMALL)
        assert refused.value.where == str(layout.fence_path(store))
    assert run_here(folder.read(videos), videos, store, SMALL).stored == 1
