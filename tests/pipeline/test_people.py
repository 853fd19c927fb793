"""The views of people: maps drawn, estimated, interpolated, taken from files, and added to a store."""

from __future__ import annotations

import importlib.metadata
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline import people
from pipeline.errors import UsageError
from pipeline.extraction import job
from pipeline.extraction.opening import joined, run_into
from pipeline.extraction.plan import VideoFiles
from pipeline.importers import folder
from pipeline.people import files, tflite
from pipeline.people.blazepose import BlazePose, merged
from pipeline.people.key_points import JOINTS, heat_maps
from pipeline.store import catalogue, layout, open_store
from pipeline.store.settings import ExtractionSettings
from pipeline.store.verify import verify
from pipeline.video.decode import decode
from pipeline.views.pose import POSE, PoseSettings
from pipeline.views.rgb import RgbSettings
from pipeline.views.segmentation import SEGMENTATION, SegmentationExtractor, SegmentationSettings
from pipeline.views.size import Block
from tests.faults import small
from tests.faults.disk import Disk, the_disk
from tests.pipeline.reference import content

Run = Callable[..., tuple[int, str, str]]
ACTIONS = Path(__file__).parents[2] / ".." / "shared" / "data" / "actions"
installed = pytest.mark.skipif(
    any(importlib.metadata.packages_distributions().get(name) is None for name in ("mediapipe", "ai_edge_litert")),
    reason="there is no MediaPipe for this machine",
)


def person(*points: tuple[float, float, float]) -> np.ndarray:
    """(17, 3), the first joints given."""
    found = np.zeros((17, 3))
    found[: len(points)] = points
    return found


def test_heat_maps_are_bells_at_the_joints() -> None:
    people_there = np.stack([person((0.25, 0.5, 1.0), (0.5, 0.5, 0.4)), person((0.25, 0.5, 0.5), (np.nan, 0.5, 1.0))])
    found = heat_maps(people_there, (50, 80))
    expected = np.zeros((17, 50, 80))
    for one in people_there:
        for joint, (x, y, confidence) in enumerate(one):
            for row in range(50):
                for column in range(80):
                    if np.isfinite(x) and confidence > 0:
                        away = (column + 0.5 - 80 * x) ** 2 + (row + 0.5 - 50 * y) ** 2
                        expected[joint, row, column] += 255 * confidence * np.exp(-away / 2)  # 2 % of 50 pixels is 1
    assert np.abs(found - expected.clip(0, 255)).max() <= 0.51
    assert found[0].max() == 255 and not found[2:].any()
    assert not heat_maps(np.zeros((0, 17, 3)), (50, 80)).any()


def test_left_is_right_in_the_mirror() -> None:
    points = np.random.default_rng(1).uniform(0.1, 0.9, (1, 17, 3))
    other = points.copy()
    other[..., 0] = 1 - other[..., 0]
    swapped = list(range(17))
    for joint, name in enumerate(JOINTS):
        if name != "nose":
            side, rest = name.split()
            swapped[joint] = JOINTS.index(f"{'right' if side == 'left' else 'left'} {rest}")
    mirrored = np.einsum("op,phw->ohw", POSE.mirror[:, :-1], heat_maps(points, (32, 32))[..., ::-1])
    assert np.array_equal(mirrored, heat_maps(other[:, swapped], (32, 32)))
    assert np.array_equal(SEGMENTATION.mirror, [[1, 0]])


def test_overlapping_detections_are_one_person() -> None:
    box = np.array([[10.0, 10], [8, 8], [10, 10], [10, 2], [0, 0], [0, 0]])
    near, far = box.copy(), box.copy()
    near[[0, 2, 3]] += 1
    far[[0, 2, 3]] += 30
    one, two = merged(np.stack([near, far, box]), np.array([0.4, 0.5, 0.8]))
    assert one == pytest.approx((0.8 * box + 0.4 * near) / 1.2)
    assert np.array_equal(two, far)
    assert merged(np.zeros((0, 6, 2)), np.zeros(0)) == []


