"""Videos in quarantine are listed with their reasons, can be seen to fail again by the printed command, and are tried
again."""

from __future__ import annotations

import itertools
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.commands import stores
from pipeline.extraction import job
from pipeline.importers import folder
from pipeline.store import open_store
from tests.faults import small
from tests.faults.disk import Disk
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
    monkeypatch.setattr(stores.console, "width", 10_000)
    videos, store = small.make(tmp_path / "my 'videos'"), tmp_path / "store"
    broken = videos / "jump" / "it's [broken] & #1;.mp4"
    small.write(broken, 1, frames=12)
    whole = broken.read_bytes()
    start = whole.index(b"mdat") + 804
    broken.write_bytes(whole[:start] + bytes(800) + whole[start + 800 :])
    assert run_here(folder.read(videos), videos, store, SMALL).stored == 3

    stores.status(store)
    listing = [line.strip() for line in capsys.readouterr().out.splitlines()]
    entries = list(open_store(store).quarantine_entries())
    assert {entry["video_id"] for entry in entries} == {"jump/broken", "jump/it's [broken] & #1;"}
    for entry in entries:
        place = listing.index(f"1 x {entry['reason']}")
        assert listing[place + 1 : place + 3] == [entry["video_id"], entry["reproduce"]]
        code, said = printed_again(entry["reproduce"])
        assert code == 1
        assert entry["reason"] in said

    broken.write_bytes(whole)
    summary = run_here(folder.read(videos), videos, store, SMALL)  # what was written again is tried again, nothing else
    assert (summary.stored, summary.frames, summary.skipped, summary.in_quarantine) == (1, 12, 3, 1)
    summary = run_here(folder.read(videos), videos, store, SMALL, retry_quarantined=True)
    assert (summary.skipped, len(summary.quarantined)) == (4, 1)
    assert list(open_store(store).quarantine) == ["jump/broken"]


def test_a_mended_video_is_never_both_stored_and_refused(tmp_path: Path, disk: Disk) -> None:
    """Whatever step of storing it a kill hits."""
    videos = small.make(tmp_path / "videos")
    begun = small.store(videos, tmp_path / "begun")
    small.write(videos / "jump" / "broken.mp4", 6)
    (mended,) = [row for row in folder.read(videos).rows if row.video_id == "jump/broken"]
    for step in itertools.count():
        store = Path(shutil.copytree(begun, tmp_path / str(step)))
        with disk.killed_at(store, step):
            job.extract_video(str(videos), str(store), mended, SMALL.as_dict())
        opened = open_store(store)
        assert ("jump/broken" in opened.videos) + ("jump/broken" in opened.quarantine) < 2
        if not disk.died:
            break
    assert step > 6
    assert "jump/broken" in opened.videos
