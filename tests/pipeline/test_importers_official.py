"""UCF101, HMDB51 and Kinetics-400 in tiny made-up copies of their official layouts."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline import importers
from pipeline.errors import Refusal
from pipeline.manifest import Manifest, Video

CLASS_LIST = "1 ApplyEyeMakeup\r\n2 Hammering\r\n3 HammerThrow\r\n4 HandstandPushups\r\n"
TRAIN = {
    "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi": 1,
    "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c02.avi": 1,
    "Hammering/v_Hammering_g09_c01.avi": 2,
    "HandstandPushups/v_HandStandPushups_g10_c01.avi": 4,
}
TEST = ["HammerThrow/v_HammerThrow_g01_c01.avi", "HandstandPushups/v_HandStandPushups_g01_c01.avi"]
UCF101 = [*TRAIN, *TEST]


def write(top: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(text.encode())
    return top


def ucf101(top: Path, *videos: str, folder: str = "ucfTrainTestlist", end: str = "\r\n") -> Path:
    """A folder of videos with UCF101's lists in it; in split 2 the test videos are those of split 1's training."""
    train = "".join(f"./{path}\t{number}{end}" for path, number in TRAIN.items())
    test = "".join(f"/data/UCF-101/{path}{end}" for path in TEST)
    turned = "".join(f"{path} {1 + ('Push' in path) + 2}{end}" for path in TEST)
    lists = {"trainlist01": train, "testlist01": test, "trainlist02": turned, "testlist02": "\n".join(TRAIN)}
    write(top, {f"{folder}/{name}.txt": text for name, text in {"classInd": CLASS_LIST, **lists}.items()})
    return write(top, dict.fromkeys(videos, ""))


def facts(manifest: Manifest) -> list[tuple[str, str, str, str]]:
    return [(row.path, row.label, row.source, row.split) for row in manifest.rows]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_ucf101_is_read_by_its_official_lists(tmp_path: Path, end: str) -> None:
    manifest = importers.read("ucf101", ucf101(tmp_path, *UCF101, end=end))
    assert manifest.classes == ["ApplyEyeMakeup", "Hammering", "HammerThrow", "HandstandPushups"]
    assert facts(manifest) == [
        (UCF101[0], "ApplyEyeMakeup", "ApplyEyeMakeup_g08", "train"),
        (UCF101[1], "ApplyEyeMakeup", "ApplyEyeMakeup_g08", "train"),
        (UCF101[4], "HammerThrow", "HammerThrow_g01", "test"),
        (UCF101[2], "Hammering", "Hammering_g09", "train"),
        (UCF101[5], "HandstandPushups", "HandstandPushups_g01", "test"),
        (UCF101[3], "HandstandPushups", "HandstandPushups_g10", "train"),
    ]
    assert manifest.rows[0].video_id == "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01"
    assert manifest.notes == (
        "UCF101, split 1, has 13,320 videos of 101 classes (9,537 train, 3,783 test); "
        "yours has 6 videos of 4 classes (4 train, 2 test)",
    )


def test_the_other_splits_of_ucf101_can_be_chosen(tmp_path: Path) -> None:
    ucf101(tmp_path, *UCF101)
    manifest = importers.read("ucf101", tmp_path, split=2)
    assert {row.path: row.split for row in manifest.rows} == {
        **dict.fromkeys(TRAIN, "test"),
        **dict.fromkeys(TEST, "train"),
    }
    assert "UCF101, split 2, has 13,320 videos of 101 classes (9,586 train, 3,734 test)" in manifest.notes[0]
    with pytest.raises(Refusal, match=r"trainlist03\.txt is not among the lists") as refused:
        importers.read("ucf101", tmp_path, split=3)
    assert refused.value.where == str(tmp_path / "ucfTrainTestlist")


@pytest.mark.parametrize("folder", ["HandstandPushups", "HandStandPushups"])
@pytest.mark.parametrize("name", ["v_HandStandPushups_g10_c01.avi", "v_HandstandPushups_g10_c01.mp4"])
def test_the_case_of_handstand_pushups_does_not_matter(tmp_path: Path, folder: str, name: str) -> None:
    manifest = importers.read("ucf101", ucf101(tmp_path, f"{folder}/{name}"))
    assert facts(manifest) == [(f"{folder}/{name}", "HandstandPushups", "HandstandPushups_g10", "train")]
    assert manifest.notes[0].startswith("5 of 6 listed videos are not there: ApplyEyeMakeup/v_")


def test_the_lists_of_ucf101_may_lie_elsewhere(tmp_path: Path) -> None:
    videos = write(tmp_path / "videos", dict.fromkeys(UCF101, ""))
    with pytest.raises(Refusal, match=r"no official lists of UCF101 \(ucfTrainTestlist/classInd") as refused:
        importers.read("ucf101", videos)
    assert "LISTS=" in refused.value.remedy
    ucf101(tmp_path / "far", folder="mine")
    ucf101(tmp_path / "near")
    for lists in (tmp_path / "far" / "mine", tmp_path / "near"):
        assert len(importers.read("ucf101", videos, lists=lists).rows) == 6
    ucf101(tmp_path)
    assert len(importers.read("ucf101", videos).rows) == 6


def test_nothing_of_the_lists_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="none of the 6 listed videos is there") as refused:
        importers.read("ucf101", ucf101(tmp_path, "frames/ApplyEyeMakeup/0001.jpg", "other.mp4"))
    assert "1 file that may be a video" in refused.value.where
    assert "not frames" in refused.value.remedy


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("Hammering/v_Hammering_g09_c01.avi 1", "Hammering is number 2, not 1"),
        ("Hamering/v_Hammering_g09_c01.avi 2", '"Hamering" is not in the class list'),
        ("v_Hammering_g09_c01.avi 2", "does not name a class folder"),
        ("Hammering/v_Hammering_g09_c01.avi " + "9" * 5000, "Hammering is number 2, not 9"),
    ],
)
def test_a_line_that_contradicts_the_class_list_is_refused(tmp_path: Path, line: str, message: str) -> None:
    ucf101(tmp_path, *UCF101)
    (tmp_path / "ucfTrainTestlist" / "trainlist01.txt").write_text(f"{UCF101[0]} 1\n\n{line}\n")
    with pytest.raises(Refusal, match=message) as refused:
        importers.read("ucf101", tmp_path)
    assert refused.value.where.endswith("trainlist01.txt, line 3")


ODD = ["#20_[x]_(y)!_chew_&_;_nm.avi", "April_09_brush_hair_u_goo_0.avi", "April_09_brush_hair_u_goo_1.avi"]


def hmdb51(top: Path, *videos: str) -> Path:
    write(
        top / "testTrainMulti_7030_splits",
        {
            "chew_test_split1.txt": f"{ODD[0]} 1 \r\n",
            "chew_test_split2.txt": f"{ODD[0]} 2 \n",
            "brush_hair_test_split1.txt": f"{ODD[1]} 2 \n{ODD[2]} 0 \n",
            "brush_hair_test_split2.txt": f"{ODD[1]} 1 \n{ODD[2]} 1 \n",
        },
    )
    return write(top, dict.fromkeys(videos, ""))


def test_hmdb51_is_read_by_its_official_lists(tmp_path: Path) -> None:
    videos = [f"chew/{ODD[0]}", f"brush_hair/{ODD[1]}", f"brush_hair/brush_hair/{ODD[2]}"]
    manifest = importers.read("hmdb51", hmdb51(tmp_path, *videos))
    assert manifest.classes == ["brush_hair", "chew"]
    assert manifest.rows == [
        Video(videos[1][:-4], videos[1], "brush_hair", videos[1][:-4], "test"),
        Video(videos[2][:-4], videos[2], "brush_hair", videos[2][:-4], ""),
        Video(videos[0][:-4], videos[0], "chew", videos[0][:-4], "train"),
    ]
    assert manifest.notes == (
        "HMDB51, split 1, has 6,766 videos of 51 classes (3,570 train, 1,530 test, 1,666 no split); "
        "yours has 3 videos of 2 classes (1 train, 1 test, 1 no split)",
    )
    assert [row.split for row in importers.read("hmdb51", tmp_path, split=2).rows] == ["train", "train", "test"]


def test_the_classes_of_hmdb51_may_have_another_order(tmp_path: Path) -> None:
    hmdb51(tmp_path, f"chew/{ODD[0]}")
    write(tmp_path, {"ClassInd.txt": "chew\r\nbrush_hair\r\nwave\r\n", "short.txt": "chew\n"})
    manifest = importers.read("hmdb51", tmp_path, classes=tmp_path / "ClassInd.txt")
    assert manifest.classes == ["chew", "brush_hair", "wave"]
    with pytest.raises(Refusal, match='"brush_hair" is not in the class list'):
        importers.read("hmdb51", tmp_path, classes=tmp_path / "short.txt")


@pytest.mark.parametrize("line", ["a.avi", "a.avi 3", "1", "a.avi1"])
def test_a_line_of_hmdb51_that_tells_no_use_is_refused(tmp_path: Path, line: str) -> None:
    hmdb51(tmp_path, f"chew/{ODD[0]}")
    (tmp_path / "testTrainMulti_7030_splits" / "chew_test_split1.txt").write_text(line)
    with pytest.raises(Refusal, match="does not end in 0, 1 or 2") as refused:
        importers.read("hmdb51", tmp_path)
    assert refused.value.where.endswith("chew_test_split1.txt, line 1")


HEADER = "label,youtube_id,time_start,time_end,split"
KINETICS = {
    "annotations/train.csv": f'{HEADER},is_cc\nzumba,-a_B1,10,20,train,0\n"playing guitar",cD-2,0,10.0,train,0\n',
    "annotations/val.csv": f"{HEADER}\r\nzumba,eF3,1,11,validate\r\n",
    "annotations/test.csv": "youtube_id,time_start,time_end\ngH4,5,15\n",
    "annotations/readme.csv": "something,else\n",
}


@pytest.mark.parametrize(
    "videos",
    [
        ["train/zumba/-a_B1_000010_000020.mp4", "train/playing_guitar/cD-2_000000_000010.mp4", "val/zumba/eF3.webm",
         "test/gH4_000005_000015.mp4"],
        ["zumba/-a_B1.mkv", "playing guitar/cD-2.mp4", "zumba/eF3_000001_000011.mp4", "gH4.mp4"],
        ["-a_B1.mkv", "train/cD-2_000000_000010.mp4", "val/eF3_000001_000011.mp4", "test/gH4.mp4"],
    ],
)  # fmt: skip
def test_kinetics_is_read_by_its_csvs_wherever_the_files_are(tmp_path: Path, videos: list[str]) -> None:
    manifest = importers.read("kinetics400", write(tmp_path, {**KINETICS, **dict.fromkeys(videos, "")}))
    assert manifest.classes == ["playing guitar", "zumba"]
    expected = [
        (videos[0], "zumba", "-a_B1", "train"),
        (videos[1], "playing guitar", "cD-2", "train"),
        (videos[2], "zumba", "eF3", "val"),
        (videos[3], "", "gH4", "test"),
    ]
    assert facts(manifest) == sorted(expected)
    assert len(manifest.notes) == 1
    assert manifest.notes[0].startswith("CoCLR's copy of Kinetics-400 has 251,563 videos of 400 classes (232,422 train")


def test_what_kinetics_lacks_is_told(tmp_path: Path) -> None:
    videos = [
        "zumba/-a_B1.mp4",
        "zumba/-A_b1_000010_000021.mp4",
        "zumba/Ef3_000001_000011.mp4",
        "zumba/-a_B1_000010_000020.mp4",
    ]
    manifest = importers.read("kinetics400", write(tmp_path, {**KINETICS, **dict.fromkeys(videos, "")}))
    assert [row.path for row in manifest.rows] == [videos[3]]
    assert manifest.notes[0] == (
        "3 of 4 listed videos are not there: gH4_000005_000015.mp4, playing guitar/cD-2_000000_000010.mp4,"
        " zumba/eF3_000001_000011.mp4"
    )
    assert manifest.notes[1].startswith("left out, as no list has them: 3 videos in the folder, zumba/-A_b1_")


def test_one_csv_of_kinetics_and_a_class_list_can_be_named(tmp_path: Path) -> None:
    write(tmp_path, {**KINETICS, "zumba/eF3.mp4": "", "classes.txt": "zumba\nplaying guitar\n"})
    options = {"lists": tmp_path / "annotations" / "val.csv", "classes": tmp_path / "classes.txt"}
    manifest = importers.read("kinetics400", tmp_path, **options)
    assert (facts(manifest), manifest.classes) == (
        [("zumba/eF3.mp4", "zumba", "eF3", "val")],
        ["zumba", "playing guitar"],
    )


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("zumba,,1,2,train", "'' is no YouTube id"),
        ("zumba,a/b,1,2,train", "'a/b' is no YouTube id"),
        ("zumba,ab,one,2,train", "not numbers of seconds"),
        ("zumba,ab,1,1e300,train", "not numbers of seconds"),
        ("zumba,ab,-1,2,train", "not numbers of seconds"),
        ("pull, push,ab,1,2,train", "it has more fields than there are columns"),
        ("zumba,ab,1,2,best", "split 'best' is none of"),
    ],
)
def test_a_bad_row_of_kinetics_is_refused(tmp_path: Path, row: str, message: str) -> None:
    write(tmp_path, {"train.csv": f"{HEADER}\nzumba,ok,1,2,train\n{row}\n", "zumba/ok.mp4": ""})
    with pytest.raises(Refusal, match=message) as refused:
        importers.read("kinetics400", tmp_path)
    assert refused.value.where.endswith("train.csv, line 3")


def test_a_folder_without_csvs_of_kinetics_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {"videos/zumba/a.mp4": "", "videos/manifest.csv": "video_id,path,label,source,split\n"})
    (tmp_path / "videos" / "latin.csv").write_bytes(b"caf\xe9,youtube_id\n")
    with pytest.raises(Refusal, match="no CSVs of Kinetics with the columns label,youtube_id"):
        importers.read("kinetics400", tmp_path / "videos")