class Upright:
    """In place of the second network: its points are at fixed places of the crop, which it keeps."""

    def __init__(self, presence: float = 1.0) -> None:
        self.presence, self.seen = presence, np.zeros(0)

    def __call__(self, image: np.ndarray) -> list[np.ndarray]:
        self.seen = image
        landmarks = np.zeros((39, 5))
        landmarks[:, :2], landmarks[:, 3] = 128, 100.0
        landmarks[0, :2] = 128, 28  # the nose, above the hips
        return [landmarks, np.array([self.presence])]


@installed
def test_a_person_is_turned_upright_and_back() -> None:
    estimator, frame = BlazePose(), np.zeros((100, 200, 3), np.uint8)
    cv2.circle(frame, (150, 40), 2, (255, 255, 255), -1)
    estimator._landmarks = network = Upright()  # type: ignore[assignment]
    hips, circle = np.array([110.0, 40.0]), np.array([161.2, 40.0])  # lies to the right; 51.2 x 2 x 1.25 = 128
    found = estimator._person(frame, hips, circle)
    assert found is not None
    assert found[0] == pytest.approx([160 / 200, 40 / 100, 1.0])  # 100 of 256 pixels of the crop are 50 of the frame
    assert found[5] == pytest.approx([110 / 200, 40 / 100, 1.0])
    row, column = np.unravel_index(network.seen[..., 0].argmax(), (256, 256))
    assert abs(row - 48) <= 5 and abs(column - 128) <= 5
    estimator._landmarks = Upright(presence=0.4)  # type: ignore[assignment]
    assert estimator._person(frame, hips, circle) is None
    assert estimator._person(frame, hips, hips) is None


@installed
def test_nobody_is_found_where_nobody_is() -> None:
    frames = np.random.default_rng(0).integers(0, 255, (2, 60, 80, 3)).astype(np.uint8)
    for view, name, planes in (("segmentation", "selfie", 1), ("pose", "blazepose", 17)):
        estimator = people.create(view, name)
        found = estimator.maps(frames, np.arange(2), (30, 40))
        assert found.shape == (2, planes, 30, 40) and found.dtype == np.uint8
        assert found.max() < 128
        assert np.array_equal(estimator.maps(frames[1:], np.arange(1), (30, 40)), found[1:])
        again = people.choose(view, name, **estimator.settings)
        assert again.settings == estimator.settings


@installed
@pytest.mark.skipif(not ACTIONS.is_dir(), reason="the action clips are not here")
def test_people_are_found_where_they_are() -> None:
    frame = np.concatenate(list(decode(sorted((ACTIONS / "ut-interaction" / "kick").glob("*.mp4"))[0])))[:1]
    points = people.create("pose", "blazepose").key_points(frame[0])  # type: ignore[attr-defined]
    mask = people.create("segmentation", "selfie").maps(frame, np.arange(1), frame.shape[1:3])[0, 0]
    assert len(points) == 2
    for one in points:
        assert one[0, 1] < one[11, 1] < one[15, 1]  # nose above the hip above the ankle
        assert mask[int(one[11, 1] * mask.shape[0]), int(one[11, 0] * mask.shape[1])] > 200
    assert 0.03 < (mask > 128).mean() < 0.4


