"""The synthetic data set: only motion tells the class, and repeating an interrupted generation completes it."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from pipeline import synthetic
from pipeline.errors import Refusal, UsageError
from pipeline.synthetic import scene
from pipeline.synthetic.motions import pair_of_tracks
from tests.patience import PATIENCE

ROOT = Path(__file__).resolve().parents[2]
SMALL: dict[str, Any] = {"train_per_class": 2, "test_per_class": 1, "frames": 7, "height": 32, "width": 48}
SMALL_COUNT = 3 * len(synthetic.CLASSES)


def decode(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of the small set, made in one go by two workers."""
    folder = tmp_path_factory.mktemp("undisturbed")
    assert synthetic.generate(folder, **SMALL, workers=2) == SMALL_COUNT
    return contents(folder)


@pytest.fixture
def copy(undisturbed: dict[str, bytes], tmp_path: Path) -> Path:
    """A folder that holds the small set."""
    for name, content in undisturbed.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    return tmp_path


class TestVideo:
    def test_is_a_function_of_class_and_seed(self) -> None:
        first = synthetic.video("bounce", (1, 2), frames=5)
        assert first.shape == (5, 84, 112, 3)
        assert first.dtype == np.uint8
        np.testing.assert_array_equal(first, synthetic.video("bounce", (1, 2), frames=5))
        assert (first != synthetic.video("bounce", (1, 3), frames=5)).mean() > 0.9

    def test_classes_of_one_seed_share_all_but_the_sprites_places(self) -> None:
        one, other = (synthetic.video(name, 5, frames=12) for name in ("horizontal", "vertical"))
        same = (one == other).all(-1)
        assert 0.5 < same.mean() < 0.999

    def test_shows_the_same_scene_at_another_size(self) -> None:
        small, large = (
            synthetic.video("zigzag", 5, frames=3, height=84 * k, width=112 * k).mean(0, dtype=np.float32)
            for k in (1, 2)
        )
        shrunk = cv2.resize(large, (112, 84), interpolation=cv2.INTER_AREA)
        assert np.abs(shrunk - small).mean() < 6
        assert np.abs(shrunk[:, ::-1] - small).mean() > 9

    def test_unknown_class_fails(self) -> None:
        with pytest.raises(ValueError, match="unknown class 'zooom'; the classes are horizontal"):
            synthetic.video("zooom", 1)


@pytest.mark.parametrize("class_name", synthetic.CLASSES)
def test_sprites_move_as_their_class_says(class_name: str) -> None:
    """Ranges of x, y, angle and size over a video, the means over 40 sprites; wobble alone spans about 1 px."""
    tracks = [
        track
        for seed in range(20)
        for track in pair_of_tracks(class_name, np.random.default_rng(seed), frames=48, height=84, width=112)
    ]
    x, y, angle, size = np.mean([np.ptp(track, axis=0) for track in tracks], axis=0)
    moves_x = class_name not in ("vertical", "zoom", "spin")
    moves_y = class_name not in ("horizontal", "zoom", "spin")
    assert (x > 8) == moves_x and (moves_x or x < 3)
    assert (y > 8) == moves_y and (moves_y or y < 3)
    assert (angle > 3) == (class_name == "spin")
    assert (size > 0.5) == (class_name == "zoom")
    # The area that a track goes round: positive is clockwise on the screen, where y points down.
    turned = [
        np.sum(t[:-1, 0] * np.diff(t[:, 1]) - t[:-1, 1] * np.diff(t[:, 0])) / 2 for t in (t - t.mean(0) for t in tracks)
    ]
    if class_name.startswith("orbit"):
        assert all(np.sign(area) == (1 if class_name == "orbit_cw" else -1) for area in turned)


