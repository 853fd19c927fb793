"""Bringing data others extracted: LMDBs of CoCLR and folders of denseflow, made here, and a sample of the former."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from pipeline import synthetic
from pipeline.errors import Refusal
from pipeline.existing import jpegs, open_source
from pipeline.existing.bring import Existing, bring, manifest_of
from pipeline.existing.frame_folders import FrameFolders
from pipeline.extraction.journal import Summary
from pipeline.manifest import Manifest, Video
from pipeline.pictures import JPEG_END
from pipeline.store import VideoStore, catalogue, layout, open_store
from pipeline.store.verify import verify
from pipeline.video.decode import Undecodable
from tests.pipeline.existing import (
    HEIGHT,
    NAMES,
    WIDTH,
    Videos,
    coclr_flow,
    encoded,
    flow_planes,
    frame_jpegs,
    pack,
    write_folder,
)

Run = Callable[..., tuple[int, str, str]]
HALF = frame_jpegs(1)[0][:-300] + b"\xff\xd9"  # cut off, and an end marker put back


def bring_all(frames: Path, flow: Path | None, store: Path, listed: Manifest | None = None) -> Summary:
    with open_source(frames) as first:
        if flow is None:
            existing = Existing(first, None)
            return bring(manifest_of(existing, listed), existing, store, 2, "again").summary
        with open_source(flow) as second:
            existing = Existing(first, second)
            return bring(manifest_of(existing, listed), existing, store, 2, "again").summary


def record_of(store: VideoStore, video: str) -> dict[str, Any]:
    record = catalogue.read_record(layout.record_path(store.root, video))
    assert record is not None
    return record


def stored_bytes(store: VideoStore, video: str) -> list[bytes]:
    return [stream.tobytes() for stream in store.encoded(video, "rgb", slice(None))]


@pytest.fixture
def frames() -> Videos:
    return {name: frame_jpegs(count, count) for name, count in zip(NAMES, (6, 4, 1), strict=True)}


@pytest.fixture
def planes() -> dict[str, np.ndarray]:
    return {name: flow_planes(count, count) for name, count in zip(NAMES, (5, 3, 0), strict=True)}


@pytest.fixture
def packed(tmp_path: Path, frames: Videos, planes: dict[str, np.ndarray]) -> tuple[Path, Path]:
    flow = {name: coclr_flow(values) for name, values in planes.items()}
    return pack(tmp_path / "frame.lmdb", frames), pack(tmp_path / "flow.lmdb", flow)


def test_an_lmdb_keeps_its_frames_byte_for_byte_and_its_flow_to_a_bound(
    packed: tuple[Path, Path], frames: Videos, planes: dict[str, np.ndarray], tmp_path: Path
) -> None:
    summary = bring_all(*packed, tmp_path / "store")
    assert (summary.stored, summary.frames, summary.quarantined) == (3, 11, {})
    store = open_store(tmp_path / "store")
    assert store.classes == ["Run fast", "Walk"]
    assert not [damage for *_, found in verify(store) for damage in found]
    for name in NAMES:
        info = store.info(name)
        assert stored_bytes(store, name) == frames[name]
        assert (info.label, info.split, info.source) == (name.split("/")[0], "", name)
        assert info.shapes["flow"] == (len(frames[name]) - 1, 2, HEIGHT, WIDTH)
        error = np.abs(store.flow(name, slice(None)) - (planes[name] * np.float32(40 / 255) - 20))
        assert not error.size or (error.mean() < 0.1 and error.max() < 1)
    assert store.settings["flow"]["estimator"] == "imported"
    assert store.settings["flow"]["parameters"] == {"source": "coclr-lmdb"}
    assert store.settings["rgb"]["imported"] == "coclr-lmdb"


@pytest.mark.parametrize("first", [0, 1])
def test_folders_keep_their_frames_byte_for_byte_and_their_flow_to_a_bound(
    frames: Videos, planes: dict[str, np.ndarray], tmp_path: Path, first: int
) -> None:
    root = write_folder(tmp_path / "raw", frames, planes, first)
    (root / "Walk" / "empty").mkdir()
    shutil.move(root / "Run fast", tmp_path / "elsewhere")
    (root / "Run fast").symlink_to(tmp_path / "elsewhere")
    (root / "Walk" / "round").symlink_to(root)
    summary = bring_all(root, root, tmp_path / "store")
    assert summary.stored == 3
    assert list(summary.quarantined) == ["Walk/empty"]
    store = open_store(tmp_path / "store")
    for name in NAMES:
        assert stored_bytes(store, name) == frames[name]
        error = np.abs(store.flow(name, slice(None)) - (planes[name] * np.float32(40 / 255) - 20))
        assert not error.size or (error.mean() < 0.1 and error.max() < 1)
    assert store.settings["flow"]["parameters"] == {"source": "denseflow-folders"}


def test_the_sample_in_the_released_layout(shared: Path, run: Run, tmp_path: Path) -> None:
    sample = shared / "conformance" / "coclr_sample_lmdb"
    truth = json.loads((sample / "truth.json").read_text())
    command = ("bring", "--frames", sample / "ucf101_frame.lmdb", "--flow", sample / "ucf101_tvl1_frame.lmdb")
    code, out, err = run(*command, "--store", tmp_path / "store")
    assert code == 3
    assert "stored 4 videos (21 frames), 1 in quarantine" in out
    assert "quarantined 1 video   1 x it is empty" in err
    assert "    YoYo/clip_[HD]_bracket" in err
    store = open_store(tmp_path / "store")
    assert {*store.videos, *store.quarantine} == set(truth["rgb"])
    for name in store.videos:
        shapes = store.info(name).shapes
        assert (shapes["rgb"][0], shapes["flow"][0]) == (truth["rgb"][name], truth["flow"][name])
    assert "--retry_quarantined" in next(store.quarantine_entries())["reproduce"]


def test_a_rerun_does_only_what_is_missing(packed: tuple[Path, Path], run: Run, tmp_path: Path) -> None:
    root = tmp_path / "store"
    command = ("bring", "--frames", packed[0], "--flow", packed[1], "--store", root, "--fps", 25)
    assert run(*command)[0] == 0
    before = {path: path.stat().st_mtime_ns for path in (root / "videos").rglob("*") if path.is_file()}
    assert "stored 0 videos (0 frames), 3 were there already" in run(*command)[1]
    assert before == {path: path.stat().st_mtime_ns for path in (root / "videos").rglob("*") if path.is_file()}
    record = root / "videos" / "Walk" / "v_Walk_g01_c01" / "zarr.json"
    record.unlink()
    assert "stored 1 video (6 frames), 2 were there already" in run(*command)[1]
    assert record.is_file()
    assert {info.fps for info in open_store(root).infos.values()} == {25.0}


def test_as_many_flow_pictures_as_frames_lose_the_last_and_other_numbers_are_refused(
    frames: Videos, run: Run, tmp_path: Path
) -> None:
    counts = dict(zip(NAMES, (6, 2, 3), strict=True))  # for 6, 4 and 1 frames
    planes = {name: flow_planes(count, 3) for name, count in counts.items()}
    flow = pack(tmp_path / "flow.lmdb", {name: coclr_flow(values) for name, values in planes.items()})
    command = (
        "bring",
        "--frames",
        pack(tmp_path / "frame.lmdb", frames),
        "--flow",
        flow,
        "--store",
        tmp_path / "store",
    )
    code, _, err = run(*command)
    assert code == 1
    assert "the pictures do not tell which pair of frames each is of" in err
    assert not (tmp_path / "store").exists()
    command = (*command, "--alignment", "first")
    code, _, err = run(*command)
    assert code == 3
    assert f"the flow of the last frame leads to no frame and is left out: in 1 video, the first is {NAMES[0]}" in err
    assert "2 flow pictures do not fit 4 frames" in err
    assert "3 flow pictures do not fit 1 frames" in err
    store = open_store(tmp_path / "store")
    assert store.videos == [NAMES[0]]
    assert np.abs(store.read(NAMES[0], "flow", slice(None)).astype(int) - planes[NAMES[0]][:5]).mean() < 1
    assert list(record_of(store, NAMES[0])["notes"].values()) == [1]


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        ({b"000000001": []}, "lists 4 pictures and has 0"),
        ({b"000000001": [], b"__vlen__": [1, 0, 6]}, "it is empty"),
        ({b"000000001": {b"a": 1}}, "is not a list of pictures"),
        ({b"000000001": [frame_jpegs(1)[0][:-40]] * 4}, "frame 0 is cut off"),
        ({b"000000001": [*frame_jpegs(3), b""]}, "frame 3 is empty"),
        ({b"000000001": [cv2.imencode(".png", np.zeros((8, 8)))[1].tobytes()] * 4}, "frame 0 is no JPEG"),
        ({b"000000001": [*frame_jpegs(3), b"\xff\xd8 no picture \xff\xd9"]}, "frame 3 cannot be decoded"),
        ({b"000000001": [*frame_jpegs(3), HALF]}, "frame 3 is damaged: its data end before the picture does"),
    ],
)
def test_a_broken_video_is_reported_and_the_others_are_stored(
    frames: Videos, tmp_path: Path, extra: dict[bytes, object], reason: str
) -> None:
    summary = bring_all(pack(tmp_path / "frame.lmdb", frames, extra), None, tmp_path / "store")
    assert summary.stored == 2
    assert reason in summary.quarantined[NAMES[1]]
    assert open_store(tmp_path / "store").videos == sorted({NAMES[0], NAMES[2]})


def test_a_listed_video_without_an_entry_and_one_with_flow_alone_are_reported(
    frames: Videos, planes: dict[str, np.ndarray], tmp_path: Path
) -> None:
    flow = {name: coclr_flow(planes[name]) for name in NAMES[:2]} | {"Walk/other": coclr_flow(flow_planes(2))}
    summary = bring_all(
        pack(tmp_path / "frame.lmdb", frames, without=(b"000000001",)), pack(tmp_path / "f.lmdb", flow), tmp_path / "s"
    )
    assert summary.stored == 1
    assert "has no entry 000000001" in summary.quarantined[NAMES[1]]
    assert "f.lmdb does not have this video" in summary.quarantined[NAMES[2]]
    assert "frame.lmdb does not have this video" in summary.quarantined["Walk/other"]


def test_flow_of_another_make_is_refused(frames: Videos, tmp_path: Path) -> None:
    flow = {name: frame_jpegs(len(pictures) - 1) for name, pictures in frames.items()}
    flow[NAMES[1]] = [*coclr_flow(flow_planes(2)), *coclr_flow(flow_planes(1)[:, :, :40])]
    summary = bring_all(pack(tmp_path / "a.lmdb", frames), pack(tmp_path / "b.lmdb", flow), tmp_path / "store")
    assert "its red channel is not 128" in summary.quarantined[NAMES[0]]
    assert "flow 2 is 64x40, those before it are 64x48" in summary.quarantined[NAMES[1]]


def test_damaged_flow_is_refused_by_its_place(frames: Videos, planes: dict[str, np.ndarray], tmp_path: Path) -> None:
    flow = {name: coclr_flow(values) for name, values in planes.items()}
    flow[NAMES[1]][1] = flow[NAMES[1]][1][:-400] + b"\xff\xd9"
    summary = bring_all(pack(tmp_path / "a.lmdb", frames), pack(tmp_path / "b.lmdb", flow), tmp_path / "store")
    assert summary.quarantined == {NAMES[1]: "flow 1 is damaged: its data end before the picture does"}


def test_a_gap_in_the_numbers_of_a_folder_and_lone_planes_are_reported(
    frames: Videos, planes: dict[str, np.ndarray], tmp_path: Path
) -> None:
    root = write_folder(tmp_path / "raw", frames, planes)
    (root / NAMES[0] / "img_00003.jpg").unlink()
    (root / NAMES[1] / "flow_y_00003.jpg").unlink()
    (root / NAMES[2] / "img_00001.jpg").rename(root / NAMES[2] / "img_00007.jpg")
    reasons = bring_all(root, root, tmp_path / "store").quarantined
    assert reasons[NAMES[0]] == "picture img number 3 is missing"
    assert reasons[NAMES[1]] == "there are 3 pictures flow_x and 2 pictures flow_y"
    assert reasons[NAMES[2]] == "picture img number 1 is missing"


def test_a_large_number_in_a_name_costs_no_more_than_a_small_one(tmp_path: Path) -> None:
    for number in ("00001", "00002", "999999999999"):
        path = tmp_path / "a" / "b" / f"img_{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    (tmp_path / "a" / "b" / "frame_3.png").touch()
    with FrameFolders(tmp_path) as source, pytest.raises(Undecodable, match="picture img number 3 is missing"):
        assert source.notes == [
            "files not called img_*.jpg, flow_x_*.jpg or flow_y_*.jpg are left out: 1 .png (a/b/frame_3.png)"
        ]
        source.frames("a/b")
    assert FrameFolders(tmp_path).stamp("x" * 300) == 0


def test_a_picture_that_is_no_regular_file_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    os.mkfifo(tmp_path / "a" / "b" / "img_00001.jpg")
    (tmp_path / "a" / "b" / "README").symlink_to("nowhere")
    existing = Existing(FrameFolders(tmp_path), None)
    summary = bring(manifest_of(existing), existing, tmp_path / "store", 1, "again").summary
    assert summary.quarantined == {"a/b": "img_00001.jpg cannot be read: it is not a regular file"}
    assert open_store(tmp_path / "store").quarantine == {
        "a/b": "img_00001.jpg cannot be read: it is not a regular file"
    }


def test_lists_of_an_lmdb_that_hold_no_text_are_refused(frames: Videos, tmp_path: Path) -> None:
    for key, value, what in ((b"__order__", [1, 2], "names"), (b"__keys__", [[1]] * len(frames), "no key")):
        path = pack(tmp_path / f"{what}.lmdb", frames, {key: value, b"__vlen__": [1] * len(frames)})
        with pytest.raises(Refusal, match=what):
            open_source(path)


def test_only_what_is_not_plain_is_encoded_again_and_told(run: Run, tmp_path: Path) -> None:
    plain = frame_jpegs(4)
    odd = [
        plain[0],
        frame_jpegs(2, 0, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)[1],
        encoded(cv2.imdecode(np.frombuffer(plain[2], np.uint8), cv2.IMREAD_GRAYSCALE)),
        encoded(cv2.resize(cv2.imdecode(np.frombuffer(plain[3], np.uint8), cv2.IMREAD_COLOR), (80, 60))),
    ]
    path = pack(tmp_path / "frame.lmdb", {"a/odd": odd, "a/plain": plain})
    code, _, err = run("bring", "--frames", path, "--store", tmp_path / "store")
    assert code == 0
    assert "encoded again: in 1 video, the first is a/odd" in err
    store = open_store(tmp_path / "store")
    assert stored_bytes(store, "a/plain") == plain
    assert [jpeg == ours for jpeg, ours in zip(odd, stored_bytes(store, "a/odd"), strict=True)] == [True] + 3 * [False]
    for number, ours in enumerate(store.read("a/odd", "rgb", slice(3))):
        assert np.abs(ours.astype(int) - jpegs.frame(odd[number], "it")).mean() < 2
    assert list(record_of(store, "a/odd")["notes"].values()) == [3]


def test_a_manifest_chooses_and_labels(packed: tuple[Path, Path], frames: Videos, run: Run, tmp_path: Path) -> None:
    rows = [Video(NAMES[0], "x", "walking", "g01", "train"), Video("Walk/absent", "y", "walking", "", "test")]
    Manifest(rows, ["running", "walking"]).save(tmp_path / "list.csv")
    command = ("bring", "--frames", packed[0], "--store", tmp_path / "store")
    code, _, err = run(*command, "--manifest", tmp_path / "list.csv")
    assert code == 3
    assert "left out, as the manifest lacks them: 2 videos" in err
    assert "frame.lmdb does not have this video" in err
    store = open_store(tmp_path / "store")
    info = store.info(NAMES[0])
    assert (info.label, info.source, info.split, info.views) == ("walking", "g01", "train", ("rgb",))
    assert store.classes == ["running", "walking"]
    Manifest([Video("v_Walk_g01_c01", "x")], []).save(tmp_path / "other.csv")
    code, _, err = run(*command, "--manifest", tmp_path / "other.csv")
    assert code == 1
    assert "no video of the manifest is here: it has 'v_Walk_g01_c01' and so on" in err
    code, out, _ = run(*command)
    assert code == 0
    assert "1 has another label, source or split now" in out
    info = open_store(tmp_path / "store").info(NAMES[0])
    assert (info.label, info.source, info.split) == ("Walk", "g01", "train")  # folders say nothing of the last two


def test_extraction_does_not_mix_with_what_was_brought(packed: tuple[Path, Path], run: Run, tmp_path: Path) -> None:
    assert run("bring", "--frames", packed[0], "--store", tmp_path / "store")[0] == 0
    (tmp_path / "videos").mkdir()
    synthetic.write_mp4(tmp_path / "videos" / "a.mp4", np.zeros((3, HEIGHT, WIDTH, 3), np.uint8))
    store = ("--store", tmp_path / "store", "--views", "rgb", "--rgb.short_side", 0)
    code, _, err = run("extract", "--videos", tmp_path / "videos", *store)
    assert code == 1
    assert 'rgb.imported: stored "coclr-lmdb", asked nothing' in err


def test_sources_that_cannot_be_meant_are_refused(packed: tuple[Path, Path], run: Run, tmp_path: Path) -> None:
    (tmp_path / "text.lmdb").write_bytes(b"no database" * 1000)
    whole = packed[0].read_bytes()
    (tmp_path / "part.lmdb").write_bytes(whole[: len(whole) // 2])
    pack(tmp_path / "nameless.lmdb", {"a/b": []}, without=(b"__order__",))
    pack(tmp_path / "twice.lmdb", {"a/b": []}, {b"__order__": [b"a/b", b"a/b"]})
    pack(tmp_path / "number.lmdb", {"a/b": []}, {b"__order__": 3})
    (tmp_path / "void").mkdir()
    said = {
        "absent.lmdb": "there is no such file or folder",
        "text.lmdb": "the LMDB cannot be opened",
        "part.lmdb": "the LMDB is damaged or cut off",
        "nameless.lmdb": "does not tell which videos it has",
        "twice.lmdb": "lists 'a/b' twice",
        "number.lmdb": "its entry __order__ is no list",
        "void": "no folder below it has img_*.jpg",
    }
    for name, message in said.items():
        code, _, err = run("bring", "--frames", tmp_path / name, "--store", tmp_path / "store")
        assert (code, message in err) == (1, True), err
    for options in (("--flow", packed[0]), ("--bound", 0), ("--fps", -1)):
        assert run("bring", "--frames", packed[0], "--store", tmp_path / "store", *options)[0] == 2
    assert not (tmp_path / "store").exists()


def test_the_order_file_stands_in_for_the_order(packed: tuple[Path, Path], frames: Videos, tmp_path: Path) -> None:
    pack(tmp_path / "old.lmdb", frames, without=(b"__order__", b"__vlen__"))
    (tmp_path / "old.lmdb-order").write_text("\n".join(frames), encoding="utf-8")
    with open_source(tmp_path / "old.lmdb") as source:
        assert source.videos == list(frames)
        assert list(source.frames(NAMES[1])) == frames[NAMES[1]]
    folder = tmp_path / "as_folder"
    folder.mkdir()
    shutil.copy(packed[0], folder / "data.mdb")
    with open_source(folder) as source:
        assert source.videos == list(frames)


@given(cut=some.integers(0, 2000), flip=some.integers(0, 2000), value=some.integers(0, 255))
def test_no_bytes_upset_the_check_of_a_jpeg(cut: int, flip: int, value: int) -> None:
    jpeg = bytearray(frame_jpegs(1)[0])
    jpeg[flip % len(jpeg)] = value
    jpegs.is_plain(bytes(jpeg[:cut]))
    assert not jpegs.is_plain(bytes(jpeg[:20]))
    with pytest.raises(Undecodable):
        jpegs.frame(bytes(jpeg[: min(cut, len(jpeg) - 3)]).removesuffix(JPEG_END), "frame 0")


def test_what_is_plain() -> None:
    image = np.full((16, 16, 3), 90, np.uint8)
    plain = encoded(image)
    assert jpegs.is_plain(plain)
    assert jpegs.is_plain(encoded(image, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444))
    assert not jpegs.is_plain(encoded(image[..., 0]))
    assert not jpegs.is_plain(encoded(image, cv2.IMWRITE_JPEG_PROGRESSIVE, 1))
    assert not jpegs.is_plain(plain[:2] + b"\xff\xe1\x00\x08Exif\0\0" + plain[2:])
    assert not jpegs.is_plain(plain[:2] + b"\xff\xee\x00\x0eAdobe\0\x64\0\0\0\0\0" + plain[2:])
    assert not jpegs.is_plain(b"")
