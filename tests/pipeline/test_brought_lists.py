"""Labels, recordings and splits of frames others extracted: from the data sets' own lists, or told to be missing."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.store import open_store
from tests.pipeline.existing import coclr_flow, flow_planes, frame_jpegs, pack, write_folder

Run = Callable[..., tuple[int, str, str]]
UCF = {
    "Hammering/v_Hammering_g01_c01": ("train", "Hammering_g01"),
    "Hammering/v_Hammering_g01_c02": ("train", "Hammering_g01"),
    "HandstandPushups/v_HandStandPushups_g02_c01": ("test", "HandstandPushups_g02"),
    "Hammering/v_Hammering_g03_v1.5": ("", "Hammering/v_Hammering_g03_v1.5"),  # in no list
}


def coclr_lists(top: Path) -> tuple[object, ...]:
    rows = {
        split: [f"/root/x/{name}/,3" for name, (of, _) in UCF.items() if of == split] for split in ("train", "test")
    }
    for split, lines in rows.items():
        (top / f"{split}_split01.csv").write_text("".join(f"{line}\r\n" for line in lines))
    (top / "ClassInd.txt").write_text("Hammering\nHandstandPushups\n")
    (top / "video_source.json").write_text(json.dumps({"v_Hammering_g01": 5, "v_HandStandPushups_g02": 6}))
    return "--dataset", "coclr", "--lists", top


def official_lists(top: Path) -> tuple[object, ...]:
    (top / "classInd.txt").write_text("1 Hammering\n2 HandstandPushups\n")
    train = [f"{name}.avi 1" for name, (split, _) in UCF.items() if split == "train"]
    (top / "trainlist01.txt").write_text("\n".join(train))
    (top / "testlist01.txt").write_text("".join(f"{name}.avi\n" for name, (split, _) in UCF.items() if split == "test"))
    return "--dataset", "ucf101", "--lists", top


@pytest.mark.parametrize("lists", [coclr_lists, official_lists])
@pytest.mark.parametrize("kind", ["lmdb", "folders"])
@pytest.mark.parametrize("by", ["bring", "manifest"])
def test_frames_get_recordings_and_splits_of_the_data_sets_own_lists(
    lists: Callable[[Path], tuple[object, ...]], kind: str, by: str, run: Run, tmp_path: Path
) -> None:
    videos = {name: frame_jpegs(2, number) for number, name in enumerate(UCF)}
    (tmp_path / "lists").mkdir()
    given = lists(tmp_path / "lists")
    frames = pack(tmp_path / "f.lmdb", videos) if kind == "lmdb" else write_folder(tmp_path / "raw", videos, {})
    if by == "manifest":
        code, out, _ = run("manifest", "--frames", frames, "--out", tmp_path / "m.csv", *given)
        assert code == 0
        assert "listed 3 videos (1 test, 2 train) of 2 classes" in out
        given = ("--manifest", tmp_path / "m.csv")
    code, _, err = run("bring", "--frames", frames, "--store", tmp_path / "store", *given)
    assert code == 0
    assert "1 video" in err
    assert "v_Hammering_g03_v1.5" in err
    assert "no video has a split" not in err
    assert "its own recording" not in err
    store = open_store(tmp_path / "store")
    assert {name: info.split for name, info in store.infos.items()} == {n: s for n, (s, _) in UCF.items() if s}
    first, second, third = (store.info(name).source for name in list(UCF)[:3])
    assert first == second != third
    assert {info.label for info in store.infos.values()} == {"Hammering", "HandstandPushups"}


def test_without_lists_what_is_missing_is_told_loudly(run: Run, tmp_path: Path) -> None:
    frames = pack(tmp_path / "f.lmdb", {name: frame_jpegs(2, number) for number, name in enumerate(UCF)})
    code, _, err = run("bring", "--frames", frames, "--store", tmp_path / "store")
    assert code == 0
    told = ("no video has a split, though there are labels: of 4 none is kept", "each video is its own recording")
    assert all(sentence in err for sentence in told)
    _, out, _ = run("status", "--store", tmp_path / "store")
    assert all(sentence in out for sentence in told)
    assert open_store(tmp_path / "store").videos == sorted(UCF)


def test_frames_below_folders_of_splits_are_in_these(run: Run, tmp_path: Path) -> None:
    root = write_folder(tmp_path / "raw", {"train/Walk/a.1": frame_jpegs(2), "test/Walk/b": frame_jpegs(2, 1)}, {})
    assert run("bring", "--frames", root, "--store", tmp_path / "store")[0] == 0
    infos = open_store(tmp_path / "store").infos
    assert {name: (info.label, info.split) for name, info in infos.items()} == {
        "train/Walk/a.1": ("Walk", "train"),
        "test/Walk/b": ("Walk", "test"),
    }


def test_the_command_of_a_quarantined_video_has_all_options(run: Run, tmp_path: Path) -> None:
    pictures = {"Walk/a": frame_jpegs(2), "Walk/odd": [*frame_jpegs(2), b""]}
    frames = pack(tmp_path / "f [1].lmdb", pictures)
    flow = pack(tmp_path / "g.lmdb", {"Walk/a": coclr_flow(flow_planes(1)), "Walk/odd": coclr_flow(flow_planes(2))})
    command = ("bring", "--frames", frames, "--flow", flow, "--store", tmp_path / "store", "--bound", 10, "--fps", 12)
    assert run(*command)[0] == 3
    (entry,) = open_store(tmp_path / "store").quarantine_entries()
    words = shlex.split(entry["reproduce"])
    assert words[:3] == ["python", "-m", "pipeline"]
    code, _, err = run(*words[3:])
    assert code == 3
    assert "frame 2 is empty" in err


@pytest.mark.parametrize("given", [(), ("--videos", ".", "--frames", ".")])
def test_a_manifest_is_of_videos_or_of_frames(given: tuple[str, ...], run: Run, tmp_path: Path) -> None:
    code, _, err = run("manifest", "--out", tmp_path / "m.csv", *given)
    assert code == 2
    assert "give VIDEOS=, or FRAMES=" in err
