"""What the importers of lists share: where lists lie, how a listed video is found on disk, what is told."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline import importers
from pipeline.errors import Refusal, UsageError
from pipeline.importers import lists as official
from pipeline.importers.matching import Entry, Known, match

NAME = st.text(st.sampled_from(list("aB1 _-[](){}!#&;%*?é動.")), min_size=1, max_size=6).filter(
    lambda name: not name.startswith(".") and name.strip() == name
)


def touch(top: Path, *paths: str) -> Path:
    for path in paths:
        (top / path).parent.mkdir(parents=True, exist_ok=True)
        (top / path).touch()
    return top


def found(videos: Path, *listed: str, split: str = "train") -> dict[str, str]:
    """Listed path -> path on disk."""
    manifest = match(videos, [Entry(path, path, split) for path in listed], list(listed))
    return {row.label: row.path for row in manifest.rows}


@given(names=st.lists(NAME, min_size=1, max_size=6, unique_by=str.casefold), flat=st.booleans())
@example(names=["#1_[x]_(y)!_&_;z", "* ?", "a.b", "été"], flat=False)
def test_listed_names_are_found_whatever_they_hold(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], flat: bool
) -> None:
    videos = tmp_path_factory.mktemp("videos")
    listed = [f"class [x]/{name}.avi" for name in names]
    disk = [f"{name}.avi" for name in names] if flat else listed
    touch(videos, *disk, *(f"{name}.txt" for name in disk))
    assert found(videos, *listed) == dict(zip(listed, disk, strict=True))
    manifest = match(videos, [Entry(path) for path in listed], [])
    assert manifest.notes == ()
    assert [row.path for row in manifest.rows] == sorted(disk)


@pytest.mark.parametrize(
    ("disk", "listed"),
    [
        ("walk/a.mp4", "walk/a.avi"),
        ("walk/a.avi", "walk/a"),
        ("UCF-101/walk/a.avi", "walk/a.avi"),
        ("Walk_Dog/A.avi", "walk dog/a.avi"),
        ("train/walk/a.avi", "walk/a.avi"),
        ("a.avi", "walk/a.avi"),
        ("Train/A.avi", "walk/a.avi"),
        ("walk/noextension", "walk/noextension.avi"),
        ("walk/a.avi", "/data/of another/walk/a.avi"),
        ("walk/a.mp4", "C:\\data\\Walk\\a.avi"),
        ("walk/a b.avi", "walk/a\xa0b\u200b.avi"),
        ("walk/a .avi", "walk/\uff41.avi"),
    ],
)
def test_a_video_is_found_as_people_keep_it(tmp_path: Path, disk: str, listed: str) -> None:
    assert found(touch(tmp_path, disk), listed) == {listed: disk}


@pytest.mark.parametrize(
    ("disk", "listed"),
    [
        ("run/a.avi", "walk/a.avi"),
        ("walk/a.avi", "a.avi"),
        ("val/walk/a.avi", "train/walk/a.avi"),
        ("walk/b.avi", "walk/a.avi"),
        ("walk/a.2.avi", "walk/a.1.avi"),
        ("walk/a.jpg", "walk/a.avi"),
        ("walk/a/0001.jpg", "walk/a"),
        (".walk/a.avi", "walk/a.avi"),
        ("val/walk/a.avi", "/data/walk/a.txt"),
        ("val/walk/a.avi", "/data/train/walk/a.avi"),
    ],
)
def test_another_video_is_not_taken_for_it(tmp_path: Path, disk: str, listed: str) -> None:
    with pytest.raises(Refusal, match="none of the 1 listed videos is there, the first is"):
        found(touch(tmp_path, disk), listed)


def test_what_agrees_more_is_taken_and_no_file_twice(tmp_path: Path) -> None:
    touch(tmp_path, "c/a.mp4", "c/a.avi", "c/A.avi", "test/c/b.avi", "train/c/b.avi", "c/x.avi")
    assert found(tmp_path, "c/A.avi", "c/a.avi", "c/b.avi", "c/X.avi") == {
        "c/A.avi": "c/A.avi",
        "c/a.avi": "c/a.avi",
        "c/b.avi": "train/c/b.avi",
        "c/X.avi": "c/x.avi",
    }
    assert found(tmp_path, "c/b.avi", split="test") == {"c/b.avi": "test/c/b.avi"}
    assert found(tmp_path, "c/X.avi", "c/x.avi") == {"c/x.avi": "c/x.avi"}  # the first would be another video's file
    with pytest.raises(Refusal, match="none of the 1"):
        match(tmp_path, [Entry("c/X.avi")], [], case_matters=True)


def test_what_is_missing_and_what_is_not_listed_is_told(tmp_path: Path) -> None:
    touch(tmp_path, "c/0.avi", "c/z.mp4", "README", "c/note.txt")
    manifest = match(tmp_path, [Entry(f"c/{number}.avi") for number in range(8)], [])
    assert [row.video_id for row in manifest.rows] == ["c/0"]
    missing, unlisted = manifest.notes
    assert missing == ("7 of 8 listed videos are not there: c/1.avi, c/2.avi, c/3.avi, c/4.avi, c/5.avi, and 2 more")
    assert unlisted == "left out, as no list has them: 1 video in the folder, c/z.mp4"


def test_a_name_that_is_no_text_can_be_told(tmp_path: Path) -> None:
    touch(tmp_path, "c/a.avi", "c/caf\udce9.avi")
    (note,) = match(tmp_path, [Entry("c/a")], []).notes
    note.encode()
    assert "caf\\udce9.avi" in note


def test_counts_are_compared_with_the_known_ones(tmp_path: Path) -> None:
    touch(tmp_path, "c/a.avi", "c/b.avi", "d/c.avi")
    entries = [Entry("c/a", "c", "train"), Entry("c/b", "c", "test"), Entry("d/c", "d", "")]
    known = Known("The set", classes=2, splits={"train": 1, "test": 1, "": 1})
    assert match(tmp_path, entries, ["c", "d"], known=known).notes == ()
    known = Known("The set", classes=3, splits={"train": 1200, "test": 1})
    assert match(tmp_path, entries, ["c", "d"], known=known).notes == (
        "The set has 1,201 videos of 3 classes (1,200 train, 1 test); "
        "yours has 3 videos of 2 classes (1 train, 1 test, 1 no split)",
    )


def test_a_video_in_two_splits_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "c/a.avi")
    twice = [Entry("c/a", "c", "train"), Entry("c/a", "c", "train")]
    assert len(match(tmp_path, twice, ["c"]).rows) == 1
    with pytest.raises(Refusal, match=r"contradict each other: \(c, train\) and \(c, test\)"):
        match(tmp_path, [*twice, Entry("c/a", "c", "test")], ["c"])


def test_lists_that_name_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="the lists name no video"):
        match(tmp_path, [], [])
    with pytest.raises(Refusal, match="no such folder of videos"):
        match(tmp_path / "none", [Entry("c/a")], [])


@pytest.mark.parametrize("place", ["videos/lists/a.list", "videos/a.list", "lists/a.list", "a.list"])
def test_lists_are_found_in_and_beside_the_videos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    touch(tmp_path, "videos/x.mp4", "a.other", place)
    monkeypatch.chdir(tmp_path / "videos")
    for videos in (tmp_path / "videos", Path(".")):
        (path,) = official.find(videos, None, lambda path: path.suffix == ".list", "lists", ["lists"])
        assert path.samefile(tmp_path / place)


def test_named_lists_are_taken_and_no_others(tmp_path: Path) -> None:
    touch(tmp_path, "videos/a.list", "mine/lists/b.list", "empty/c.other")

    def find(named: str, one_will_do: bool = True) -> list[Path]:
        videos, lists = tmp_path / "videos", tmp_path / named
        return official.find(videos, lists, lambda path: path.suffix == ".list", "lists", ["lists"], one_will_do)

    assert find("mine") == find("mine/lists") == [tmp_path / "mine/lists/b.list"]
    assert find("empty/c.other") == [tmp_path / "empty/c.other"]
    for named, one_will_do in (("empty", True), ("none", True), ("mine/lists/b.list", False)):
        with pytest.raises(Refusal, match="there are no lists") as refused:
            find(named, one_will_do)
        assert str(tmp_path / named) in refused.value.where
        assert "LISTS=" in refused.value.remedy


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (b"1 Hammering\r\n2 HammerThrow\r\n", ["Hammering", "HammerThrow"]),
        (b"0,brush hair\n1,chew\n", ["brush hair", "chew"]),
        (b"\xef\xbb\xbfwalk\n\n 3 point shot\n", ["walk", "3 point shot"]),
        (b"a, b\nc", ["a, b", "c"]),
        (b"2 walk\n1 run\n", ["run", "walk"]),
        (b"100 m\n200 m\n", ["100 m", "200 m"]),
        (b"1000000000 a\n" + b"1" * 5000 + b" b", ["1000000000 a", "1" * 5000 + " b"]),
        (b"walk\n\xef\xbb\xbfrun", ["walk", "run"]),
    ],
)
def test_class_lists_are_read_in_all_their_shapes(tmp_path: Path, text: bytes, names: list[str]) -> None:
    (tmp_path / "list.txt").write_bytes(text)
    assert official.class_names(tmp_path / "list.txt") == names


@pytest.mark.parametrize(("text", "message"), [(b"\n", "is empty"), (b"caf\xe9", "cannot be read"), (None, "cannot")])
def test_a_bad_class_list_is_refused(tmp_path: Path, text: bytes | None, message: str) -> None:
    if text is not None:
        (tmp_path / "list.txt").write_bytes(text)
    with pytest.raises(Refusal, match=message):
        official.class_names(tmp_path / "list.txt")


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("kinetics400_train_list_videos.txt", "train"),
        ("ucf101_val_split_1_videos.txt", "val"),
        ("validation.csv", "val"),
        ("Testing.txt", "test"),
        ("latest.txt", ""),
        ("trained.txt", ""),
    ],
)
def test_the_name_of_a_list_tells_its_split(name: str, split: str) -> None:
    assert official.split_in_name(Path(name)) == split


def write_yaml(tmp_path: Path, text: str) -> str:
    (tmp_path / "mine.yaml").write_text(text)
    return str(tmp_path / "mine.yaml")


def test_settings_that_a_data_set_does_not_take_are_refused(tmp_path: Path) -> None:
    for dataset, option, value in (
        ("folder", "split", 2),
        ("kinetics400", "split", 1),
        ("ucf101", "classes", tmp_path),
    ):
        with pytest.raises(UsageError, match=f'"{dataset}" takes no --{option}'):
            importers.read(dataset, tmp_path, **{option: value})
    with pytest.raises(UsageError, match=r'unknown setting "splitt"(.|\n)*did you mean "split"'):
        importers.read(write_yaml(tmp_path, "importer: ucf101\nsettings: {splitt: 1}\n"), tmp_path)
    with pytest.raises(UsageError, match="not a mapping"):
        importers.read(write_yaml(tmp_path, "importer: ucf101\nsettings: 1\n"), tmp_path)


@pytest.mark.parametrize("dataset", ["ucf101", "hmdb51"])
@pytest.mark.parametrize("split", [0, 4])
def test_there_are_three_official_splits(tmp_path: Path, dataset: str, split: int) -> None:
    with pytest.raises(UsageError, match=f'unknown split "{split}"'):
        importers.read(dataset, tmp_path, split=split)


def test_paths_in_a_description_start_at_its_folder(tmp_path: Path) -> None:
    touch(tmp_path, "videos/walk/a.mp4")
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "train.txt").write_text("walk/a.mp4 1\n")
    (tmp_path / "classes.txt").write_text("run\nwalk\n")
    text = "importer: mmaction\nsettings: {lists: lists, classes: classes.txt}\n"
    manifest = importers.read(write_yaml(tmp_path, text), tmp_path / "videos")
    assert (manifest.rows[0].label, manifest.classes) == ("walk", ["run", "walk"])


def test_what_the_command_line_says_goes_before_the_description(tmp_path: Path) -> None:
    touch(tmp_path, "videos/walk/a.mp4", "one/train.txt", "two/test.txt")
    for name in ("one/train.txt", "two/test.txt"):
        (tmp_path / name).write_text("walk/a.mp4 0\n")
    dataset = write_yaml(tmp_path, "importer: mmaction\nsettings: {lists: one}\n")
    for lists, split in ((None, "train"), (tmp_path / "two", "test")):
        assert importers.read(dataset, tmp_path / "videos", lists=lists).rows[0].split == split


@pytest.mark.parametrize("label", ["1000000000", "9" * 5000])
def test_a_label_that_is_absurd_is_refused_by_its_line(tmp_path: Path, label: str) -> None:
    touch(tmp_path, "a/b.mp4")
    (tmp_path / "train.txt").write_text(f"a/b.mp4 {label}\n")
    with pytest.raises(Refusal, match="label .* is beyond 99,999") as refused:
        importers.read("mmaction", tmp_path)
    assert refused.value.where == f"{tmp_path / 'train.txt'}, line 1"


def test_a_count_of_frames_may_be_any_number(tmp_path: Path) -> None:
    touch(tmp_path, "a/b.mp4", "a/c.mp4")
    (tmp_path / "train_split01.csv").write_text(f"x/a/b.mp4,{'9' * 5000}\nx/a/c.mp4,000\n")
    manifest = importers.read("coclr", tmp_path)
    assert [row.video_id for row in manifest.rows] == ["a/b", "a/c"]
    assert any(note.startswith("kept, though CoCLR drops") for note in manifest.notes)


def test_times_that_are_no_times_are_refused_by_their_line(tmp_path: Path) -> None:
    touch(tmp_path, "a/b.mp4")
    (tmp_path / "train.csv").write_text("label,youtube_id,time_start,time_end,split\na,b,inf,1,train\n")
    with pytest.raises(Refusal, match="the times are not numbers of seconds"):
        importers.read("kinetics400", tmp_path)


@pytest.mark.parametrize(("listed", "there"), [("NFC", "NFD"), ("NFD", "NFC"), ("NFC", "NFC")])
@pytest.mark.parametrize("dataset", ["mmaction", "coclr"])
def test_names_that_look_alike_are_one_in_lists_and_folders(
    tmp_path: Path, dataset: str, listed: str, there: str
) -> None:
    folder, name = "caf\u00e9 \u1e69", "\u00e9t\u00e9 \uac00"
    file = tmp_path / "videos" / unicodedata.normalize(there, folder) / unicodedata.normalize(there, f"{name}.avi")
    file.parent.mkdir(parents=True)
    file.write_bytes(b"video")
    path = unicodedata.normalize(listed, f"{folder}/{name}")
    line, list_name = (
        (f"{path}.avi 0\n", "train.txt") if dataset == "mmaction" else (f"{path},9\n", "train_split01.csv")
    )
    (tmp_path / "videos" / list_name).write_text(line, encoding="utf-8")
    manifest = importers.read(dataset, tmp_path / "videos")
    assert [row.path for row in manifest.rows] == [file.relative_to(tmp_path / "videos").as_posix()]
    assert not [note for note in manifest.notes if "not there" in note]


def test_the_file_that_has_the_listed_bytes_comes_first(tmp_path: Path) -> None:
    for form in ("NFC", "NFD"):
        (tmp_path / unicodedata.normalize(form, "\u00e9.avi")).write_bytes(form.encode())
    for form in ("NFC", "NFD"):
        (tmp_path / "train.txt").write_text(unicodedata.normalize(form, "\u00e9.avi 0\n"), encoding="utf-8")
        [row] = importers.read("mmaction", tmp_path).rows
        assert (tmp_path / row.path).read_bytes() == form.encode()


def test_two_ids_that_look_alike_are_named_fails(tmp_path: Path) -> None:
    for form in ("NFC", "NFD"):
        (tmp_path / unicodedata.normalize(form, "\u00e9.avi")).write_bytes(b"video")
    with pytest.raises(Refusal, match=r"'e\\u0301' and '\\xe9' look alike"):
        importers.read("folder", tmp_path)
