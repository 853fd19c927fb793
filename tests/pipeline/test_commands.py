"""The command line of stage one: exit codes, summary lines, messages."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline import __main__ as program
from pipeline import synthetic
from pipeline.commands import stores
from pipeline.manifest import Manifest
from pipeline.store import VideoStore, catalogue, layout, open_store, shard

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def store(synthetic_store: VideoStore, tmp_path: Path) -> Path:
    return Path(shutil.copytree(synthetic_store.root, tmp_path / "store"))


@pytest.mark.parametrize("command", program.COMMANDS)
def test_every_command_has_help(run: Run, command: str) -> None:
    code, out, _ = run(command, "--help")
    assert code == 0
    assert "usage: pipeline" in out


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("extrct",),
        ("extract", "--videos", "v"),
        ("extract", "--videos", "v", "--store", "s", "--rgb.qualty", "3"),
        ("extract", "--videos", "v", "--store", "s", "--rgb.quality", "high"),
    ],
)
def test_a_wrong_command_line_is_exit_code_two(run: Run, arguments: tuple[str, ...]) -> None:
    code, _, err = run(*arguments)
    assert code == 2
    assert "error" in err


def test_settings_that_cannot_be_meant_are_exit_code_two(run: Run, synthetic_videos: Path, tmp_path: Path) -> None:
    extract = ("extract", "--videos", synthetic_videos, "--store", tmp_path / "store")
    code, _, err = run(*extract, "--flow.estimator", "tvl2")
    assert code == 2
    assert 'did you mean "tvl1"' in err
    assert run(*extract, "--dataset", "foldr")[0] == 2
    assert run(*extract, "--rgb.short_side", "3")[0] == 2
    assert not (tmp_path / "store").exists()


def test_bad_input_is_exit_code_one_with_what_where_and_what_to_do(
    run: Run, synthetic_videos: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    for videos, store, message in (
        (tmp_path / "none", "store", "there is no such folder of videos"),
        (tmp_path / "empty", "store", "no video was found"),
        (synthetic_videos, "file", "the store's path is a file"),
    ):
        code, _, err = run("extract", "--videos", videos, "--store", tmp_path / store, "--flow.estimator", "dis")
        assert code == 1
        assert message in err
        assert "where: " in err
        assert "to do: " in err
        assert "Traceback" not in err
    assert not (tmp_path / "store").exists()


def test_extraction_ends_with_one_line_and_quarantine_is_exit_code_three(run: Run, tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    (videos / "jump").mkdir(parents=True)
    synthetic.write_mp4(videos / "jump" / "a.mp4", synthetic.video(synthetic.CLASSES[0], 0, 5, 32, 48))
    (videos / "jump" / "[b].mp4").write_bytes(b"")
    extract = ("extract", "--videos", videos, "--store", tmp_path / "store", "--views", "rgb", "--workers", 1)
    code, out, err = run(*extract)
    assert code == stores.QUARANTINE_EXIT_CODE
    assert "stored 1 video (5 frames), 1 in quarantine, in" in out
    assert "quarantined 1 video   1 x the file is empty (0 bytes)     jump/[b]" in err
    assert open_store(tmp_path / "store").info("jump/a").views == ("rgb",)
    code, out, _ = run(*extract)
    assert code == stores.QUARANTINE_EXIT_CODE
    assert "stored 0 videos (0 frames), 1 was there already, 1 in quarantine" in out
    code, out, _ = run("status", "--store", tmp_path / "store")
    assert code == 0
    assert "1 x the file is empty (0 bytes)     jump/[b]" in out


@pytest.mark.usefixtures("in_this_process")
def test_frames_and_sizes_are_chosen_by_options(run: Run, tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    path = tmp_path / "videos" / "a.mp4"
    synthetic.write_mp4(path, synthetic.video(synthetic.CLASSES[0], 0, 30, 32, 48))
    data = bytearray(path.read_bytes())
    data[data.index(b"mdat") + 5000 : -2000] = bytes(len(data) - 7000 - data.index(b"mdat"))
    path.write_bytes(data)
    extract = ("extract", "--videos", tmp_path / "videos", "--views", "rgb", "--workers", 1, "--store")
    options = ("--decode.fps", "12.5", "--decode.accept_partial", "true", "--rgb.size", "[20,40]")
    code, out, err = run(*extract, tmp_path / "parts", *options)
    assert code == 0
    assert "stored 1 video" in out
    assert "1 of them in part" in out
    assert "stored in part 1 video   1 x damaged after" in err
    code, out, _ = run("status", "--store", tmp_path / "parts")
    assert "1 video whose files break off" in out
    assert "size [20, 40]" in out
    for wrong in (("--rgb.short_side", 64, "--rgb.size", "[64,64]"), ("--rgb.size", "[64]"), ("--decode.fps", "-1")):
        assert run(*extract, tmp_path / "wrong", *wrong)[0] == 2


def test_a_rerun_over_a_whole_store_is_exit_code_zero(
    run: Run, synthetic_videos: Path, store: Path, tmp_path: Path
) -> None:
    options = ("--rgb.quality", "90", "--flow.estimator", "dis")
    code, out, _ = run("extract", "--videos", synthetic_videos, "--store", store, *options)
    assert code == 0
    assert "stored 0 videos (0 frames), 12 were there already" in out
    assert run("manifest", "--videos", synthetic_videos, "--out", tmp_path / "list.csv")[0] == 0
    listed = ("--manifest", tmp_path / "list.csv")
    assert run("extract", "--videos", synthetic_videos, "--store", store, *listed, *options)[0] == 0
    code, _, err = run("extract", "--videos", synthetic_videos, "--store", store, "--rgb.quality", "95")
    assert code == 1
    assert "rgb.quality: stored 90, asked 95" in err


def test_a_manifest_is_listed(run: Run, synthetic_videos: Path, tmp_path: Path) -> None:
    code, out, _ = run("manifest", "--videos", synthetic_videos, "--out", tmp_path / "list.csv")
    assert code == 0
    assert "listed 12 videos (3 test, 9 train) of 3 classes" in out
    assert len(Manifest.load(tmp_path / "list.csv").rows) == 12
    (tmp_path / "file").write_bytes(b"")
    code, _, err = run("manifest", "--videos", synthetic_videos, "--out", tmp_path / "file" / "list.csv")
    assert code == 1
    assert "the manifest cannot be written" in err


@pytest.fixture
def official(synthetic_videos: Path, tmp_path: Path) -> Path:
    """Two videos and one missing in the layout of UCF101; its split 2 is its split 1 turned round."""
    lists = tmp_path / "ucf" / "ucfTrainTestlist"
    lists.mkdir(parents=True)
    (lists / "classInd.txt").write_text("1 Jump\n2 Walk\n")
    for split, (train, test) in {1: ("Jump", "Walk"), 2: ("Walk", "Jump")}.items():
        (lists / f"trainlist0{split}.txt").write_text(f"{train}/v_{train}_g01_c01.avi {1 + (train == 'Walk')}\n")
        (lists / f"testlist0{split}.txt").write_text(f"{test}/v_{test}_g01_c01.avi\nWalk/v_Walk_g01_c09.avi\n")
    for name in ("Jump", "Walk"):
        (tmp_path / "ucf" / name).mkdir()
        shutil.copy(next(synthetic_videos.rglob("*.mp4")), tmp_path / "ucf" / name / f"v_{name}_g01_c01.mp4")
    return tmp_path / "ucf"


def test_a_manifest_of_official_lists_tells_what_is_missing(run: Run, official: Path, tmp_path: Path) -> None:
    listing = ("manifest", "--dataset", "ucf101", "--videos", official, "--out", tmp_path / "list.csv")
    code, out, err = run(*listing)
    assert code == 0
    assert "listed 2 videos (1 test, 1 train) of 2 classes" in out
    assert "note 1 of 3 listed videos are not there: Walk/v_Walk_g01_c09.avi" in err
    assert "note UCF101, split 1, has 13,320 videos" in err
    assert [row.split for row in Manifest.load(tmp_path / "list.csv").rows] == ["train", "test"]
    assert run(*listing, "--split", 2)[0] == 0
    assert [row.split for row in Manifest.load(tmp_path / "list.csv").rows] == ["test", "train"]
    for wrong in (("--split", 4), ("--split", "one"), ("--dataset", "folder", "--split", 1), ("--classes", "list")):
        assert run(*listing, *wrong)[0] == 2
    code, _, err = run(*listing, "--lists", tmp_path / "none")
    assert code == 1
    assert "there are no official lists of UCF101" in err


@pytest.mark.usefixtures("in_this_process")
def test_official_lists_are_extracted_and_another_split_needs_no_extraction(
    run: Run, official: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    extract = (
        "extract",
        "--videos",
        official,
        "--store",
        store,
        "--dataset",
        "ucf101",
        "--views",
        "rgb",
        "--workers",
        1,
    )
    code, out, err = run(*extract)
    assert code == 0
    assert "note 1 of 3 listed videos are not there" in err
    assert "stored 2 videos" in out
    assert open_store(store).info("Walk/v_Walk_g01_c01").split == "test"
    assert open_store(store).info("Walk/v_Walk_g01_c01").source == "Walk_g01"
    code, out, _ = run(*extract, "--split", 1)
    assert code == 0
    assert "2 were there already" in out
    code, out, _ = run(*extract, "--split", 2)
    assert code == 0
    assert "2 were there already, 2 have another label, source or split now" in out
    assert open_store(store).info("Walk/v_Walk_g01_c01").split == "train"
    code, _, err = run(*extract, "--split", 1, "--manifest", tmp_path / "list.csv")
    assert code == 2
    assert "a manifest says already what split" in err


def test_status_tells_what_is_there(run: Run, store: Path) -> None:
    code, out, _ = run("status", "--store", store)
    assert code == 0
    for fact in ("12  (3 test, 9 train)", "240  (0.00 hours)", "estimator dis", open_store(store).settings_hash):
        assert fact in out
    code, _, err = run("status", "--store", store.parent / "none")
    assert code == 1
    assert "there is no store" in err


def test_verify_tells_damage_by_exit_code_and_name(run: Run, store: Path) -> None:
    code, out, _ = run("verify", "--store", store)
    assert code == 0
    assert "verified 12 videos" in out
    assert "all whole" in out
    first, second = open_store(store).videos[:2]
    path = shard.path(open_store(store).path(first, "flow"), 0, 4)
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    record = catalogue.read_record(layout.record_path(store, second))
    layout.record_path(store, second).write_text(
        json.dumps({"attributes": {"costream": {**(record or {}), "length": 1}}})
    )
    code, out, _ = run("verify", "--store", store)
    assert code == 1
    assert f"damaged {first}: its bytes are not what was written" in out
    assert f"damaged {second}: the commit record of video" in out
    assert "2 damaged" in out
    (store / layout.RECORD).write_bytes(b"{")
    code, _, err = run("verify", "--store", store)
    assert code == 1
    assert "the store's own zarr.json cannot be read" in err


def test_preview_writes_pictures(run: Run, store: Path, tmp_path: Path) -> None:
    code, out, _ = run("preview", "--store", store, "--out", tmp_path / "pictures", "--count", 3)
    assert code == 0
    assert "wrote 3 contact sheets" in out
    assert len(list((tmp_path / "pictures").rglob("*.png"))) == 3
    video_id = open_store(store).videos[0]
    assert run("preview", "--store", store, "--out", tmp_path / "one", "--videos", f"[{video_id}]")[0] == 0
    assert len(list((tmp_path / "one").rglob("*.png"))) == 1
    code, out, _ = run("preview", "--store", store, "--out", tmp_path / "clips", "--count", 2, "--clip", "true")
    assert code == 0
    assert "wrote 2 contact sheets and 2 clips" in out
    assert len(list((tmp_path / "clips").rglob("*.mp4"))) == 2
    code, _, err = run("preview", "--store", store, "--out", tmp_path / "none", "--videos", "[nobody]")
    assert code == 1
    assert "'nobody' is not in the store" in err


def test_probe_tells_what_a_file_holds(run: Run, synthetic_videos: Path) -> None:
    code, out, _ = run("probe", "--file", next(synthetic_videos.rglob("*.mp4")))
    assert code == 0
    assert "h264, 64x48, 25 fps, 0.80 s" in out
    assert "decoded 20 frames of 64x48" in out
