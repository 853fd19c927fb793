"""What refusals and notes about frames and flow that others extracted say is to be done helps: each is done here."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.existing import alignment, open_source
from pipeline.existing.bring import Existing, manifest_of
from pipeline.manifest import Manifest, Video
from pipeline.store import open_store
from tests import remedies
from tests.pipeline.existing import coclr_flow, flow_planes, frame_jpegs, pack, write_folder
from tests.pipeline.test_alignment import STEPS, mean_steps, moving
from tests.pipeline.test_remedies import refused

Run = Callable[..., tuple[int, str, str]]
FRAMES = {"walk/a": frame_jpegs(2)}


def opened(path: Path) -> None:
    with open_source(path) as source:
        assert source.videos == ["walk/a"]


def packed(path: Path, *order: str, **extra: object) -> Path:
    """An LMDB whose list of videos, or what else is named, is this."""
    path.unlink(missing_ok=True)
    changed = {b"__order__": [name.encode() for name in order]} if order else {}
    return pack(path, FRAMES, changed | {name.encode(): value for name, value in extra.items()})


def cut(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:9000])
    return path


def listed(folder: Path, video: str) -> None:
    with open_source(write_folder(folder / video / "raw", FRAMES, {})) as source:
        manifest_of(Existing(source, None), Manifest([Video(video, video)], []))


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        remedies.case(
            "give an LMDB file, or a folder of frames",
            lambda folder: opened(folder / "none"),
            lambda folder: [opened(packed(folder / "l.lmdb")), opened(write_folder(folder / "raw", FRAMES, {}))],
        ),
        remedies.case(
            "give an LMDB file as CoCLR and ViCC have them, such as ucf101_frame.lmdb",
            lambda folder: ((folder / "l.txt").write_text("no LMDB"), opened(folder / "l.txt")),
            lambda folder: opened(packed(folder / "ucf101_frame.lmdb")),
        ),
        remedies.case(
            "copy or download it again",
            lambda folder: opened(cut(packed(folder / "l.lmdb"))),
            lambda folder: opened(packed(folder / "l.lmdb")),
        ),
        remedies.case(
            "pack it again",
            lambda folder: opened(packed(folder / "l.lmdb", "walk/a", "walk/a")),
            lambda folder: opened(packed(folder / "l.lmdb")),
        ),
        remedies.case(
            "pack it again",
            lambda folder: opened(packed(folder / "l.lmdb", __vlen__=[2, 2])),
            lambda folder: opened(packed(folder / "l.lmdb")),
        ),
        remedies.case(
            "give the folder above the classes, as <class>/<video>/img_00001.jpg",
            lambda folder: opened(write_folder(folder / "raw", FRAMES, {}) / "walk" / "a"),
            lambda folder: opened(folder / "raw"),
        ),
        remedies.case(
            "give the manifest of these videos, with ids like that",
            lambda folder: listed(folder, "walk/b"),
            lambda folder: listed(folder, "walk/a"),
        ),
    ],
)
def test_of_sources(wrong: Callable, right: Callable, tmp_path: Path) -> None:
    remedies.helps(wrong, right, tmp_path)


@pytest.mark.remedy("give that of the flow")
def test_the_lmdb_of_the_flow_is_given(run: Run, tmp_path: Path) -> None:
    frames, flow = packed(tmp_path / "frame.lmdb"), pack(tmp_path / "flow.lmdb", {"walk/a": coclr_flow(flow_planes(1))})
    command = ("bring", "--frames", frames, "--store", tmp_path / "store", "--flow")
    refused(run, *command, frames)
    assert run(*command, flow)[0] == 0


@pytest.mark.remedy("python -m pipeline bring {} --retry_quarantined=true", told=True)
def test_what_is_in_quarantine_is_brought_again_by_the_command_that_status_tells(run: Run, tmp_path: Path) -> None:
    raw, store = write_folder(tmp_path / "raw it", FRAMES | {"walk/b": frame_jpegs(2, 1)}, {}), tmp_path / "store"
    second = raw / "walk" / "b" / "img_00002.jpg"
    whole = second.read_bytes()
    second.write_bytes(whole[:-99])
    assert run("bring", "--frames", raw, "--store", store, "--fps", 30)[0] == 3
    told = re.findall(r"python -m pipeline (bring .*?--retry_quarantined=true)", run("status", "--store", store)[1])[0]
    code, _, err = run(*shlex.split(told))
    assert code == 3 and open_store(store).quarantine["walk/b"] in err
    second.write_bytes(whole)
    assert run(*shlex.split(told))[0] == 0
    assert open_store(store).videos == ["walk/a", "walk/b"]
    assert open_store(store).info("walk/b").fps == 30


@pytest.mark.remedy("with `--alignment` and `--retry_quarantined true`", told=True)
@pytest.mark.parametrize("which", ["first", "second"])
def test_the_alignment_of_the_few_that_leave_it_open_is_told(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    monkeypatch.setattr(alignment, "LOOKED_THROUGH", 1)
    (whole, flow), store = moving(STEPS), tmp_path / "store"
    raw = write_folder(tmp_path / "raw", {"walk/a": whole, "walk/b": whole[1:]}, {"walk/a": flow, "walk/b": flow})
    command = ("bring", "--frames", raw, "--flow", raw, "--store", store)
    code, _, err = run(*command)
    assert code == 3
    assert "say which pair of frames each picture is of, with `--alignment` and `--retry_quarantined true`" in err
    told = (*command, "--alignment", which, "--retry_quarantined", "true")
    if which == "second":  # which is a setting of the store, and the store says so
        assert "`--overwrite true` redoes the whole store" in refused(run, *told)
        told = (*told, "--overwrite", "true")
    assert run(*told)[0] == 0
    assert mean_steps(store, "walk/b") == (STEPS[:6] if which == "first" else STEPS[1:])
