"""The lists of CoCLR and of mmaction, in tiny made-up copies."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline import importers
from pipeline.errors import Refusal, UsageError
from pipeline.manifest import Manifest


def write(top: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(text.encode())
    return top


def facts(manifest: Manifest) -> list[tuple[str, str, str, str]]:
    return [(row.path, row.label, row.source, row.split) for row in manifest.rows]


FRAMES = "/root/data/frame"
COCLR = {
    "lists/train_split01.csv": (
        f"{FRAMES}/Hammering/v_Hammering_g01_c01/,120\r\n{FRAMES}/Hammering/v_Hammering_g01_c02/,99\r\n"
    ),
    "lists/test_split01.csv": f"{FRAMES}/HammerThrow/v_HammerThrow_g02_c01/,30\n",
    "lists/train_split02.csv": f"{FRAMES}/HammerThrow/v_HammerThrow_g02_c01/,30\n",
    "lists/ClassInd.txt": "1,Hammering\r\n2,HammerThrow\r\n3,Zumba\r\n",
    "Hammering/v_Hammering_g01_c01.avi": "",
    "Hammering/v_Hammering_g01_c02.mp4": "",
    "HammerThrow/v_HammerThrow_g02_c01.mkv": "",
}


def test_lists_of_coclr_are_resolved_against_videos(tmp_path: Path) -> None:
    manifest = importers.read("coclr", write(tmp_path, COCLR), lists=tmp_path / "lists")
    assert manifest.classes == ["Hammering", "HammerThrow", "Zumba"]
    assert facts(manifest) == [
        ("HammerThrow/v_HammerThrow_g02_c01.mkv", "HammerThrow", "HammerThrow_g02", "test"),
        ("Hammering/v_Hammering_g01_c01.avi", "Hammering", "Hammering_g01", "train"),
        ("Hammering/v_Hammering_g01_c02.mp4", "Hammering", "Hammering_g01", "train"),
    ]
    assert manifest.notes == ()
    (row,) = importers.read("coclr", tmp_path, lists=tmp_path / "lists", split=2).rows
    assert (row.label, row.split) == ("HammerThrow", "train")
    with pytest.raises(Refusal, match="no lists of split 3"):
        importers.read("coclr", tmp_path, lists=tmp_path / "lists", split=3)


def test_the_sources_of_coclr_tell_recordings(tmp_path: Path) -> None:
    sources = {"v_Hammering_g01": 7, "HammerThrow/v_HammerThrow_g02_c01": 7}
    write(tmp_path, {**COCLR, "lists/video_source.json": json.dumps(sources)})
    manifest = importers.read("coclr", tmp_path, lists=tmp_path / "lists")
    assert [row.source for row in manifest.rows] == ["source-7"] * 3
    for text in ("[1]", "{", "[" * 100_000, '{"a": NaN}', '{"a": "\\ud800"}', '{"a": [1]}'):
        write(tmp_path, {"lists/video_source.json": text})
        with pytest.raises(Refusal, match="does not map names to numbers"):
            importers.read("coclr", tmp_path, lists=tmp_path / "lists")


def test_lists_of_coclr_without_number_and_without_class_list(tmp_path: Path) -> None:
    files = {
        "train_split.csv": "zumba/-a_B_000010_000020,300\n/data/k400/playing guitar/c,d_000001_000011,250\n",
        "val_split.csv": "zumba/e_000001_000011,0\n",
        "videos/zumba/-a_B_000010_000020.mp4": "",
        "videos/playing_guitar/c,d_000001_000011.mp4": "",
        "videos/zumba/e_000001_000011.mp4": "",
    }
    manifest = importers.read("coclr", write(tmp_path, files) / "videos")
    names = [path.removeprefix("videos/") for path in sorted(files) if path.startswith("videos/")]
    labels = [("playing guitar", "train"), ("zumba", "train"), ("zumba", "val")]
    assert facts(manifest) == [
        (path, label, path.removesuffix(".mp4"), split) for path, (label, split) in zip(names, labels, strict=True)
    ]
    assert manifest.notes == (
        "there is no ClassInd.txt beside the lists: classes are in alphabetical order",
        "kept, though CoCLR drops what its lists give 0 frames, as [ ] in names misled its count: 1 video",
    )


@pytest.mark.parametrize("line", ["video,3", "a/b", "a/b,many", "path,num_frames", "a/b,"])
def test_a_bad_line_of_coclr_is_refused(tmp_path: Path, line: str) -> None:
    write(tmp_path, {"train_split.csv": f"a/b,3\n{line}\n", "a/b.mp4": ""})
    with pytest.raises(Refusal, match="is not a path and a number of frames") as refused:
        importers.read("coclr", tmp_path)
    assert refused.value.where.endswith("train_split.csv, line 2")
    write(tmp_path, {"train_split.csv": f"a/{'b' * 200_000},3\n"})
    with pytest.raises(Refusal, match="field larger than field limit"):
        importers.read("coclr", tmp_path)


def test_a_class_that_coclr_does_not_list_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {"train_split.csv": "a/b,3\n", "ClassInd.txt": "c\n", "a/b.mp4": ""})
    with pytest.raises(Refusal, match='"a" is not in the class list'):
        importers.read("coclr", tmp_path)


VIDEOS = {"walk/a b.mp4": "", "walk/v_walk_g01_c01.avi": "", "run/c.mp4": ""}


def mmaction(top: Path, lists: dict[str, str], **options: object) -> Manifest:
    write(top / "videos", VIDEOS)
    write(top, lists)
    return importers.read("mmaction", top / "videos", **options)


def test_lists_of_mmaction_give_label_and_split(tmp_path: Path) -> None:
    lists = {
        "mine_train_list_videos.txt": "walk/a b.mp4 1\r\n./walk/v_walk_g01_c01.avi  1\r\n",
        "mine_val_list_videos.txt": f"{tmp_path}/videos/run/c.mp4 0\n",
        "mine_train_list_rawframes.txt": "walk/nothing 3 0\n",
    }
    manifest = mmaction(tmp_path, lists)
    assert manifest.classes == ["run", "walk"]
    assert facts(manifest) == [
        ("run/c.mp4", "run", "run/c", "val"),
        ("walk/a b.mp4", "walk", "walk/a b", "train"),
        ("walk/v_walk_g01_c01.avi", "walk", "walk_g01", "train"),
    ]
    assert manifest.notes == ()


def test_val_lists_of_mmaction_may_stand_for_the_test_split(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("importer: mmaction\nsettings: {val_is: test}\n")
    write(tmp_path, {"videos/run/c.mp4": "", "mine_val_list.txt": "run/c.mp4 0\n"})
    assert [row.split for row in importers.read(str(tmp_path / "mine.yaml"), tmp_path / "videos").rows] == ["test"]
    (tmp_path / "mine.yaml").write_text("importer: mmaction\nsettings: {val_is: tset}\n")
    with pytest.raises(UsageError, match=r'unknown split "tset"(.|\n)*did you mean "test"'):
        importers.read(str(tmp_path / "mine.yaml"), tmp_path / "videos")


def test_frame_lists_of_mmaction_are_matched_with_videos(tmp_path: Path) -> None:
    manifest = mmaction(tmp_path, {"train_rawframes.txt": "walk/a b 120 5\nwalk/v_walk_g01_c01 90 5\nrun/gone 10 2\n"})
    assert [(row.path, row.label) for row in manifest.rows] == [("walk/a b.mp4", "5"), ("walk/v_walk_g01_c01.avi", "5")]
    assert manifest.classes == ["0", "1", "2", "3", "4", "5"]
    assert manifest.notes[0] == "1 of 3 listed videos are not there: run/gone"


def test_numbered_lists_of_mmaction_can_be_chosen(tmp_path: Path) -> None:
    lists = {f"u_train_split_{number}_videos.txt": f"{path} 0\n" for number, path in enumerate(sorted(VIDEOS), start=1)}
    assert [row.path for row in mmaction(tmp_path, lists).rows] == ["run/c.mp4"]
    assert [row.path for row in mmaction(tmp_path, lists, split=3).rows] == ["walk/v_walk_g01_c01.avi"]
    with pytest.raises(Refusal, match="no lists of split 4"):
        mmaction(tmp_path, lists, split=4)


def test_a_class_list_names_the_labels_of_mmaction(tmp_path: Path) -> None:
    classes = write(tmp_path, {"classes.txt": "Running\nWalking\n"}) / "classes.txt"
    manifest = mmaction(tmp_path, {"train.txt": "run/c.mp4 0\nwalk/a b.mp4 1\n"}, classes=classes)
    assert [(row.label, row.source) for row in manifest.rows] == [("Running", "run/c"), ("Walking", "walk/a b")]
    with pytest.raises(Refusal, match="label 2 is beyond the 2 classes") as refused:
        mmaction(tmp_path, {"train.txt": "run/c.mp4 0\nwalk/a b.mp4 2\n"}, classes=classes)
    assert refused.value.where.endswith("train.txt, line 2")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("run/c.mp4\n", "does not end in a label"),
        ("run/c.mp4 run\n", "does not end in a label"),
        ("run/c.mp4 0 1\n", "has several labels"),
        ("run/c.mp4 0 1\nwalk/a b.mp4 0\n", "has several labels"),
        ("7\n", "does not end in a label"),
    ],
)
def test_a_bad_line_of_mmaction_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(Refusal, match=message) as refused:
        mmaction(tmp_path, {"train.txt": text})
    assert refused.value.where.endswith("train.txt, line 1")


def test_a_folder_without_lists_of_mmaction_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=r"no lists \(\.txt\) with train, val or test in their names"):
        mmaction(tmp_path, {"notes.txt": "run/c.mp4 0\n"})
