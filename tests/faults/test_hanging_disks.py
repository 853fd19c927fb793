"""A disk that hangs while existing pictures are brought: told, the run ended from outside the call that hangs, and the
next one goes on."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pipeline import __main__ as program
from pipeline.commands import bring as bringing
from pipeline.commands import console
from pipeline.existing import Source, open_source
from pipeline.existing.bring import Existing, bring, manifest_of
from pipeline.store import open_store
from pipeline.video import watchdog
from tests.patience import PATIENCE
from tests.pipeline.existing import frame_jpegs, write_folder

TOP = Path(__file__).resolve().parents[2]
# Brings a folder, where what is read of walk/b, or written of it, goes through a pipe with nobody at its other end:
# each in a process of its own, forked off one that has what both need.
HANGING = """
import os, sys
from pathlib import Path
from pipeline import __main__ as program, huffman, storage
from pipeline.commands import console
from pipeline.existing import jpegs
from pipeline.video import watchdog
load, write = jpegs.load, storage.write
top, *kinds = sys.argv[1:]
top = Path(top)

def hangs_while_read(jpeg):
    return (top / "pipe read").read_bytes() if jpeg.parent.name == "b" else load(jpeg)

def hangs_while_written(path, data):
    (top / "pipe written").write_bytes(data) if "b" in path.parts else write(path, data)

def bring(kind):
    os.dup2(os.open(top / f"told {kind}", os.O_CREAT | os.O_WRONLY), 2)
    watchdog.QUIET = 0.2
    if kind == "read":
        jpegs.load = hangs_while_read
    else:
        storage.write = hangs_while_written
    store = str(top / f"store {kind}")
    sys.argv = ["pipeline", "bring", "--frames", str(top / "frames"), "--store", store, "--workers", "1"]
    sys.argv += ["--time_limit", "1"]
    return console.main(program.COMMANDS, "stage one", "pipeline")

begun = {os.fork() or os._exit(bring(kind)): kind for kind in kinds}
for _ in begun:
    pid, status = os.wait()
    print(begun[pid], os.waitstatus_to_exitcode(status))
"""


@pytest.mark.remedy("pipeline bring: what is there could not be read within", told=True)
def test_a_source_that_hangs_before_the_first_video_is_told_and_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    frames, store = write_folder(tmp_path / "frames", {"walk/a": frame_jpegs(2)}, {}), tmp_path / "store"
    gave_up, codes = threading.Event(), []

    def ended(code: int) -> None:
        codes.append(code)
        gave_up.set()

    def hangs(path: Path) -> Source:
        assert gave_up.wait(PATIENCE)
        return open_source(path)

    def brought(time_limit: float) -> str:
        command = ("bring", "--frames", frames, "--store", store, "--workers", 1, "--time_limit", time_limit)
        monkeypatch.setattr(sys, "argv", ["pipeline", *map(str, command)])
        assert console.main(program.COMMANDS, "stage one", "pipeline") == 0
        return capsys.readouterr().err.replace("\n", " ")

    with monkeypatch.context() as hanging:
        hanging.setattr(watchdog, "QUIET", 0.1)
        hanging.setattr(bringing.os, "_exit", ended)
        hanging.setattr(bringing, "open_source", hangs)
        told = brought(0.5)
    assert codes == [1]
    assert "has not been read after 0.1 s: its disk may hang" in told
    assert "could not be read within 0.5 s" in told and "`--time_limit 0` waits for ever" in told
    assert "may hang" not in brought(0)
    assert open_store(store).videos == ["walk/a"]


def bring_here(frames: Path, store: Path, **options: bool) -> None:
    with open_source(frames) as opened:
        existing = Existing(opened, None)
        bring(manifest_of(existing), existing, store, 1, "again", **options)


@pytest.mark.parametrize("hanging", [["read"], pytest.param(["written", "read"], marks=pytest.mark.slow)])
def test_what_hangs_is_told_and_ended_and_the_next_run_goes_on(tmp_path: Path, hanging: list[str]) -> None:
    videos = {f"walk/{name}": frame_jpegs(3, seed) for seed, name in enumerate("abc")}
    frames = write_folder(tmp_path / "frames", videos, {})
    told_of = {"read": "no further picture was read", "written": "the store took nothing that was written"}
    kinds = {kind: told_of[kind] for kind in hanging}
    for kind in kinds:
        os.mkfifo(tmp_path / f"pipe {kind}")
    command = [sys.executable, "-c", HANGING, tmp_path, *kinds]
    ended = subprocess.run(command, cwd=TOP, capture_output=True, text=True, timeout=PATIENCE)
    assert (ended.returncode, sorted(ended.stdout.splitlines())) == (0, sorted(f"{kind} 1" for kind in kinds)), (
        ended.stderr
    )
    for kind, what in kinds.items():
        told, store = (tmp_path / f"told {kind}").read_text().replace("\n", " "), tmp_path / f"store {kind}"
        assert "Traceback" not in told
        assert f"walk/b: {what} for 0.2 s: its disk may hang" in told
        assert "run the same command again" in told
        assert open_store(store).videos == ["walk/a"]
        bring_here(frames, store)
        refused = {"walk/b": "no further picture of it could be read for 1 s"} if kind == "read" else {}
        assert open_store(store).quarantine == refused
        bring_here(frames, store, retry_quarantined=True)
        assert open_store(store).videos == list(videos)
