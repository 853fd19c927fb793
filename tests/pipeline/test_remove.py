"""Videos are taken out of a store by name, or because no manifest lists them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.importers import folder
from pipeline.store import open_store
from pipeline.store.verify import verify
from tests.faults.small import SMALL
from tests.pipeline.reference import content, run_here

Run = Callable[..., tuple[int, str, str]]


def test_removed_videos_are_gone_and_come_back_as_they_were(run: Run, videos: Path, store: Path) -> None:
    before = content(store)
    code, out, _ = run("remove", "--store", store, "--videos+", "walk/a", "--videos+", "jump/broken")
    assert (code, out.startswith("removed 2 videos")) == (0, True)
    opened = open_store(store)
    assert (opened.videos, opened.quarantine) == (["jump/c", "walk/b"], {})
    assert not any(found for _, _, found in verify(opened))
    assert run_here(folder.read(videos), videos, store, SMALL).stored == 1
    assert content(store) == before


@pytest.mark.remedy("`make status STORE={} SHOW=videos` tells what is there; nothing was removed")
def test_what_is_not_there_is_refused_and_nothing_is_removed(run: Run, store: Path) -> None:
    before = content(store)
    code, _, err = run("remove", "--store", store, "--videos+", "walk/b", "--videos+", "walk/aa")
    assert code == 1
    assert "1 video is neither in the store nor in its quarantine: 'walk/aa'" in err
    assert "nearest is 'walk/a'" in err
    assert "walk/a" in run("status", "--store", store, "--show", "videos")[1]
    assert content(store) == before


def test_prune_removes_what_the_folder_no_longer_has(run: Run, videos: Path, store: Path) -> None:
    (videos / "walk" / "a.mp4").unlink()
    (videos / "jump" / "broken.mp4").unlink()
    options = [f"--rgb.{name}={value}" for name, value in SMALL.as_dict()["rgb"].items()]
    command = ["extract", "--videos", videos, "--store", store, "--views", "rgb", *options, "--prune", "true"]
    code, out, err = run(*command, "--dry_run", "true")
    assert code == 0, err
    assert "would remove 2 unlisted videos: 'jump/broken', 'walk/a'" in out
    assert open_store(store).videos == ["jump/c", "walk/a", "walk/b"]
    code, out, err = run(*command)
    assert code == 0, err
    assert "removed 2 unlisted videos: 'jump/broken', 'walk/a'" in out
    assert (open_store(store).videos, open_store(store).quarantine) == (["jump/c", "walk/b"], {})
    assert "removed 0 unlisted videos" in run(*command)[1]
