"""Data sets whose tables YAML files describe, and folders of Hugging Face, in tiny made-up copies."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline import importers
from pipeline.errors import Refusal, UsageError
from pipeline.manifest import Manifest


def write(top: Path, files: dict[str, object]) -> Path:
    for name, content in files.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return top


def facts(manifest: Manifest) -> list[tuple[str, str, str, str]]:
    return [(row.path, row.label, row.source, row.split) for row in manifest.rows]


@pytest.mark.parametrize(("folder", "start"), [("labels/", ""), ("", "something-something-v2-")])
def test_something_something_v2_is_read_by_its_official_lists(tmp_path: Path, folder: str, start: str) -> None:
    lists = {
        "train": [{"id": "7", "label": "holding a pen", "template": "Holding [something]", "placeholders": ["a pen"]}],
        "validation": [{"id": "12", "template": "Approaching [something] with your camera"}],
        "labels": {"Holding something": "1", "Approaching something with your camera": "0"},
        "test": [{"id": "9"}],
    }
    videos = dict.fromkeys(("20bn/7.webm", "20bn/12.webm", "20bn/9.webm"), "")
    write(tmp_path, {**{f"{folder}{start}{name}.json": listed for name, listed in lists.items()}, **videos})
    manifest = importers.read("ssv2", tmp_path / "20bn")
    assert manifest.classes == ["Approaching something with your camera", "Holding something"]
    assert facts(manifest) == [
        ("12.webm", manifest.classes[0], "12", "test"),
        ("7.webm", manifest.classes[1], "7", "train"),
    ]
    assert manifest.notes == (
        "left out, as no list has them: 1 video in the folder, 9.webm",
        "Something-something v2 has 193,690 videos of 174 classes (168,913 train, 24,777 test); "
        "yours has 2 videos of 2 classes (1 train, 1 test)",
    )


DIVE = "-mmq0PT-u8k"


def diving48(top: Path, label: object = 1) -> Path:
    """The folder of its videos, which has the lists beside it."""
    write(
        top,
        {
            "Diving48_V2_train.json": [
                {"vid_name": f"{DIVE}_00155", "label": label, "start_frame": 0, "end_frame": 48},
                {"vid_name": f"{DIVE}_00156", "label": 0, "start_frame": 0, "end_frame": 70},
            ],
            "Diving48_V2_test.json": [{"vid_name": "A_b1C_d2E_3_00001", "label": 1}],
            "Diving48_train.json": [{"vid_name": f"{DIVE}_00155", "label": 0}],  # the first version's, wrong
            "Diving48_vocab.json": [["Back", "15som", "05Twis", "FREE"], ["Back", "15som", "15Twis", "FREE"]],
            **dict.fromkeys((f"rgb/{DIVE}_00155.mp4", f"rgb/{DIVE}_00156.mp4", "rgb/A_b1C_d2E_3_00001.mp4"), "video"),
        },
    )
    return top / "rgb"


def test_diving48_knows_its_recordings(tmp_path: Path) -> None:
    manifest = importers.read("diving48", diving48(tmp_path))
    first, second = "Back 15som 05Twis FREE", "Back 15som 15Twis FREE"
    assert manifest.classes == [first, second]
    assert facts(manifest) == [
        (f"{DIVE}_00155.mp4", second, DIVE, "train"),
        (f"{DIVE}_00156.mp4", first, DIVE, "train"),
        ("A_b1C_d2E_3_00001.mp4", second, "A_b1C_d2E_3", "test"),
    ]
    assert "has 16,997 videos of 48 classes (15,027 train, 1,970 test)" in manifest.notes[-1]


@pytest.mark.parametrize(
    ("label", "message"),
    [(2, "label 2 is beyond the 2 classes"), ("9" * 5000, "is beyond the 2 classes"), ("Front", "not in the class")],
)
def test_a_label_that_the_class_list_lacks_is_refused_by_its_row(tmp_path: Path, label: object, message: str) -> None:
    with pytest.raises(Refusal, match=message) as refused:
        importers.read("diving48", diving48(tmp_path, label))
    assert refused.value.where.endswith("Diving48_V2_train.json, row 1")


def test_a_table_of_ava_lists_each_movie_once_and_without_a_label(tmp_path: Path) -> None:
    rows = "-5KQ66BBWC4,0902,0.077,0.151,0.283,0.811,80,1\n-5KQ66BBWC4,0903,0.1,0.1,0.2,0.8,9,1\n"
    movies = dict.fromkeys(("-5KQ66BBWC4.mkv", "1j20qq1JyX4.mp4"), "video")
    lists = {"ava_train_v2.2.csv": rows, "ava_val_v2.2.csv": "1j20qq1JyX4,0902,0.1,0.1,0.2,0.8,12,0\n"}
    manifest = importers.read("ava", write(tmp_path, {**movies, **lists}))
    assert facts(manifest) == [
        ("-5KQ66BBWC4.mkv", "", "-5KQ66BBWC4", "train"),
        ("1j20qq1JyX4.mp4", "", "1j20qq1JyX4", "val"),
    ]
    assert manifest.notes == (
        "AVA 2.2, fifteen minutes of movies has 299 videos (235 train, 64 val); yours has 2 videos (1 train, 1 val)",
    )


@pytest.mark.parametrize(("number", "train", "val"), [(600, "383,393", "27,910"), (700, "542,357", "34,824")])
def test_larger_kinetics_have_the_csvs_of_the_first(tmp_path: Path, number: int, train: str, val: str) -> None:
    csv = "label,youtube_id,time_start,time_end,split\nzumba,-a_B1,10,20,train\n"
    write(tmp_path, {"annotations/train.csv": csv, "train/zumba/-a_B1_000010_000020.mp4": "video"})
    manifest = importers.read(f"kinetics{number}", tmp_path)
    assert facts(manifest) == [("train/zumba/-a_B1_000010_000020.mp4", "zumba", "-a_B1", "train")]
    assert f"of {number} classes ({train} train, {val} val); yours has 1 video" in manifest.notes[-1]


def test_ones_own_table_is_described_in_yaml(tmp_path: Path) -> None:
    lines = "clip,activity,set,camera\na/1.mp4,10,train,front\nb/2.mp4,9,Validation,back\nb/3.mp4,,test,back\n"
    write(tmp_path, {"list.csv": lines, **dict.fromkeys(("videos/a/1.mp4", "videos/b/2.mp4", "videos/b/3.mp4"), "x")})
    text = "importer: table\nsettings: {lists: list.csv, path: clip, label: activity, subset: set}\n"
    write(tmp_path, {"mine.yaml": text + "known: {classes: 2, train: 1, val: 1, test: 1}\n"})
    manifest = importers.read(str(tmp_path / "mine.yaml"), tmp_path / "videos")
    assert manifest.classes == ["9", "10"]
    assert [(row.path, row.label, row.split) for row in manifest.rows] == [
        ("a/1.mp4", "10", "train"),
        ("b/2.mp4", "9", "val"),
        ("b/3.mp4", "", "test"),
    ]
    assert manifest.notes == ()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.csv": "name,label\nx,y\n"}, "have no column 'path'"),
        ({"a.csv": "path,label\na,y\n,y\n"}, "a row names no video"),
        ({"a.csv": "path,label,split\na,y,best\n"}, "split 'best' is none of"),
        ({"a.csv": "path,label\na,x,y\n"}, "it has more fields than there are columns"),
        ({"a.csv": "path,label,label\na,x,y\n"}, "names a column twice"),
        ({"a.csv": "path,label\na,x\n", "list.json": "{}"}, "the class list is empty"),
        ({"a.csv": "path,label\na,1\n", "list.json": '{"x": 1, "y": 2}'}, "does not give each class its place"),
        ({"a.csv": "path,label\na,1\n", "list.json": '{"x": 1e999}'}, "does not give each class its place"),
        ({"a.json": '{"a": 1}'}, "it is no list of objects"),
        ({"a.json": "[1"}, "the list cannot be read"),
        ({"a.json": "[" * 100_000}, "the list cannot be read"),
        ({}, "there are no tables"),
    ],
)
def test_a_table_that_cannot_be_meant_is_refused(tmp_path: Path, files: dict[str, object], message: str) -> None:
    settings = "settings: {files: a.(csv|json), class_files: list.json}"
    write(tmp_path, {**files, "videos/a.mp4": "video", "mine.yaml": f"importer: table\n{settings}\n"})
    with pytest.raises(Refusal, match=message):
        importers.read(str(tmp_path / "mine.yaml"), tmp_path / "videos", lists=tmp_path if not files else None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("settings: {files: '('}", "no regular expression"),
        ("settings: {val_is: best}", 'unknown split "best"'),
        ("known: {clases: 3}", 'did you mean "classes"'),
        ("known: {classes: many}", "classes 'many' is no number"),
        ("known: 3", 'unknown count "known"'),
    ],
)
def test_a_description_that_cannot_be_meant_is_refused(tmp_path: Path, text: str, message: str) -> None:
    write(tmp_path, {"a.csv": "path\na\n", "videos/a.mp4": "video", "mine.yaml": f"importer: table\n{text}\n"})
    with pytest.raises(UsageError, match=message):
        importers.read(str(tmp_path / "mine.yaml"), tmp_path / "videos")


def test_a_folder_of_hugging_face_is_read_by_its_metadata(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "train/metadata.csv": "file_name,label,text\ncats/1.mp4,cat,a cat\n2.mp4,dog,a dog\n",
            "validation/metadata.jsonl": '{"file_name": "3.mp4", "label": "dog", "text": "\u2028", "boxes": [1, 2]}\n',
            "metadata.csv": "file_name,label,split\nmore/4.mp4,cat,test\nmore/5.mp4,,\ntest\\6.mp4,cat,\n",
            **dict.fromkeys(("train/cats/1.mp4", "train/2.mp4", "validation/3.mp4", "more/4.mp4", "more/5.mp4"), "x"),
            "test/6.mp4": "x",
        },
    )
    manifest = importers.read("huggingface", tmp_path)
    assert manifest.classes == ["cat", "dog"]
    assert [(row.path, row.label, row.split) for row in manifest.rows] == [
        ("more/4.mp4", "cat", "test"),
        ("more/5.mp4", "", ""),
        ("test/6.mp4", "cat", "test"),
        ("train/2.mp4", "dog", "train"),
        ("train/cats/1.mp4", "cat", "train"),
        ("validation/3.mp4", "dog", "val"),
    ]
    assert manifest.notes == ()


def test_metadata_without_labels_is_told_and_numbers_are_places_of_a_class_list(tmp_path: Path) -> None:
    write(tmp_path, {"metadata.csv": "file_name,text\n1.mp4,0\n", "1.mp4": "video", "classes.txt": "cat\ndog\n"})
    manifest = importers.read("huggingface", tmp_path)
    assert manifest.rows[0].label == ""
    assert manifest.notes == ("the metadata has no column label: videos have no labels",)
    write(tmp_path, {"mine.yaml": "importer: huggingface\nsettings: {label: text, classes: classes.txt}\n"})
    manifest = importers.read(str(tmp_path / "mine.yaml"), tmp_path)
    assert (manifest.rows[0].label, manifest.classes) == ("cat", ["cat", "dog"])


@pytest.mark.parametrize(
    ("files", "message"),
    [({}, "there is no metadata.csv or metadata.jsonl"), ({"metadata.csv": "path\n1.mp4\n"}, "a row has no file_name")],
)
def test_a_folder_without_metadata_is_refused(tmp_path: Path, files: dict[str, object], message: str) -> None:
    with pytest.raises(Refusal, match=message):
        importers.read("huggingface", write(tmp_path, {**files, "1.mp4": "video"}))