class Counted(people.MapEstimator):
    """A plane whose value is the number of the frame."""

    name = "counted"

    def maps(self, frames: np.ndarray, numbers: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        self.numbers = [*getattr(self, "numbers", []), *numbers.tolist()]
        return np.stack([np.full((1, *size), frame[0, 0, 0], np.uint8) for frame in frames])


@pytest.mark.parametrize("blocks", [[11], [3, 4, 4], [1] * 11, [5, 6]])
@pytest.mark.parametrize("every", [1, 2, 3, 10, 20])
def test_between_estimates_maps_are_interpolated(
    every: int, blocks: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    values = np.random.default_rng(every).integers(0, 255, sum(blocks))
    frames = np.broadcast_to(values[:, None, None, None], (len(values), 20, 30, 3)).astype(np.uint8)
    counted = Counted()
    monkeypatch.setattr("pipeline.views.maps._estimator", lambda view, settings: counted)
    extractor = SegmentationExtractor(SegmentationSettings(every=every, quality=100), "v")
    encoded = [one for part in np.split(frames, np.cumsum(blocks)[:-1]) for one in extractor.add(Block(part))]
    encoded += extractor.finish(cut=False)
    found = [extractor.codec.decode_frame(one, (1, 20, 30))[0, 0, 0] for one in encoded]
    last = (len(values) - 1) // every * every
    for number, value in enumerate(found):
        before = number // every * every
        share = (number - before) / every
        expected = values[last] if before == last else (1 - share) * values[before] + share * values[before + every]
        assert abs(value - expected) <= 1
    assert len(found) == len(values)
    assert counted.numbers == list(range(-(-len(values) // every)))
    nobody = sum(value < 128 for value in values[::every])
    assert extractor.facts == {"segmentation_estimates": {"frames": len(counted.numbers), "nobody": nobody}}


@pytest.fixture
def given(tmp_path: Path) -> Path:
    """Masks and key points of the three videos, of three frames each: as pictures, arrays and points."""
    at, draws = tmp_path / "given", np.random.default_rng(3)
    for name in ("walk/a", "walk/b", "jump/c"):
        masks = draws.integers(0, 256, (3, 16, 24)).astype(np.uint8)
        (at / name).parent.mkdir(parents=True, exist_ok=True)
        if name == "walk/a":
            (at / name).mkdir()
            for number, mask in enumerate(masks):
                cv2.imwrite(str(at / name / f"mask_{number + 9}.png"), mask)  # 9 and then 10
        else:
            np.save(at / f"{name}.npy", masks)
        (at / "points" / name).parent.mkdir(parents=True, exist_ok=True)
        np.savez(at / "points" / f"{name}.npz", keypoints=draws.uniform(0.2, 0.8, (3, 2, 17, 3)))
    return at


def settings(given: Path) -> ExtractionSettings:
    return ExtractionSettings(
        {
            "rgb": RgbSettings(short_side=0, quality=90),
            "segmentation": SegmentationSettings("files", 0, running={"folder": str(given)}, quality=100),
            "pose": PoseSettings("files", 0, running={"folder": str(given / "points")}, quality=100),
        }
    ).resolved()


def add(videos: Path, store: Path, wanted: ExtractionSettings) -> None:
    """`extract --views segmentation,pose`, one video after the other in this process."""
    maps = wanted.only({"segmentation", "pose"})
    both = joined(store, maps, True, False)
    with run_into(store, both, folder.read(videos), VideoFiles(videos), False, False, True) as found:
        for row in found.todo.values():
            adding = row.video_id in found.adding
            job.extract_video(str(videos), str(store), row, both.as_dict(running=True), adding=adding)


def test_what_somebody_has_is_added_and_nothing_else_is_touched(videos: Path, given: Path, tmp_path: Path) -> None:
    store = small.store(videos, tmp_path / "store")
    before = content(store)
    add(videos, store, settings(given))
    assert not any(found for _, _, found in verify(open_store(store)))
    changed = {name for name, data in content(store).items() if before.get(name, data) != data}
    of_videos = [layout.record_path(store, name) for name in ("walk/a", "walk/b", "jump/c")]
    assert changed == {"catalogue.parquet", "zarr.json", *(str(path.relative_to(store)) for path in of_videos)}
    opened = open_store(store)
    masks = np.load(given / "walk" / "b.npy")
    assert np.abs(opened.read("walk/b", "segmentation", slice(None))[:, 0].astype(int) - masks).max() <= 3
    masks = np.stack([cv2.imread(str(given / "walk" / "a" / f"mask_{number}.png"), 0) for number in (9, 10, 11)])
    assert np.abs(opened.read("walk/a", "segmentation", slice(None))[:, 0].astype(int) - masks).max() <= 3
    points = np.load(given / "points" / "walk" / "b.npz")["keypoints"]
    expected = np.stack([heat_maps(one, (16, 24)) for one in points])
    assert np.abs(opened.read("walk/b", "pose", slice(None)).astype(int) - expected).max() <= 3
    record = catalogue.read_record(layout.record_path(store, "walk/a"))
    assert record is not None and record["segmentation_estimates"]["frames"] == 3
    assert len(record["pose_estimates"]["sha256"]) == 64


def test_files_that_hold_no_maps_are_named_and_cost_what_their_frames_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "LARGEST", 10**6)
    np.savez_compressed(tmp_path / "huge.npz", maps=np.zeros((2, 17, 8, 8), np.uint8), other=np.zeros(10**6 + 1, bool))
    np.savez_compressed(tmp_path / "crowd.npz", keypoints=np.zeros((1, 1001, 17, 3), np.float16))
    np.save(tmp_path / "number.npy", np.uint8(3))
    claims = np.lib.format.header_data_from_array_1_0(np.zeros((1, 17, 64, 64), np.uint8)) | {
        "shape": (10**11, 17, 9, 9)
    }
    with open(tmp_path / "claims.npy", "wb") as file:
        np.lib.format.write_array_header_1_0(file, claims)
    for name in ("empty.npy", "empty.npz"):
        (tmp_path / name).touch()
    (tmp_path / "locked" / "1.png").mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 256, (32, 32)).astype(np.uint8)
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "1.jpg").write_bytes(cv2.imencode(".jpg", noise)[1].tobytes()[:-30] + b"\xff\xd9")
    with pytest.raises(ValueError, match=r"1\.jpg is no whole picture: its data end before the picture does"):
        given = files.MaskFiles(folder=str(tmp_path)).of_video("half")
        given.maps(np.zeros((1, 32, 32, 3), np.uint8), np.arange(1), (32, 32))
    wanted = {"huge": "an array of .* bytes, over", "crowd": "1,001 people a frame", "number": "are uint8 ()"}
    wanted |= {
        "claims": "no whole array",
        "empty": "no whole array",
        "locked": "cannot be read",
        "x" * 255: "no pose at",
    }
    for name, told in wanted.items():
        with pytest.raises(ValueError, match=told):
            files.PoseFiles(folder=str(tmp_path)).of_video(name)


def test_a_kill_while_views_are_added_leaves_a_whole_store(videos: Path, given: Path, tmp_path: Path) -> None:
    disk: Disk = the_disk()
    wanted, begun = settings(given), small.store(videos, tmp_path / "begun")
    fresh = shutil.copytree(begun, tmp_path / "fresh")
    add(videos, fresh, wanted)
    for step in range(0, 200, 13):
        store = shutil.copytree(begun, tmp_path / "store")
        with disk.killed_at(store, step):
            add(videos, store, wanted)
        opened = open_store(store)
        assert not any(found for _, _, found in verify(opened))
        for name in opened.videos:
            assert np.array_equal(opened.read(name, "rgb", [0]), open_store(begun).read(name, "rgb", [0]))
        if not disk.died:
            break
        add(videos, store, wanted)
        assert content(store) == content(fresh)
        shutil.rmtree(store)
    assert step > 26 and content(store) == content(fresh)


@pytest.mark.remedy('{"folder": "/path/to/files"}', told=True)
@pytest.mark.usefixtures("in_this_process")
def test_files_that_do_not_fit_put_the_video_in_quarantine(run: Run, videos: Path, given: Path, tmp_path: Path) -> None:
    (given / "points" / "walk" / "a.npz").unlink()
    np.savez(given / "points" / "walk" / "b.npz", keypoints=np.zeros((2, 1, 17, 3)))
    np.savez(given / "points" / "jump" / "c.npz", keypoints=np.zeros((4, 1, 17, 3)))
    store = tmp_path / "store"
    told = f'{{"folder": "{given / "points"}"}}'
    asked = ("extract", "--videos", videos, "--store", store, "--workers", 1, "--views", "rgb,pose")
    code, _, err = run(*asked, "--pose.estimator", "files")
    assert code == 2 and "no folder is given" in err
    assert run(*asked, "--pose.estimator", "files", "--pose.running", told)[0] == 3
    reasons = {entry["video_id"]: entry["reason"] for entry in open_store(store).quarantine_entries()}
    assert "there is no pose at" in reasons["walk/a"]
    assert "has 2 maps, and the video more frames" in reasons["walk/b"]
    assert "has 4 maps, and 3 were needed" in reasons["jump/c"]
    asked = (*asked, "--pose.estimator", "files", "--pose.running", told, "--decode.max_frames", 2)
    assert run(*asked, "--store", tmp_path / "beginnings")[0] == 3
    assert sorted(open_store(tmp_path / "beginnings").videos) == ["jump/c", "walk/b"]  # of the first two frames


def test_status_and_pictures_tell_of_people(run: Run, videos: Path, given: Path, tmp_path: Path) -> None:
    np.save(given / "walk" / "b.npy", np.zeros((3, 16, 24), np.uint8))
    store = small.store(videos, tmp_path / "store")
    add(videos, store, settings(given))
    code, out, _ = run("status", "--store", store)
    assert code == 0
    assert "nobody in 33 % of 9 frames that were estimated, and in no frame of 1 video" in out
    assert run("preview", "--store", store, "--videos", "[walk/a]", "--out", tmp_path / "seen")[0] == 0
    sheet = cv2.imread(str(tmp_path / "seen" / "walk" / "a.png"))
    assert sheet is not None and sheet.shape[0] > 3 * (133 + 4)


def test_a_picture_of_nobody_is_the_frame_dimmed() -> None:
    frames = np.full((2, 20, 30, 3), 100, np.uint8)
    nothing = POSE.coloured(np.zeros((2, 17, 10, 15), np.uint8), 0.0)
    assert (POSE.drawn_over(nothing, frames) == 50).all()
    sure = SEGMENTATION.coloured(np.full((2, 1, 10, 15), 255, np.uint8), 0.0)
    assert (SEGMENTATION.drawn_over(sure, frames) == [255, 50 + round(140 * 205 / 255), 50]).all()


def test_without_the_packages_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> importlib.metadata.Distribution:
        raise importlib.metadata.PackageNotFoundError(name)

    with monkeypatch.context() as patched:
        patched.setattr(importlib.metadata, "distribution", missing)
        with pytest.raises(UsageError, match="ai-edge-litert is not installed") as refused:
            SegmentationSettings().resolved()
        with pytest.raises(UsageError, match="(?s)is not installed.*--pose.estimator files") as also:
            PoseSettings().resolved()
    assert also.value.remedy.replace("pose", "segmentation") == refused.value.remedy
    assert PoseSettings("files", running={"folder": "."}).resolved().estimator == "files"


@installed
@pytest.mark.remedy("pip install --no-deps {}", told=True)
@pytest.mark.remedy("`make repair`, or: `{}`", told=True)
@pytest.mark.remedy("puts the pinned one there", told=True)
def test_what_it_says_to_install_is_installed_by_that() -> None:
    """pip has nothing to do here, so it needs no network, and only what is pinned satisfies it."""
    command = [sys.executable, "-m", *shlex.split(tflite.install())]
    assert command[3:5] == ["install", "--no-deps"]
    done = subprocess.run([*command, "--no-index"], capture_output=True, text=True, check=True)
    assert done.stdout.count("already satisfied") == 2
    assert people.choose("segmentation", "selfie").settings["digest"]


@installed
def test_another_model_than_recorded_is_refused() -> None:
    with pytest.raises(UsageError, match="not the model that the settings record") as refused:
        people.choose("segmentation", "selfie", digest="0" * 64)
    assert tflite.install() in refused.value.remedy


@pytest.mark.parametrize(
    ("view", "name", "parameters", "text"),
    [
        ("pose", "blazepse", {}, 'unknown pose estimator "blazepse"'),
        ("pose", "selfie", {}, 'unknown pose estimator "selfie"'),
        ("pose", "blazepose", {"detection": 2}, "detection 2 is not between"),
        ("pose", "blazepose", {"people": 0}, "people 0 is not a whole number"),
        ("pose", "blazepose", {"digests": {"other": ""}}, "digests are those of"),
        ("segmentation", "selfie", {"model": "portrait"}, "model 'portrait' is none of"),
        ("segmentation", "files", {"folder": 3}, "folder 3 is no path"),
        ("segmentation", "files", {"fodler": ""}, "does not take these parameters"),
    ],
)
def test_parameters_that_cannot_be_meant_are_refused(view: str, name: str, parameters: dict, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        people.choose(view, name, **parameters)


def test_where_files_lie_is_no_setting_of_the_store(given: Path) -> None:
    """What decides the maps is part of the store's settings, where files lie is not."""
    stored = settings(given).as_dict()
    assert stored["pose"]["estimator"] == "files" and "running" not in stored["pose"]
    assert stored == settings(given / ".").as_dict()
