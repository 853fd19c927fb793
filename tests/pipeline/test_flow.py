"""Flow: estimators, bytes, and the view that stores it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pipeline import flow, synthetic
from pipeline.errors import UsageError
from pipeline.extraction import job
from pipeline.flow.quantisation import Mapping, Quantiser, dequantise, linear_values, quantise
from pipeline.manifest import Video
from pipeline.store import open_store
from pipeline.store.settings import ExtractionSettings
from pipeline.store.writing import create_store
from pipeline.video.decode import decode
from pipeline.views import codec, size
from pipeline.views.colour import colour_code, key
from pipeline.views.flow import FlowExtractor, FlowSettings
from pipeline.views.rgb import RgbExtractor, RgbSettings
from pipeline.views.size import Block

WITHOUT_WEIGHTS = [name for name in flow.ESTIMATORS if not name.startswith("raft")]  # those: test_raft.py
RIGHT, UP = 3, -2  # pixels that the texture moves from one frame to the next

every_estimator = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.gpu if name == "tvl1-cuda" else ()) for name in WITHOUT_WEIGHTS]
)


def texture(height: int = 64, width: int = 80) -> np.ndarray:
    """A smooth random gray image, the same every time."""
    noise = np.random.default_rng(0).integers(0, 256, (height, width)).astype(np.float32)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2), None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def moving(frames: int, height: int = 64, width: int = 80) -> np.ndarray:
    """RGB frames (F, H, W, 3) of the texture as it moves by (RIGHT, UP) a frame, around the edges."""
    image = texture(height, width)
    moved = [np.roll(image, (UP * index, RIGHT * index), axis=(0, 1)) for index in range(frames)]
    return np.repeat(np.stack(moved)[..., None], 3, axis=-1)


@every_estimator
def test_u_is_right_and_v_is_down(name: str) -> None:
    found = flow.create(name).estimate(moving(3)[:-1], moving(3)[1:])
    assert found.dtype == np.float32
    assert found.shape == (2, 2, 64, 80)
    inner = found[:, :, 12:-12, 12:-12]
    assert np.abs(inner[:, 0] - RIGHT).mean() < 0.1
    assert np.abs(inner[:, 1] - UP).mean() < 0.1


@every_estimator
def test_a_pair_does_not_depend_on_the_pairs_before_it(name: str) -> None:
    frames = synthetic.video(synthetic.CLASSES[0], 1, frames=4, height=32, width=48)
    estimator = flow.create(name)
    together = estimator.estimate(frames[:-1], frames[1:])
    alone = np.concatenate([estimator.estimate(frames[t : t + 1], frames[t + 1 : t + 2]) for t in (2, 0, 1)])
    assert np.array_equal(together[[2, 0, 1]], alone)


@every_estimator
def test_a_pairs_flow_does_not_depend_on_the_size_of_earlier_ones(name: str) -> None:
    frames, small, estimator = moving(2), moving(2)[:, :16, :24], flow.create(name)
    before = estimator.estimate(frames[:1], frames[1:])
    estimator.estimate(small[:1], small[1:])
    assert np.array_equal(estimator.estimate(frames[:1], frames[1:]), before)


@every_estimator
def test_gray_and_rgb_frames_give_the_same(name: str) -> None:
    frames, estimator = moving(2), flow.create(name)
    assert np.array_equal(
        estimator.estimate(frames[:1], frames[1:]), estimator.estimate(frames[:1, ..., 0], frames[1:, ..., 0])
    )


@every_estimator
def test_no_pairs_give_no_flow(name: str) -> None:
    none = np.empty((0, 32, 48, 3), np.uint8)
    assert flow.create(name).estimate(none, none).shape == (0, 2, 32, 48)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (np.zeros((1, 32, 32, 3), np.float32), np.zeros((1, 32, 32, 3), np.uint8), "must be uint8"),
        (np.zeros((1, 32, 32, 3), np.uint8), np.zeros((1, 32, 32, 3), np.int16), "must be uint8"),
        (np.zeros((1, 32, 32, 3), np.uint8), np.zeros((1, 32, 33, 3), np.uint8), "differ in shape"),
        (np.zeros((1, 32, 32, 3), np.uint8), np.zeros((2, 32, 32, 3), np.uint8), "differ in shape"),
        (np.zeros((1, 32, 32, 4), np.uint8), np.zeros((1, 32, 32, 4), np.uint8), "must be"),
        (np.zeros((32, 32), np.uint8), np.zeros((32, 32), np.uint8), "must be"),
    ],
)
def test_estimators_refuse_other_frames(first: np.ndarray, second: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        flow.create("dis").estimate(first, second)


@pytest.mark.parametrize(("preset", "side"), [("medium", 16), ("fast", 32), ("ultrafast", 32)])
def test_dis_refuses_frames_that_are_too_small_for_opencv(preset: str, side: int) -> None:
    dis = flow.create("dis", preset=preset)
    fits, small = np.zeros((1, side, 100), np.uint8), np.zeros((1, 100, side - 1), np.uint8)
    assert np.isfinite(dis.estimate(fits, fits)).all()
    with pytest.raises(ValueError, match=f"needs {side} pixels a side; these are {side - 1}x100"):
        dis.estimate(small, small)


def test_unknown_estimators_and_settings_are_named() -> None:
    with pytest.raises(UsageError, match='did you mean "tvl1-opencv"'):
        flow.create("tvl1_opencv")
    with pytest.raises(UsageError, match='unknown flow estimator "zzz"'):
        flow.create("zzz")
    with pytest.raises(UsageError, match="lambda"):
        flow.create("tvl1-opencv", **{"lambda": 0.1})


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("pyr_scale", 1.0, "pyr_scale 1.0 is not between 0 and 1"),
        ("pyr_scale", float("nan"), "pyr_scale nan"),
        ("levels", 0, "levels 0 is not a whole number above 0"),
        ("winsize", 15.0, "winsize 15.0"),
        ("iterations", True, "iterations True is not a number"),
        ("poly_n", "5", "poly_n '5' is not a number"),
        ("poly_sigma", 0.0, "poly_sigma 0.0 is not positive"),
        ("gaussian", 1, "gaussian 1 is neither"),
    ],
)
def test_farneback_refuses_settings_that_cannot_be_meant(setting: str, value: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        flow.create("farneback", **{setting: value})


def test_farneback_does_as_it_is_set() -> None:
    frames = synthetic.video(synthetic.CLASSES[0], 1, frames=2, height=48, width=64)
    one, two = (cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames)
    settings = {"pyr_scale": 0.6, "levels": 2, "winsize": 11, "iterations": 2, "poly_n": 7, "poly_sigma": 1.5}
    found = flow.create("farneback", gaussian=True, **settings).estimate(frames[:1], frames[1:])
    none = np.zeros((48, 64, 2), np.float32)  # unread
    expected = cv2.calcOpticalFlowFarneback(one, two, none, flags=cv2.OPTFLOW_FARNEBACK_GAUSSIAN, **settings)
    assert np.array_equal(found[0], expected.transpose(2, 0, 1))
    assert not np.array_equal(found, flow.create("farneback", **settings).estimate(frames[:1], frames[1:]))


def test_every_setting_is_recorded() -> None:
    estimator = flow.create("tvl1-opencv", warps=2)
    assert estimator.settings["warps"] == 2
    assert estimator.settings["lambda_"] == 0.15
    assert flow.create(estimator.name, **estimator.settings).settings == estimator.settings
    assert flow.create("tvl1").name in flow.ESTIMATORS


def test_quantisation_is_the_papers_mapping() -> None:
    values = np.array([-100, -20, -19.95, 0, 0.05, 19.95, 20, 100], np.float32)
    assert flow.quantise(values).tolist() == [0, 0, 0, 128, 128, 255, 255, 255]
    assert flow.dequantise(np.uint8([0, 128, 255])) == pytest.approx([-20, 20 / 255, 20], abs=1e-6)
    assert flow.dequantise(np.uint8([0, 255]), bound=5).tolist() == [-5, 5]
    assert flow.dequantise(np.uint8([1])).dtype == np.float32


def test_the_square_root_mapping_is_finer_for_slow_motion() -> None:
    values = np.linspace(-25, 25, 2001, dtype=np.float32)
    back = flow.dequantise(flow.quantise(values, mapping="sqrt"), mapping="sqrt")
    expected = np.clip(values, -20, 20)
    # half a step of the root is 20/255; back in pixels it grows with the root of the length
    assert np.all(
        np.abs(back - expected) <= 2 * np.sqrt(np.abs(expected) / 20) * (20 / 255) + (20 / 255) ** 2 / 20 + 1e-5
    )
    assert np.abs(flow.dequantise(flow.quantise(np.zeros(1), mapping="sqrt"), mapping="sqrt"))[0] < 4e-4
    every = np.arange(256, dtype=np.uint8)  # so that readers turn u around on bytes
    np.testing.assert_allclose(
        flow.dequantise(255 - every, mapping="sqrt"), -flow.dequantise(every, mapping="sqrt"), atol=1e-5
    )


@pytest.mark.parametrize("mapping", ["linear", "sqrt"])
@pytest.mark.parametrize("bound", [20.0, 7.3, 1.0])
def test_tensors_become_the_bytes_of_arrays(mapping: Mapping, bound: float) -> None:
    between = dequantise(np.arange(255, dtype=np.uint8), bound, mapping)
    between = (between + dequantise(np.arange(1, 256, dtype=np.uint8), bound, mapping)) / 2  # where rounding decides
    near = [np.nextafter(between, np.float32(sign * np.inf)) for sign in (-1, 1)]
    extremes = np.float32([0, -0.0, 1e-38, bound, -bound, 3e38, -3e38])
    values = np.concatenate([between, *near, np.linspace(-1.1 * bound, 1.1 * bound, 9999, dtype=np.float32), extremes])
    found = Quantiser(bound, mapping)(torch.from_numpy(values))
    assert np.array_equal(found.numpy(), quantise(values, bound, mapping)) and found.dtype == torch.uint8


def test_values_for_resizing_are_linear_in_the_flow() -> None:
    every = np.arange(256, dtype=np.uint8)
    values = linear_values("sqrt")
    assert values is not None and values.dtype == np.float32
    for bound in (1.0, 20.0):
        expected = flow.dequantise(every, bound, "sqrt")
        np.testing.assert_allclose(values * (2 * bound / 255) - bound, expected, atol=1e-5 * bound)
    assert linear_values("linear") is None


@given(
    arrays.arrays(np.float32, 16, elements=st.floats(-30, 30, width=32)),
    st.sampled_from([1.0, 15.0, 20.0]),
)
def test_a_byte_is_at_most_half_a_step_off(values: np.ndarray, bound: float) -> None:
    back = flow.dequantise(flow.quantise(values, bound), bound)
    assert np.abs(back - np.clip(values, -bound, bound)).max() <= bound / 255 * 1.001


def test_every_byte_survives() -> None:
    every = np.arange(256, dtype=np.uint8)
    assert np.array_equal(flow.quantise(flow.dequantise(every)), every)


def view(**settings: object) -> FlowExtractor:
    return FlowExtractor(FlowSettings(estimator="dis", **settings).resolved())  # type: ignore[arg-type]


@pytest.mark.parametrize("block", [1, 2, 3, 7])
def test_blocks_do_not_show_in_the_flow(block: int) -> None:
    frames = moving(9, 32, 48)
    whole, parts = view(), view()
    together = whole.add(Block(frames))
    pieces = [stream for start in range(0, 9, block) for stream in parts.add(Block(frames[start : start + block]))]
    assert len(together) == 8
    assert [stream.tobytes() for stream in pieces] == [stream.tobytes() for stream in together]


def test_views_of_one_size_share_what_is_resized(monkeypatch: pytest.MonkeyPatch) -> None:
    made, resize = [], size.resize
    monkeypatch.setattr(size, "resize", lambda *given: made.append(given[1:]) or resize(*given))
    block = Block(moving(2, 128, 192))
    views = [view(short_side=64), RgbExtractor(RgbSettings(size=(64, 96)).resolved()), view(short_side=32)]
    for one in views:
        one.add(block)
    assert made == [(64, None), (32, None)]
    assert [one.frame_shape for one in views] == [(2, 64, 96), (64, 96, 3), (2, 32, 48)]


def test_flow_is_stored_in_pixels_of_its_own_size() -> None:
    small = view(short_side=64)
    streams = small.add(Block(moving(2, 128, 192)))
    assert small.frame_shape == (2, 64, 96)
    stored = flow.dequantise(codec.decode(streams[0], "stacked", small.frame_shape))
    inner = stored[:, 8:-8, 8:-8]
    assert np.abs(inner[0].mean() - RIGHT / 2) < 0.15
    assert np.abs(inner[1].mean() - UP / 2) < 0.15


def test_flow_that_is_not_finite_is_never_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = view()
    monkeypatch.setattr(broken.estimator, "estimate", lambda first, second: np.full((2, 2, 32, 48), np.nan))
    with pytest.raises(ValueError, match="dis gave a flow that is not finite"):
        broken.add(Block(moving(3, 32, 48)))


def test_stored_flow_maps_each_frame_to_the_next_also_where_blocks_meet(tmp_path: Path) -> None:
    synthetic.write_mp4(tmp_path / "v.mp4", moving(140, 32, 48))
    settings = ExtractionSettings({"rgb": RgbSettings(), "flow": FlowSettings(estimator="dis")}).resolved()
    create_store(tmp_path / "store", settings)
    outcome = job.extract_video(str(tmp_path), str(tmp_path / "store"), Video("v", "v.mp4"), settings.as_dict())
    assert (outcome.status, outcome.frames) == ("stored", 140)
    store = open_store(tmp_path / "store")
    assert store.info("v").shapes == {"rgb": (140, 32, 48, 3), "flow": (139, 2, 32, 48)}
    stored = store.flow("v", slice(None))[:, :, 8:-8, 8:-8].mean(axis=(2, 3))
    assert np.abs(stored - [RIGHT, UP]).max() < 0.3
    frames = np.concatenate(list(decode(tmp_path / "v.mp4")))
    expected = flow.quantise(flow.create("dis").estimate(frames[:-1], frames[1:]))
    for pair in (0, 62, 63, 64, 126, 127, 128, 138):
        stream = codec.encode(expected[pair], "stacked", 95)
        assert store.encoded("v", "flow", [pair])[0].tobytes() == stream.tobytes()


def test_colours_tell_direction_and_length() -> None:
    field = np.zeros((1, 2, 1, 4), np.float32)
    field[0, 0, 0] = [0, 5, -5, 10]
    still, right, left, far = colour_code(field, 5.0)[0, 0].tolist()
    assert still == [255, 255, 255]
    assert right == far == [255, 0, 0]
    assert left == [0, 255, 255]
    assert key(26).shape == (26, 26, 3)


@pytest.mark.parametrize("mapping", ["linear", "sqrt"])
def test_what_bytes_hold_of_no_motion_is_white(mapping: Mapping) -> None:
    """Nothing, which linear bytes hold as .11 pixels, and noise below a step of them."""
    still = dequantise(quantise(np.zeros((1, 2, 4, 4), np.float32), 20.0, mapping), 20.0, mapping)
    noise = np.random.default_rng(0).uniform(-0.11, 0.11, (1, 2, 8, 8))
    assert (colour_code(still, 0.5) == 255).all() and (colour_code(noise, 0.5) == 255).all()
    assert (colour_code(np.full((1, 2, 4, 4), 0.2), 0.5) < 255).any()