class TestGenerate:
    def test_writes_every_class_and_split(self, undisturbed: dict[str, bytes]) -> None:
        expected = {f"train/{name}/{name}_{number:04d}.mp4" for name in synthetic.CLASSES for number in (1, 2)}
        expected |= {f"test/{name}/{name}_0001.mp4" for name in synthetic.CLASSES}
        assert set(undisturbed) == expected
        assert len(synthetic.CLASSES) >= 10
        assert len(set(undisturbed.values())) == SMALL_COUNT

    def test_files_decode_to_the_frames(self, copy: Path) -> None:
        for class_index, name in enumerate(synthetic.CLASSES):
            path = copy / "train" / name / f"{name}_0002.mp4"
            wanted = synthetic.video(name, (1, 0, class_index, 2), frames=7, height=32, width=48)
            decoded = decode(path)
            assert decoded.shape == wanted.shape
            # Grain and the halved resolution of colour cost 4 to 6 grey levels; another video of the class differs by
            # 30.
            assert np.abs(decoded.astype(int) - wanted).mean() < 10
            with av.open(str(path)) as container:
                stream = container.streams.video[0]
                assert (stream.codec_context.name, stream.average_rate, stream.pix_fmt) == ("h264", 25, "yuv444p")

    def test_does_not_depend_on_the_number_of_workers(self, undisturbed: dict[str, bytes], tmp_path: Path) -> None:
        synthetic.generate(tmp_path, **SMALL, workers=1)
        assert contents(tmp_path) == undisturbed

    def test_repeating_keeps_finished_files(self, copy: Path) -> None:
        before = {path: path.stat().st_mtime_ns for path in copy.rglob("*.mp4")}
        calls: list[tuple[int, int]] = []
        assert synthetic.generate(copy, **SMALL, progress=lambda done, total: calls.append((done, total))) == 0
        assert {path: path.stat().st_mtime_ns for path in copy.rglob("*.mp4")} == before
        assert calls == [(SMALL_COUNT, SMALL_COUNT)]

    def test_makes_again_what_is_deleted_unreadable_or_half_written(
        self, copy: Path, undisturbed: dict[str, bytes]
    ) -> None:
        (copy / "train/zoom/zoom_0001.mp4").unlink()
        (copy / "test/shake/shake_0001.mp4").write_bytes(b"")
        (copy / "test/zigzag/zigzag_0001.mp4").write_bytes(bytes(5000))
        no_index = copy / "test/vertical/vertical_0001.mp4"
        no_index.write_bytes(no_index.read_bytes().partition(b"moov")[0][:-4])
        half = copy / "train/bounce/bounce_0002.mp4"
        half.rename(half.with_name("bounce_0002.mp4.partial")).write_bytes(b"half")
        calls: list[tuple[int, int]] = []
        assert synthetic.generate(copy, **SMALL, progress=lambda done, total: calls.append((done, total))) == 5
        assert contents(copy) == undisturbed
        assert calls == [(SMALL_COUNT - 5 + made, SMALL_COUNT) for made in range(6)]

    def test_other_settings_in_the_same_folder_fail(self, copy: Path, undisturbed: dict[str, bytes]) -> None:
        for change in ({"seed": 2}, {"frames": 8}, {"width": 64}):
            with pytest.raises(Refusal, match="made otherwise") as caught:
                synthetic.generate(copy, **SMALL | change)
            assert "horizontal_0001.mp4" in caught.value.where
        assert contents(copy) == undisturbed

    def test_videos_that_do_not_belong_fail(self, copy: Path) -> None:
        with pytest.raises(Refusal, match="holds 10 videos that do not belong"):
            synthetic.generate(copy, **SMALL | {"train_per_class": 1})

    def test_a_video_from_elsewhere_under_a_wanted_name_fails(self, copy: Path) -> None:
        path = copy / "train/zoom/zoom_0001.mp4"
        synthetic.write_mp4(path, np.zeros((2, 16, 16, 3), np.uint8))
        with pytest.raises(Refusal, match="not by costream"):
            synthetic.generate(copy, **SMALL)

    @pytest.mark.parametrize("lost", [1, 20])
    def test_a_video_cut_short_that_still_opens_is_not_taken_for_a_finished_one(self, copy: Path, lost: int) -> None:
        path = copy / "test/spin/spin_0001.mp4"
        path.write_bytes(path.read_bytes()[:-lost])
        with pytest.raises(Refusal, match="(?s)cut short.*delete it"):
            synthetic.generate(copy, **SMALL)

    def test_a_file_in_place_of_a_folder_fails(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(Refusal, match="this is a file"):
            synthetic.generate(tmp_path / "file")
        (tmp_path / "train").mkdir()
        (tmp_path / "train" / "zoom").touch()
        with pytest.raises(Refusal, match="a synthetic video cannot be written: .*(exists|Not a directory)"):
            synthetic.generate(tmp_path, **SMALL)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"frames": 0}, "frames is 0"),
            ({"workers": 0}, "workers is 0"),
            ({"seed": -1}, "seed is -1"),
            ({"train_per_class": 0, "test_per_class": 0}, "no videos"),
        ],
    )
    def test_impossible_settings_fail(self, tmp_path: Path, change: dict[str, int], message: str) -> None:
        with pytest.raises(UsageError, match=message):
            synthetic.generate(tmp_path / "new", **SMALL | change)
        assert not (tmp_path / "new").exists()

    def test_a_full_disk_loses_nothing(self, copy: Path, undisturbed: dict[str, bytes]) -> None:
        """A limit on the size of files stands in for the disk: writing fails in the middle of the file."""
        (copy / "train/zoom/zoom_0001.mp4").unlink()
        script = (
            "import resource; from pipeline import synthetic; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
            f"synthetic.generate({str(copy)!r}, **{SMALL!r})"
        )
        run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
        assert run.returncode == 1
        assert "a synthetic video cannot be written: File too large" in run.stderr
        assert "zoom_0001.mp4" in run.stderr
        assert len(contents(copy)) == SMALL_COUNT - 1
        assert synthetic.generate(copy, **SMALL) == 1
        assert contents(copy) == undisturbed

    def test_a_killed_worker_is_reported_and_the_others_end(self, tmp_path: Path) -> None:
        def kill_a_worker(done: int, total: int) -> None:
            if done == 1:
                multiprocessing.active_children()[0].kill()

        with pytest.raises(Refusal, match="a process that makes synthetic videos died"):
            synthetic.generate(tmp_path, **SMALL | {"train_per_class": 200}, progress=kill_a_worker)
        assert not multiprocessing.active_children()

    def test_an_error_of_the_caller_ends_the_workers(self, tmp_path: Path) -> None:
        def stop(done: int, total: int) -> None:
            if done == 1:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            synthetic.generate(tmp_path, **SMALL | {"train_per_class": 200}, progress=stop)
        assert len(list(tmp_path.rglob("*.mp4"))) < 200
        assert not multiprocessing.active_children()

    def test_workers_end_with_a_killed_parent(self, tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
        many = SMALL | {"train_per_class": 200}
        script = (
            "from pipeline import synthetic\n"
            f"synthetic.generate({str(tmp_path)!r}, **{many!r}, progress=lambda done, total: print(done, flush=True))"
        )
        run = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert run.stdout is not None
        while int(run.stdout.readline()) == 0:
            continue
        run.kill()
        # The workers hold the other end of the pipe: it closes when the last of them is gone.
        run.communicate(timeout=PATIENCE)
        finished = {path.relative_to(tmp_path) for path in tmp_path.rglob("*.mp4")}
        assert 0 < len(finished) < 200 * len(synthetic.CLASSES)
        for path in finished & {Path(name) for name in undisturbed}:
            assert (tmp_path / path).read_bytes() == undisturbed[str(path)]


class TestWriteMp4:
    def test_frames_of_another_kind_fail(self, tmp_path: Path) -> None:
        for frames, message in (
            (np.zeros((2, 16, 16, 3), np.float32), "uint8"),
            (np.zeros((2, 16, 16), np.uint8), "uint8"),
            (np.zeros((0, 16, 16, 3), np.uint8), "uint8"),
        ):
            with pytest.raises(ValueError, match=message):
                synthetic.write_mp4(tmp_path / "video.mp4", frames)
        assert not list(tmp_path.iterdir())

    def test_failed_writing_leaves_nothing(self, tmp_path: Path) -> None:
        (tmp_path / "video.mp4").mkdir()
        with pytest.raises(OSError, match="directory"):
            synthetic.write_mp4(tmp_path / "video.mp4", np.zeros((2, 16, 16, 3), np.uint8))
        assert [path.name for path in tmp_path.iterdir()] == ["video.mp4"]

    def test_frame_rate_and_count(self, tmp_path: Path) -> None:
        frames = np.random.default_rng(0).integers(0, 255, (11, 20, 18, 3), np.uint8)
        synthetic.write_mp4(tmp_path / "video.mp4", frames, fps=10)
        assert decode(tmp_path / "video.mp4").shape == frames.shape
        with av.open(str(tmp_path / "video.mp4")) as container:
            assert container.streams.video[0].average_rate == 10


# Does anything but motion tell the class? Nearest neighbours between two sets of videos, by features of several kinds.

GALLERY, QUERIES = 15, 25  # videos per class
# Where a feature says nothing about the class, the number of right neighbours among 250 queries of 10 classes follows
# the binomial law B(250, 0.1): mean 25, standard deviation 4.7. More than 44 happens with probability 8e-5.
CHANCE_BOUND = 44


def mean_image(frames: np.ndarray) -> np.ndarray:
    return frames.mean(0, dtype=np.float32).ravel()


def one_frame(frames: np.ndarray) -> np.ndarray:
    return frames[len(frames) // 2].ravel().astype(np.float32)


def colour_statistics(frames: np.ndarray) -> np.ndarray:
    """Mean, standard deviation and five percentiles of each channel."""
    pixels = frames[::12].reshape(-1, 3).astype(np.float32)
    percentiles = np.percentile(pixels, (5, 25, 50, 75, 95), axis=0)
    return np.concatenate([pixels.mean(0), pixels.std(0), percentiles.ravel()])


def mean_colour(frames: np.ndarray) -> np.ndarray:
    return frames[::6].reshape(-1, 3).mean(0)


def flow_directions(frames: np.ndarray) -> np.ndarray:
    """Share of the flow in each of eight directions, and how much it varies over time; less the camera's motion."""
    estimator = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
    gray = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    rows = []
    for first, second in zip(gray[::2], gray[1::2], strict=True):
        flow = estimator.calc(first, second, None)
        flow -= np.median(flow[::3, ::3], (0, 1))
        length, angle = cv2.cartToPolar(flow[..., 0], flow[..., 1])
        length[length < 0.5] = 0
        rows.append(np.bincount((angle.ravel() * 4 / np.pi).astype(int) % 8, length.ravel(), 8))
    histograms = np.array(rows)
    shares = histograms / (histograms.sum(1, keepdims=True) + 1e-6)
    overall = histograms.sum(0) / (histograms.sum() + 1e-6)
    return np.concatenate([np.sqrt(8 * overall), shares.std(0)])


def tinted(frames: np.ndarray, label: int) -> np.ndarray:
    """A planted leak: each class a little brighter than the one before, by 8 % of the range."""
    return np.clip(frames.astype(np.int16) + 20 * label, 0, 255).astype(np.uint8)


STATIC = (mean_image, one_frame, colour_statistics, mean_colour)


@pytest.fixture(scope="module")
def features() -> dict[str, np.ndarray]:
    """Each feature of 15 + 25 videos per class, (10, 40, D), by name; with `tinted` for videos with a planted leak."""
    rows: dict[str, list[np.ndarray]] = {}
    for label, name in enumerate(synthetic.CLASSES):
        for number in range(GALLERY + QUERIES):
            frames = synthetic.video(name, (3, label, number), frames=24)  # about one period
            for feature in (*STATIC, flow_directions):
                rows.setdefault(feature.__name__, []).append(feature(frames))
            rows.setdefault("tinted", []).append(mean_colour(tinted(frames[::6], label)))
    return {name: np.array(row).reshape(len(synthetic.CLASSES), GALLERY + QUERIES, -1) for name, row in rows.items()}


def right_neighbours(feature: np.ndarray) -> int:
    """How many queries have a nearest neighbour of their own class in the gallery; feature (classes, videos, D)."""
    classes, _, size = feature.shape
    gallery, queries = (part.reshape(-1, size) for part in np.split(feature, [GALLERY], axis=1))
    distances = (gallery**2).sum(1) - 2 * queries @ gallery.T
    return int((distances.argmin(1) // GALLERY == np.repeat(np.arange(classes), QUERIES)).sum())


@pytest.mark.slow  # the features of 400 videos take ten seconds
@pytest.mark.parametrize("name", [feature.__name__ for feature in STATIC])
def test_appearance_does_not_tell_the_class(features: dict[str, np.ndarray], name: str) -> None:
    assert right_neighbours(features[name]) <= CHANCE_BOUND


@pytest.mark.slow  # as the features
def test_a_planted_leak_is_found(features: dict[str, np.ndarray]) -> None:
    assert right_neighbours(features["tinted"]) > CHANCE_BOUND


@pytest.mark.slow  # as the features
def test_motion_tells_the_class(features: dict[str, np.ndarray]) -> None:
    assert right_neighbours(features["flow_directions"]) > 1.3 * CHANCE_BOUND


def test_the_truth_is_where_the_sprites_are(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ("spin", (3, 1), 6, 84, 112)
    shown, (masks, points) = synthetic.video(*asked), synthetic.truth(*asked)
    monkeypatch.setattr(scene, "_paint", lambda *_: None)
    differs = np.abs(shown.astype(int) - synthetic.video(*asked)).max(axis=-1)
    assert differs[masks == 0].max() <= 1  # of an opacity that rounds to 0
    assert (differs[masks == 255] > 1).mean() > 0.95
    assert 0.02 < (masks == 255).mean() < 0.5
    assert points.shape[0] == 6 and points.shape[2:] == (17, 3) and (points[..., 2] == 1).all()
    middle = (points[..., :2].mean(axis=2) * (112, 84)).astype(int)
    for number, sprites in enumerate(middle):
        assert all(masks[number, y, x] == 255 for x, y in sprites[:2])
    turned = points[..., 0, :2] - points[..., 15, :2]  # from an ankle to the nose
    length = np.hypot(*(turned * (112, 84)).T)
    assert np.ptp(length, axis=-1).max() < 1e-3 and np.abs(np.diff(turned[:, 0], axis=0)).max() > 0.02


def test_the_truth_lies_beside_the_videos_by_their_ids(tmp_path: Path) -> None:
    asked = {"train_per_class": 1, "test_per_class": 0, "frames": 3, "height": 32, "width": 48, "workers": 1}
    made = synthetic.generate(tmp_path / "videos", **asked)
    assert synthetic.generate(tmp_path / "videos", **asked, truth=tmp_path / "truth") == made
    assert synthetic.generate(tmp_path / "videos", **asked, truth=tmp_path / "truth") == 0
    with np.load(tmp_path / "truth" / "train" / "zoom" / "zoom_0001.npz") as found:
        number = synthetic.CLASSES.index("zoom")
        for name, expected in zip(
            ("maps", "keypoints"), synthetic.truth("zoom", (1, 0, number, 1), 3, 32, 48), strict=True
        ):
            np.testing.assert_array_equal(found[name], expected)
