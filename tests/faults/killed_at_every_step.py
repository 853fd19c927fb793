"""Kills the extraction of one video at its first access to the file system, its second, and so on.

`python -m tests.faults.killed_at_every_step VIDEOS SCRATCH` prints a JSON list, one entry a step: whether the process
was killed, whether the store shows the video afterwards, whether what it shows is whole, and a digest of the store
after a rerun.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
from pathlib import Path

from pipeline import storage
from pipeline.extraction.job import extract_video
from pipeline.extraction.opening import sweep
from pipeline.manifest import Video
from pipeline.store import open_store, writing
from pipeline.store.verify import verify
from tests.faults.processes import SETTINGS
from tests.pipeline.reference import content

CHANGES = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree"}
VIDEO = Video("walk/a", "walk/a.mp4", label="walk")
KILLED = 9


def extract(videos: Path, store: Path, kill_at: int | None) -> bool:
    """Extract the video in a process of its own that ends at its `kill_at`th change; whether it came to that."""
    pid = os.fork()
    if pid == 0:
        if kill_at is not None:
            steps = itertools.count()

            def hook(event: str, arguments: tuple) -> None:
                if event in CHANGES and str(arguments[0]).startswith(str(store)) and next(steps) == kill_at:
                    os._exit(KILLED)

            sys.addaudithook(hook)
        outcome = extract_video(str(videos), str(store), VIDEO, SETTINGS.as_dict())
        os._exit(0 if outcome.status == "stored" else 1)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, KILLED), code
    return code == KILLED


def main(videos: Path, scratch: Path) -> None:
    steps = []
    for kill_at in itertools.count():
        store = scratch / str(kill_at)
        writing.create_store(store, SETTINGS)
        writing.add_groups(store, [VIDEO.video_id])
        killed = extract(videos, store, kill_at)
        opened = open_store(store)
        entry = {
            "killed": killed,
            "visible": VIDEO.video_id in opened.videos,
            "whole": not any(found for _, _, found in verify(opened)),
        }
        extract(videos, store, None)
        sweep(store)  # as a run does at its end
        files = content(store)
        entry["after rerun"] = storage.digest(b"".join(name.encode() + files[name] for name in sorted(files)))
        steps.append(entry)
        if not killed:
            break
    print(json.dumps(steps))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
