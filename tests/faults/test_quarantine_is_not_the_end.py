"""Videos in quarantine are listed with their reasons, can be seen to fail again by the printed command, and are tried again."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import commands
from pipeline.importers import folder
from pipeline.store import open_store
from tests.faults import small
from tests.faults.small import SMALL
from tests.pipeline.reference import run_here


def printed_again(line: str) -> tuple[int, str]:
    """Exit code and errors of a command as it is printed, with this Python."""
    python, *arguments = shlex.split(line)
    assert python == "python"
    done = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "COLUMNS": "10000"},
    )
    return done.returncode, done.stderr


def test_quarantined_videos_are_listed_seen_again_and_retried(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands.console, "width", 10_000)
    videos, store = small.make(tmp_path / "my 'videos'"), tmp_path / "store"
    broken = videos / "jump" / "it's [broken] & #1;.mp4"
    small.write(broken, 1, frames=12)
    whole = broken.read_bytes()
    start = whole.index(b"mdat") + 804
    broken.write_bytes(whole[:start] + bytes(800) + whole[start + 800 :])
    assert run_here(folder.read(videos), videos, store, SMALL).stored == 3

    commands.status(store)
    listing = [line.strip() for line in capsys.readouterr().out.splitlines()]
    entries = list(open_store(store).quarantine_entries())
    assert {entry["video_id"] for entry in entries} == {"jump/broken", "jump/it's [broken] & #1;"}
    for entry in entries:
        assert f"{entry['video_id']}: {entry['reason']}" in listing
        assert entry["reproduce"] in listing
        code, said = printed_again(entry["reproduce"])
        assert code == 1
        assert entry["reason"] in said

    broken.write_bytes(whole)
    assert run_here(folder.read(videos), videos, store, SMALL).in_quarantine == 2  # not tried before that is asked for
    summary = run_here(folder.read(videos), videos, store, SMALL, retry_quarantined=True)
    assert (summary.stored, summary.frames, summary.skipped) == (1, 12, 3)
    assert list(open_store(store).quarantine) == ["jump/broken"]
