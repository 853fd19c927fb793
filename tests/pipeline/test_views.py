"""What a view says of itself holds for what it makes: its frames, its inputs to networks, its mirror, its pictures."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline import synthetic
from pipeline.flow import dequantise
from pipeline.views import VIEWS, View
from pipeline.views.flow import FLOW, FLOW_SCALE, FlowSettings
from pipeline.views.pose import POSE
from pipeline.views.rgb import RGB
from pipeline.views.segmentation import SEGMENTATION
from pipeline.views.size import Block
from tests.toy_view import TOY

SETTINGS = {
    "rgb": {"quality": 95},
    "flow": {"estimator": "dis", "bound": 15.0, "mapping": "linear"},
    "toy": {"shrunk": 2, "planes": 17},
    "segmentation": {"estimator": "selfie"},
    "pose": {"estimator": "blazepose"},
}
every_view = pytest.mark.parametrize("view", [*VIEWS.values(), TOY], ids=lambda view: view.name)


def stored(view: View, length: int = 6) -> np.ndarray:
    """What its extractor stores of a video of `length` frames of 32 x 48, decoded."""
    chosen = FlowSettings(estimator="dis") if view is FLOW else view.Settings()
    made = view.extractor(chosen.resolved(), "v")
    frames = synthetic.video(synthetic.CLASSES[0], 4, frames=length, height=32, width=48)
    encoded = made.add(Block(frames[:4])) + made.add(Block(frames[4:]))
    assert (made.name, made.layout) == (view.name, view.layout)
    return np.stack([made.codec.decode_frame(frame, made.frame_shape) for frame in encoded])


@every_view
def test_frames_are_as_many_and_as_large_as_the_view_says(view: View) -> None:
    frames = stored(view)
    assert len(frames) == view.stored_frames(6)
    assert view.stored_frames(0) == 0
    height, width = view.frame_size(frames.shape)
    assert view.frame_size(frames.shape[1:]) == (height, width)
    planes = frames.shape[-1] if view.layout == "rgb" else frames.shape[1]
    assert planes == view.planes == len(view.plane_names)
    assert (height, width) == ((16, 24) if view is TOY else (32, 48))


@every_view
def test_inputs_take_a_pixel_to_as_many_numbers_as_they_say(view: View) -> None:
    assert view.default_input in view.inputs
    for name, given in view.inputs.items():
        affine = given.affine(SETTINGS[view.name])
        assert given.name == name
        assert affine.dtype == np.float64 and affine.shape == (given.channels, view.planes + 1)
        if given.image:
            assert given.channels == 3
            ends = np.stack([affine @ [*[byte] * view.planes, 1] for byte in (0, 255)])
            assert ends.min() >= 0 and ends.max() <= 255


@every_view
def test_the_mirror_undoes_itself(view: View) -> None:
    pixel = np.random.default_rng(0).integers(0, 256, view.planes).astype(float)
    once = view.mirror @ [*pixel, 1]
    assert np.array_equal(view.mirror @ [*once, 1], pixel)
    assert (np.array_equal(once, pixel)) == (view in (RGB, SEGMENTATION))


@every_view
def test_pictures_are_rgb_of_the_frames_size(view: View) -> None:
    frames = stored(view)
    if view in (SEGMENTATION, POSE):  # there is nobody in the synthetic videos
        frames = np.random.default_rng(0).integers(0, 256, frames.shape, dtype=np.uint8)
    made = view.picture(frames, SETTINGS[view.name])
    assert made.dtype == np.uint8
    assert made.shape == (len(frames), *view.frame_size(frames.shape), 3)
    assert made.std() > 0
    legend = view.key(20)
    assert (legend is None) == (view.scale(view.measured(frames, SETTINGS[view.name])) == 0.0)
    assert legend is None or legend.shape == (20, 20, 3)


@pytest.mark.parametrize("name", ["pixels", "signed"])
def test_flow_comes_back_from_what_networks_are_given(name: str) -> None:
    settings = SETTINGS["flow"]
    frames = np.random.default_rng(1).integers(0, 256, (5, 2, 4, 6), dtype=np.uint8)
    given = FLOW.inputs[name].affine(settings)
    numbers = np.tensordot(given[:, :2], frames.swapaxes(0, 1), axes=1) + given[:, 2][:, None, None, None]
    pixels = dequantise(frames, 15.0)
    assert np.allclose(FLOW.measured_input(numbers, name, settings), pixels, atol=1e-5)
    assert np.array_equal(FLOW.measured(frames, settings), pixels)
    if name == "pixels":
        assert np.allclose(numbers.swapaxes(0, 1) * FLOW_SCALE, pixels, atol=1e-5)


def test_an_image_has_no_way_back_through_the_view_fails() -> None:
    with pytest.raises(KeyError):
        FLOW.measured_input(np.zeros((3, 1, 2, 2)), "image", SETTINGS["flow"])
    with pytest.raises(NotImplementedError, match="input 'image' of the view rgb"):
        RGB.measured_input(np.zeros((3, 1, 2, 2)), "image", SETTINGS["rgb"])


def test_bytes_of_finer_steps_are_told() -> None:
    assert all(VIEWS[name].values(SETTINGS[name]) is None for name in VIEWS)
    values = FLOW.values({**SETTINGS["flow"], "mapping": "sqrt"})
    assert values is not None and values.shape == (256,) and values.dtype == np.float32
