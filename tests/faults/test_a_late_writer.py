"""A worker that stood still while its run was killed and another one finished touches nothing when it goes on."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import Refusal
from pipeline.extraction import job
from pipeline.importers import folder
from pipeline.store import fence, layout
from pipeline.store.lock import only_writer
from pipeline.store.writing import create_store
from pipeline.video.decode import OpenVideo
from tests.faults import small
from tests.faults.processes import SETTINGS, Extraction, descendants, running, wait_for
from tests.faults.small import SMALL
from tests.pipeline.reference import content, run_here


@pytest.mark.slow
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


def test_what_goes_on_in_the_middle_of_a_video_goes_on_in_vain(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this process: another run does everything while the frames of a video are read."""
    store, listed, blocks, runs = tmp_path / "store", folder.read(videos), OpenVideo.blocks, []
    create_store(store, SMALL)
    with only_writer(store):
        late = fence.holder(store)

    def read(video: OpenVideo, *rest: Any) -> Iterator[np.ndarray]:
        for block in blocks(video, *rest):
            if not runs:
                runs.append("begun")
                runs.append(run_here(listed, videos, store, SMALL))
                runs.append({path: path.read_bytes() for path in store.rglob("*") if path.is_file()})
            yield block

    monkeypatch.setattr(OpenVideo, "blocks", read)
    (row,) = [row for row in listed.rows if row.video_id == "walk/a"]
    outcome = job.extract_video(str(videos), str(store), row, SMALL.as_dict(), run=late)
    assert (outcome.status, runs[1].stored) == ("failed", 3)
    found = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}
    assert {path: data for path, data in found.items() if not any(map(is_private, path.parts))} == runs[2]


def is_private(name: str) -> bool:
    return name.endswith(".partial")


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
