"""The commands `flow` and `bench-flow`: what they write, what they tell, what they refuse."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pipeline import flow, synthetic
from pipeline.bench import measuring, pairs
from pipeline.commands import flow as flow_commands
from pipeline.errors import Refusal
from pipeline.show import flow_files, flow_output
from pipeline.video.decode import decode
from pipeline.views.colour import colour_code

Run = Callable[..., tuple[int, str, str]]
DIS = ("--estimator", "dis")


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    return synthetic.video(synthetic.CLASSES[0], 5, frames=12, height=32, width=48)


@pytest.fixture
def images(tmp_path: Path, frames: np.ndarray) -> tuple[Path, Path]:
    paths = (tmp_path / "one [1].png", tmp_path / "zwei ü.ppm")
    for path, frame in zip(paths, frames[:2], strict=True):
        write_image(path, frame)
    return paths


@pytest.fixture
def video(tmp_path: Path, frames: np.ndarray) -> Path:
    synthetic.write_mp4(tmp_path / "walk.mp4", frames)
    return tmp_path / "walk.mp4"


def write_image(path: Path, image: np.ndarray) -> None:
    path.write_bytes(cv2.imencode(path.suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes())


def estimated(frames: np.ndarray, **settings: Any) -> np.ndarray:
    return flow.create("dis", **settings).estimate(frames[:-1], frames[1:])


def left_behind(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name.startswith(".")]


@pytest.mark.parametrize("name", ["a.npy", "a.flo", "new/folder/a.kitti.png"])
def test_flow_of_two_images(run: Run, images: tuple[Path, Path], frames: np.ndarray, tmp_path: Path, name: str) -> None:
    out = tmp_path / name
    code, told, _ = run("flow", *images, "--out", out, *DIS)
    expected = estimated(frames[:2])[0]
    length = np.hypot(*expected)
    assert code == 0
    assert told.startswith("dis flow of 1 pair of 48x32, ")
    assert f" ms a pair, mean {length.mean():.2f} px, largest {length.max():.2f} px: {out}" in told
    assert flow_files.read(out) == pytest.approx(expected, abs=1 / 128 if "kitti" in name else 0)
    assert not left_behind(tmp_path)


def test_flow_as_a_picture_tells_its_scale(
    run: Run, images: tuple[Path, Path], frames: np.ndarray, tmp_path: Path
) -> None:
    expected = estimated(frames[:2])
    code, told, _ = run("flow", *images, "--out", tmp_path / "a.png", *DIS)
    longest = max(0.5, float(np.percentile(np.hypot(expected[:, 0], expected[:, 1]), 99)))
    assert code == 0
    assert f", full colour at {longest:.1f} px: {tmp_path / 'a.png'}" in told
    stored = cv2.cvtColor(cv2.imread(str(tmp_path / "a.png")), cv2.COLOR_BGR2RGB)
    assert np.array_equal(stored, colour_code(expected, longest)[0])
    code, told, _ = run("flow", *images, "--out", tmp_path / "a.png", *DIS, "--longest", 40)
    assert code == 0
    assert "full colour at 40.0 px" in told
    stored = cv2.cvtColor(cv2.imread(str(tmp_path / "a.png")), cv2.COLOR_BGR2RGB)
    assert np.array_equal(stored, colour_code(expected, 40.0)[0])


def test_flow_of_a_video_is_one_array(run: Run, video: Path, tmp_path: Path) -> None:
    code, told, _ = run("flow", video, "--out", tmp_path / "a.npy", *DIS, "--parameters.preset", "fast")
    expected = estimated(np.concatenate(list(decode(video))), preset="fast")
    assert code == 0
    assert "dis flow of 11 pairs of 48x32, " in told
    assert np.array_equal(np.load(tmp_path / "a.npy"), expected)
    assert not left_behind(tmp_path)
    assert run("flow", video, "--out", tmp_path / "a.npy", *DIS)[0] == 0  # replaced
    assert not np.array_equal(np.load(tmp_path / "a.npy"), expected)


@pytest.mark.parametrize("ending", [".flo", ".png", ".kitti.png"])
def test_flow_of_a_video_is_a_folder_of_numbered_files(run: Run, video: Path, tmp_path: Path, ending: str) -> None:
    out = ("flow", video, "--out", tmp_path / f"a{ending}", *DIS)
    code, told, _ = run(*out)
    assert code == 0
    assert told.rstrip().endswith(f": {tmp_path / 'a'}")
    written = sorted((tmp_path / "a").iterdir())
    assert [path.name for path in written] == [f"{number:06d}{ending}" for number in range(11)]
    if ending != ".png":
        found = np.stack([flow_files.read(path) for path in written])
        assert found == pytest.approx(estimated(np.concatenate(list(decode(video)))), abs=1 / 128)
    assert not left_behind(tmp_path)
    code, _, err = run(*out)
    assert code == 1
    assert "there is such a folder already" in err


@pytest.mark.parametrize("seconds", [1e-9, 1e9])
def test_the_size_of_steps_does_not_show_in_the_flow(
    video: Path, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    monkeypatch.setattr(pairs, "STEP_SECONDS", seconds)
    whole = list(decode(video))[0]
    monkeypatch.setattr(pairs, "decode", lambda path: iter([whole[:1], whole[1:7], whole[7:]]))
    steps = [found for found, _ in pairs.flow_of_video(flow.create("dis"), video)]
    assert [len(step) for step in steps] == ([1] * 11 if seconds < 1 else [1, 2, 3, 5])
    assert np.array_equal(np.concatenate(steps), estimated(whole))


def test_flow_refuses_what_it_cannot_do(run: Run, images: tuple[Path, Path], video: Path, tmp_path: Path) -> None:
    one, two = images
    write_image(tmp_path / "small.png", np.zeros((32, 40, 3), np.uint8))
    synthetic.write_mp4(tmp_path / "still.mp4", np.zeros((1, 32, 48, 3), np.uint8))
    (tmp_path / "file").write_bytes(b"")
    whole = cv2.imread(str(one))
    (tmp_path / "half.png").write_bytes(cv2.imencode(".png", whole)[1].tobytes()[:-40])
    jpeg = cv2.imencode(".jpg", whole)[1].tobytes()
    (tmp_path / "half.jpg").write_bytes(jpeg[: len(jpeg) * 3 // 4] + b"\xff\xd9")
    (tmp_path / "cut.mp4").write_bytes(video.read_bytes()[:-400])
    out = tmp_path / "out.npy"
    for arguments, code, message in (
        ((one, two, "--out", out, "--estimator", "diss"), 2, 'did you mean "dis"'),
        ((one, two, "--out", out, *DIS, "--parameters.preset", "slow"), 2, "preset 'slow' is none of"),
        ((one, two, "--out", tmp_path / "out.jpg", *DIS), 2, "known endings: .kitti.png, .png, .flo, .npy"),
        ((one, two, "--out", tmp_path / ".flo", *DIS), 2, "known endings"),
        ((one, two, "--out", tmp_path / "a.png", *DIS, "--longest", -1), 2, "longest -1.0 is out of range"),
        ((one, two), 2, "required: flow.out"),
        (("--out", out), 2, "required: flow.first"),
        ((one, tmp_path / "small.png", "--out", out, *DIS), 1, "the images differ in size: 48x32 and 40x32"),
        ((one, tmp_path / "none.png", "--out", out, *DIS), 1, "the image cannot be read: No such file"),
        ((one, tmp_path / "file", "--out", out, *DIS), 1, "this is no image that can be decoded"),
        ((one, tmp_path / "half.png", "--out", out, *DIS), 1, "this is no image that can be decoded"),
        ((one, tmp_path / "half.jpg", "--out", out, *DIS), 1, "no whole image: its data end before the picture does"),
        ((video, video, "--out", out, *DIS), 1, "give two images, or one video"),
        ((tmp_path / "none.mp4", "--out", out, *DIS), 1, "there is no such file"),
        ((tmp_path / "file", "--out", out, *DIS), 1, "the file is empty"),
        ((tmp_path / "cut.mp4", "--out", out, *DIS), 1, "to do: "),
        ((tmp_path / "still.mp4", "--out", out, *DIS), 1, "it has a single frame, so no pair"),
        ((one, two, "--out", tmp_path / "file" / "a.flo", *DIS), 1, "it cannot be written"),
    ):
        found, _, err = run("flow", *arguments)
        assert (found, message in err) == (code, True), (arguments, err)
        assert "Traceback" not in err
    assert not out.exists()
    assert not left_behind(tmp_path)


def test_an_estimator_that_gives_up_is_told(
    run: Run, images: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = images[0].with_name("a.flo")
    for answer, message in (
        (lambda self, one, two: np.full((1, 2, 32, 48), np.nan), "dis gave a flow that is not finite"),
        (lambda self, one, two: int("few"), "dis gave up on frames of 48x32: invalid literal"),
    ):
        monkeypatch.setattr(flow.FlowEstimator, "estimate", answer)
        code, _, err = run("flow", *images, "--out", out, *DIS)
        assert code == 1
        assert message in err
    assert not out.exists()


def test_the_header_of_an_array_grows_with_it(tmp_path: Path) -> None:
    one = np.ones((1, 2, 3, 4), np.float32)
    with flow_output.Output(tmp_path / "a.npy", single=False) as out:
        for _ in range(1234):
            out.add(one)
        assert not (tmp_path / "a.npy").exists()
        out.finish()
    assert np.array_equal(np.load(tmp_path / "a.npy", mmap_mode="r"), np.ones((1234, 2, 3, 4)))


BENCH = ("bench-flow", "--size", "32x48", "--count", 3)


def test_bench_flow_measures_synthetic_pairs(run: Run, tmp_path: Path) -> None:
    code, out, _ = run(*BENCH, "--estimators", "dis", "--json", tmp_path / "new" / "a.json")
    assert code == 0
    assert "3 pairs of synthetic videos, 32x48" in out
    assert f"measured 2 estimators on 3 pairs, figures in {tmp_path / 'new' / 'a.json'}" in out
    content = json.loads((tmp_path / "new" / "a.json").read_text())
    reference, dis = (content["sizes"]["32x48"][name] for name in ("tvl1-opencv", "dis"))
    assert (reference["times_reference"], reference["difference_px"], reference["bytes_equal"]) == (1, 0, 1)
    assert dis["times_reference"] > 1
    assert dis["difference_px"] > 0
    assert dis["bytes_equal"] <= dis["bytes_within_one"] < 1
    assert dis["error_px"] is None
    assert dis["ms_per_pair"] == pytest.approx(1e3 * np.mean(list(dis["seconds"].values())))
    assert dis["ucf101_hours"] == pytest.approx(dis["ms_per_pair"] * 2.5e6 / 3.6e6)


def test_bench_flow_measures_videos(run: Run, video: Path, tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    (folder / "deeper").mkdir(parents=True)
    video.rename(folder / "deeper" / "walk.mp4")
    synthetic.write_mp4(folder / "still.mp4", np.zeros((1, 32, 48, 3), np.uint8))
    (folder / "broken.mp4").write_bytes(b"no video")
    code, out, err = run(*BENCH, "--videos", folder, "--size", "16x24,20x30", "--estimators", "dis")
    assert code == 0
    assert f"1 pair of {folder}, 16x24" in out
    assert f"1 pair of {folder}, 20x30" in out
    assert "left out broken.mp4: it cannot be opened as a video" in err
    assert "left out still.mp4: a single frame" in err
    found, _ = pairs.video_pairs(folder, (16, 24), 12)
    assert [pair.name for pair in found] == [
        "deeper/walk.mp4 2",
        "deeper/walk.mp4 4",
        "deeper/walk.mp4 6",
        "deeper/walk.mp4 8",
    ]
    (folder / "deeper" / "walk.mp4").unlink()
    code, _, err = run(*BENCH, "--videos", folder)
    assert code == 1
    assert "no video gave a pair of frames" in err


def true_pair(folder: Path, frames: np.ndarray, name: str = "frame", flow_name: str = "flow_gt.flo") -> np.ndarray:
    folder.mkdir(exist_ok=True)
    for number in (0, 1):
        write_image(folder / f"{name}{number}.png", frames[number])
    truth = estimated(frames[:2])[0] + np.float32([[[3]], [[4]]])
    truth[:, :5] = np.nan
    flow_files.write(folder / flow_name, truth)
    return truth


def test_bench_flow_tells_the_error_against_true_flow(run: Run, frames: np.ndarray, tmp_path: Path) -> None:
    folder = tmp_path / "pairs"
    folder.mkdir()
    truth = true_pair(folder / "a", frames)
    true_pair(folder / "b", frames[:, :18, :20], "x_img", "x_gt.png")
    true_pair(folder / "b", frames[:, :24, :20], "y_img", "y_gt.png")
    true_pair(folder / "b", frames[:, :24, :20], "y_img", "other.flo")
    true_pair(folder / "c", frames, flow_name="f.flo")
    flow_files.write(folder / "c" / "f.flo", np.zeros((2, 5, 5)))
    true_pair(folder / "d", frames)
    write_image(folder / "d" / "frame1.png", frames[1, :20])
    for one, other in ("ab", "bc", "ca"):
        (folder / one / "link").symlink_to(f"../{other}")
        (folder / one / "back").symlink_to("..")
    found, left_out = pairs.true_pairs(folder)
    assert [(pair.name, pair.first.shape[:2]) for pair in found] == [
        ("a", (32, 48)),
        ("b/x_gt.png", (18, 20)),
        ("b/y_gt.png", (24, 20)),
    ]
    assert np.array_equal(found[0].truth, truth, equal_nan=True)
    for line, message in zip(
        sorted(left_out),
        ("4 images beside it", "of another size than its images", "the images differ in size: 48x32 and 48x20"),
        strict=True,
    ):
        assert message in line
    code, out, err = run(*BENCH, "--pairs", folder, "--estimators", "dis", "--json", tmp_path / "a.json")
    assert code == 0
    assert "3 pairs of" in out
    assert err.count("left out") == 3
    figures = json.loads((tmp_path / "a.json").read_text())["sizes"]["true flow"]["dis"]
    assert figures["errors_px"]["a"] == pytest.approx(5, abs=1e-5)
    assert figures["errors_px"]["b/x_gt.png"] == pytest.approx(5, abs=0.02)  # KITTI's 1/64 pixel
    assert figures["error_px"] == pytest.approx(5, abs=0.02)


def test_an_estimator_that_cannot_run_has_a_row_that_says_why(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def create(name: str, **settings: Any) -> flow.FlowEstimator:
        if name == "tvl1-cpu":
            raise Refusal("there is no GPU", remedy="buy one")
        made = real(name, **settings)
        if name == "dis":
            monkeypatch.setattr(type(made), "pair", lambda self, one, two: one[{}])
        return made

    real = flow.create
    monkeypatch.setattr(flow, "create", create)
    code, out, _ = run(*BENCH, "--json", tmp_path / "a.json", "--estimators", "dis,tvl1-cpu")
    assert code == 0
    assert "tvl1-cpu  cannot run here: there is no GPU" in out
    assert "dis  cannot run here: IndexError: only integers" in out
    figures = json.loads((tmp_path / "a.json").read_text())["sizes"]["32x48"]
    assert figures["tvl1-cpu"] == {"problem": "there is no GPU"}
    assert figures["tvl1-opencv"]["ms_per_pair"] > 0


def test_a_pair_that_an_estimator_fails_on_is_told_and_left_out(frames: np.ndarray) -> None:
    class Moody(type(flow.create("dis"))):  # type: ignore[misc]
        def batch(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
            if first.shape[1] < 32:
                raise RuntimeError("too small")
            return super().batch(first, second)

    both = [pairs.Pair("small", frames[0, :20], frames[1, :20]), pairs.Pair("large", frames[0], frames[1])]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.flow.dis.DIS", Moody)
        reference, moody = measuring.measure(both, ["dis"])
    assert list(reference.seconds) == ["small", "large"]
    assert list(moody.seconds) == ["large"]
    assert moody.failures == {"small": "dis gave up on frames of 48x20: too small"}
    assert moody.times(reference) == pytest.approx(reference.seconds["large"] / moody.seconds["large"])


def test_without_the_reference_there_is_no_ratio() -> None:
    reference = measuring.Result("tvl1-opencv", problem="no cv2.optflow")
    own = measuring.Result("dis", seconds={"a": 0.5})
    figures = own.figures(reference)
    assert figures["times_reference"] is figures["difference_px"] is None
    assert figures["pairs_per_second"] == 2
    gpu = measuring.Result("x", gpu=True, seconds={"a": 9.0}, batch_seconds=0.25)
    assert gpu.times(own) == 2


def test_estimators_on_a_gpu_are_timed_in_batches(frames: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.flow.dis.DIS.device", "cuda")
    monkeypatch.setattr(measuring, "GPU_BATCH", 4)
    both = [pairs.Pair(str(t), frames[t], frames[t + 1]) for t in range(2)]
    _, dis = measuring.measure(both, ["dis"])
    assert dis.gpu
    assert dis.per_pair == dis.batch_seconds > 0
    monkeypatch.setattr("pipeline.flow.dis.DIS.batch", fail_on_many)
    _, dis = measuring.measure(both, ["dis"])
    assert dis.failures == {"a batch of 4": "RuntimeError: out of memory"}


def fail_on_many(self: Any, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    if len(first) > 1:
        raise RuntimeError("out of memory")
    return np.zeros((1, 2, *first.shape[1:3]), np.float32)


def test_bench_flow_refuses_what_cannot_be_meant(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for arguments, code, message in (
        (("--estimators", "dis,tvl2"), 2, 'unknown flow estimator "tvl2"'),
        (("--size", "128"), 2, "'128' is no size"),
        (("--size", "128x4"), 2, "at least 16"),
        (("--size", "128x40000"), 2, "is no size"),
        (("--count", 100_000), 2, "no room in memory for 100,000 pairs"),
        (("--count", 0), 2, "count 0 is out of range"),
        (("--videos", tmp_path, "--pairs", tmp_path), 2, "not both"),
        (("--pairs", tmp_path / "none"), 1, "there is no such folder"),
        (("--pairs", tmp_path / "empty"), 1, "no pair of images with its flow was found"),
        (("--videos", tmp_path / "empty"), 1, "no video was found"),
    ):
        found, _, err = run("bench-flow", *arguments)
        assert (found, message in err) == (code, True), (arguments, err)


def test_the_pairs_of_real_data_are_found(shared: Path) -> None:
    found, left_out = pairs.true_pairs(shared / "data" / "flow-gt")
    assert len(found) == 11
    assert [Path(line.partition(":")[0]).name for line in left_out] == ["tvl1_flow.flo"]
    reference = next(pair for pair in found if pair.name == "opencv-tvl1-reference")
    result = measuring.Result("stored")
    stored = flow_files.read(shared / "data" / "flow-gt" / "opencv-tvl1-reference" / "tvl1_flow.flo")
    measuring.compare(result, reference, stored, None)
    assert result.errors == {"opencv-tvl1-reference": pytest.approx(0.156, abs=1e-3)}


def test_help_names_every_ending() -> None:
    assert flow_commands.flow.__doc__ is not None
    for ending in flow_output.ENDINGS:
        assert f"`{ending}`" in flow_commands.flow.__doc__
