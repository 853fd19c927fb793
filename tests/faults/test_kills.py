"""Extraction that is killed, from inside and from outside: what is there is whole, and a rerun completes it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from pipeline.importers import folder
from pipeline.store import layout, open_store
from pipeline.store.verify import verify
from tests.faults.processes import SETTINGS, Extraction, descendants, running, wait_for
from tests.patience import PATIENCE
from tests.pipeline.reference import content, run_here

LONG = "jump/long"


def assert_unfinished(store: Path) -> None:
    """Shards of the long video lie there, and readers do not see it."""
    assert list(layout.video_folder(store, LONG).glob(".writing.*.partial/c/rgb/c/0/0/0/0"))
    opened = open_store(store)
    assert LONG not in opened.videos
    assert not any(found for _, _, found in verify(opened))


def test_a_killed_worker_costs_nothing(
    eight: Path, undisturbed: dict[str, bytes], tmp_path: Path, extract_apart: Callable[..., Extraction]
) -> None:
    run = extract_apart(eight, tmp_path / "store", GATE_VIDEO="long")
    worker = run.held()
    assert_unfinished(tmp_path / "store")
    run.open_gate()
    os.kill(worker, signal.SIGKILL)
    code, out, err = run.end()
    assert code == 0, err
    assert "stored 8 videos (484 frames)" in out
    assert content(tmp_path / "store") == undisturbed
    assert open_store(tmp_path / "store").quarantine == {}


def test_a_killed_run_is_completed_by_the_next(
    eight: Path, undisturbed: dict[str, bytes], tmp_path: Path, extract_apart: Callable[..., Extraction]
) -> None:
    run = extract_apart(eight, tmp_path / "store", GATE_VIDEO="long")
    run.held()
    processes = descendants(run.process.pid)
    assert len(processes) >= 2
    run.process.kill()
    run.end()
    wait_for(lambda: not any(running(pid) for pid in processes), "the killed run's workers to end")
    assert_unfinished(tmp_path / "store")
    stray = layout.record_path(tmp_path / "store", LONG).with_name("zarr.json.partial")
    stray.write_bytes(b"what a kill before the last rename leaves")
    done = len(open_store(tmp_path / "store").videos)
    summary = run_here(folder.read(eight), eight, tmp_path / "store", SETTINGS)
    assert (summary.stored, summary.skipped) == (8 - done, done)
    assert content(tmp_path / "store") == undisturbed


def test_only_the_video_that_kills_its_workers_is_blamed(
    eight: Path, undisturbed: dict[str, bytes], tmp_path: Path, extract_apart: Callable[..., Extraction]
) -> None:
    run = extract_apart(eight, tmp_path / "store", DEADLY_VIDEOS="b f")
    code, out, err = run.end()
    assert code == 3, err
    assert "stored 6 videos" in out
    assert "2 in quarantine" in out
    store = open_store(tmp_path / "store")
    assert set(store.quarantine) == {"walk/b", "jump/f"}
    assert all("worker process died" in reason for reason in store.quarantine.values())
    expected = {
        name: data for name, data in undisturbed.items() if not name.startswith(("videos/walk/b/", "videos/jump/f/"))
    }
    found = content(tmp_path / "store")
    del expected["catalogue.parquet"], found["catalogue.parquet"]
    assert found == expected


def test_only_the_video_that_hangs_its_worker_is_given_up(
    eight: Path, undisturbed: dict[str, bytes], tmp_path: Path, extract_apart: Callable[..., Extraction]
) -> None:
    run = extract_apart(eight, tmp_path / "store", time_limit=5, HANGING_VIDEOS="b")
    code, out, err = run.end()
    assert code == 3, err
    assert "stored 7 videos" in out
    store = open_store(tmp_path / "store")
    assert store.quarantine == {"walk/b": "it gave no further frame for 5 s"}
    (entry,) = store.quarantine_entries()
    assert entry["stage"] == "time"
    expected = {name: data for name, data in undisturbed.items() if not name.startswith("videos/walk/b/")}
    found = content(tmp_path / "store")
    del expected["catalogue.parquet"], found["catalogue.parquet"]
    assert found == expected


def test_committed_means_complete_whatever_step_a_kill_hits(eight: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.faults.killed_at_every_step", eight, tmp_path]
    top = Path(__file__).parents[2]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=PATIENCE, cwd=top)
    steps = json.loads(done.stdout)
    assert len(steps) > 12
    assert {step["killed"] for step in steps[:-1]} == {True}
    assert not steps[-1]["killed"]
    assert [step["visible"] for step in steps] == sorted(step["visible"] for step in steps)
    assert not steps[0]["visible"]
    assert all(step["whole"] for step in steps)
    assert len({step["after rerun"] for step in steps}) == 1
