"""Ctrl-C and SIGTERM: the first lets the running videos finish, the second stops at once; a rerun completes."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from distributed import Client, LocalCluster, Scheduler

from pipeline.extraction.run import extract
from pipeline.importers import folder
from pipeline.store import open_store
from pipeline.store.verify import verify
from tests.faults.clusters import RunningScheduler
from tests.faults.processes import SETTINGS, Extraction, descendants, running, wait_for
from tests.faults.test_kills import LONG, assert_unfinished
from tests.pipeline.reference import content, run_here

Start = Callable[..., Extraction]
Case = Any  # what pytest.param makes

CTRL_C = pytest.param(signal.SIGINT, 130, "press Ctrl-C again", id="Ctrl-C")
SIGTERM = pytest.param(signal.SIGTERM, 143, "send SIGTERM again", id="SIGTERM")

both_signals = pytest.mark.parametrize(("number", "code", "again"), [CTRL_C, SIGTERM])


def mostly(first: Case, then: Case) -> pytest.MarkDecorator:
    """Both, the other one among the slow tests: what a signal says and ends with is the same wherever it comes."""
    again = pytest.param(*then.values, id=then.id, marks=pytest.mark.slow)
    return pytest.mark.parametrize(("number", "code", "again"), [first, again])


def assert_all_ended(processes: set[int]) -> None:
    assert len(processes) >= 2
    wait_for(lambda: not any(running(pid) for pid in processes), "the run's workers to end")


@pytest.mark.parametrize("in_background", [False, True])
def test_the_first_signal_that_is_not_ignored_lets_the_running_video_finish(
    eight: Path, undisturbed: dict[str, bytes], tmp_path: Path, extract_apart: Start, in_background: bool
) -> None:
    """Ctrl-C; or SIGTERM, after what a shell has told a run in the background to ignore."""
    ignored = {"on_interrupt": signal.SIG_IGN} if in_background else {}
    number, code, again = (SIGTERM if in_background else CTRL_C).values
    run = extract_apart(eight, tmp_path / "store", workers=1, GATE_VIDEO="long", **ignored)
    run.held()
    processes = descendants(run.process.pid)
    for sent in [signal.SIGINT] * 2 * in_background + [number]:
        run.signal_all(sent)
    run.wait_for_words(f"finishing 1 running videos; {again} to stop at once")
    run.open_gate()
    ended, out, err = run.end()
    assert ended == code, err
    assert "stored 1 video (400 frames), in" in out
    assert "interrupted: 1 stored, 7 left; run the same command again to go on" in err
    assert "Traceback" not in err
    assert_all_ended(processes)
    store = open_store(tmp_path / "store")
    assert store.videos == [LONG]
    assert not any(found for _, _, found in verify(store))
    assert run_here(folder.read(eight), eight, tmp_path / "store", SETTINGS).stored == 7
    assert content(tmp_path / "store") == undisturbed


@both_signals
def test_the_second_signal_stops_at_once(
    eight: Path, tmp_path: Path, extract_apart: Start, number: int, code: int, again: str
) -> None:
    run = extract_apart(eight, tmp_path / "store", workers=1, GATE_VIDEO="long")
    run.held()
    processes = descendants(run.process.pid)
    run.signal_all(signal.Signals(number))
    run.wait_for_words(again)
    run.signal_all(signal.Signals(number))
    ended, _, err = run.end()
    assert ended == code, err
    assert "interrupted: 0 stored, 8 left; run the same command again to go on" in err
    assert "Traceback" not in err
    assert_all_ended(processes)
    assert_unfinished(tmp_path / "store")


@mostly(CTRL_C, SIGTERM)
def test_a_signal_while_workers_start_begins_no_video(
    eight: Path, tmp_path: Path, extract_apart: Start, number: int, code: int, again: str
) -> None:
    run = extract_apart(eight, tmp_path / "store", workers=1, GATE_START="1")
    run.held()
    run.signal_all(signal.Signals(number))
    run.open_gate()
    ended, _, err = run.end()
    assert ended == code, err
    assert "interrupted: 0 stored, 8 left; run the same command again to go on" in err
    assert "Traceback" not in err
    assert open_store(tmp_path / "store").videos == []


@mostly(SIGTERM, CTRL_C)
def test_a_signal_ends_a_dry_run_at_once(
    eight: Path, tmp_path: Path, extract_apart: Start, number: int, code: int, again: str
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    run = extract_apart(eight, tmp_path / "store", "--dry_run", "true", GATE_START="1", TMPDIR=str(scratch))
    run.held()
    run.signal_all(signal.Signals(number))
    run.open_gate()
    ended, out, err = run.end()
    assert ended == code, err
    assert "interrupted" in err
    assert "Traceback" not in err
    assert not out
    assert not [path for path in scratch.iterdir() if path.name.startswith("tmp")]


@both_signals
def test_a_signal_while_the_run_is_planned_ends_it(
    eight: Path, tmp_path: Path, extract_apart: Start, number: int, code: int, again: str
) -> None:
    store, source = tmp_path / "store", min(eight.rglob("*.mp4"))
    only = tmp_path / "only"
    only.mkdir()
    shutil.copy(source, only / source.name)
    run_here(folder.read(only), only, store, SETTINGS)
    os.truncate(only / source.name, 2**38)  # planning takes the digest of what has changed: minutes of holes
    run = extract_apart(only, store, workers=1)

    def is_read() -> bool:
        files, wanted = Path(f"/proc/{run.process.pid}/fd"), str((only / source.name).resolve())
        try:
            return any(os.path.realpath(file) == wanted for file in files.iterdir())
        except FileNotFoundError:  # one was closed while they were listed
            return False

    run.wait_for(is_read, "the plan")
    run.signal_all(signal.Signals(number))
    ended, _, err = run.end()
    assert ended == code, err
    assert "interrupted; run the same command again to go on" in err
    assert "Traceback" not in err


def test_workers_of_others_finish_what_they_are_at_and_take_no_more(
    eight: Path, tmp_path: Path, extract_apart: Start, running_scheduler: RunningScheduler
) -> None:
    run = extract_apart(
        eight, tmp_path / "store", "--scheduler", str(running_scheduler.file), workers=0, GATE_VIDEO="long"
    )
    running_scheduler.add_worker(**gate(run))
    run.held()
    run.signal_all(signal.SIGINT)
    run.wait_for_words("finishing 1 running videos; press Ctrl-C again")
    run.open_gate()
    code, _, err = run.end()
    assert code == 130, err
    assert "interrupted: 1 stored, 7 left" in err
    with Client(running_scheduler.address) as client:
        assert not [name for name in client.run_on_scheduler(plugins) if name.endswith(f"@{tmp_path / 'store'}")]
    again = extract(folder.read(eight), eight, tmp_path / "store", SETTINGS, 0, scheduler=running_scheduler.address)
    assert again.stored == 7


@pytest.mark.remedy("start it again, if it was yours, and run the same command again", told=True)
def test_a_lost_scheduler_is_told_and_started_again(
    eight: Path,
    undisturbed: dict[str, bytes],
    tmp_path: Path,
    extract_apart: Start,
    running_scheduler: RunningScheduler,
) -> None:
    run = extract_apart(
        eight, tmp_path / "store", "--scheduler", running_scheduler.address, workers=0, GATE_VIDEO="long"
    )
    running_scheduler.add_worker(**gate(run))
    run.held()
    running_scheduler.scheduler.kill()
    code, _, err = run.end()
    assert code == 1, err
    assert "the Dask scheduler was lost" in err
    assert "start it again, if it was yours, and run the same command again" in err
    assert "Traceback" not in err
    running_scheduler.close()  # its worker, too
    place = {"host": "127.0.0.1", "scheduler_port": int(running_scheduler.address.rpartition(":")[2])}
    with LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None, **place):
        again = extract(folder.read(eight), eight, tmp_path / "store", SETTINGS, 0, scheduler=running_scheduler.address)
    assert content(tmp_path / "store") == undisturbed and again.stored


def plugins(dask_scheduler: Scheduler) -> list[str]:
    return list(dask_scheduler.worker_plugins)


def gate(run: Extraction) -> dict[str, str]:
    """The variables of a worker that this run is to have."""
    return run.variables
