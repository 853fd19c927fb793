"""Colour maps against the operations that they stand for, done to pixels one after the other."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from pipeline.flow import dequantise, quantise
from tests.train import batches
from tests.train.chances import assert_share, assert_uniform
from tests.train.drawing import both, pixels, spec_of
from tests.train.stores import write_frames
from train.augment import Pixels, policy
from train.clips import colour
from train.clips.colour import Statistics, compose
from train.clips.streams import Mirror

LUMA = (0.299, 0.587, 0.114)
MIDDLE = 255 * (0.299 * 0.485 + 0.587 * 0.456 + 0.114 * 0.406)
TO_YIQ = np.array([LUMA, (0.596, -0.274, -0.322), (0.211, -0.523, 0.312)])
RANGES = {"brightness": 0.4, "contrast": 0.3, "saturation": 0.5, "hue": 0.25}


def apply(affine: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """An affine map (D, C + 1) of pixels (N, C)."""
    return np.array([affine[:, :-1] @ pixel + affine[:, -1] for pixel in pixels])


def gray_of(pixels: np.ndarray) -> np.ndarray:
    return (pixels @ LUMA)[:, None] * np.ones(3)


def brighter(pixels: np.ndarray, factor: float) -> np.ndarray:
    return factor * pixels


def contrasted(pixels: np.ndarray, factor: float) -> np.ndarray:
    return MIDDLE + factor * (pixels - MIDDLE)


def saturated(pixels: np.ndarray, factor: float) -> np.ndarray:
    return gray_of(pixels) + factor * (pixels - gray_of(pixels))


def turned(pixels: np.ndarray, turns: float) -> np.ndarray:
    luma, *rest = TO_YIQ @ pixels.T
    angle = np.angle(rest[0] + 1j * rest[1]) + 2 * np.pi * turns
    length = np.hypot(*rest)
    return np.linalg.solve(TO_YIQ, np.stack([luma, length * np.cos(angle), length * np.sin(angle)])).T


STEPS = {"brightness": brighter, "contrast": contrasted, "saturation": saturated, "hue": turned}


@pytest.mark.parametrize("order", list(itertools.permutations(STEPS)), ids="-".join)
def test_jitter_is_its_four_operations_in_any_order(order: tuple[str, ...]) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.uniform(0, 255, (20, 3))
    numbers = rng.random((8, 5))
    numbers[:, 4] = 0.2 if order.index("brightness") < order.index("contrast") else 0.8
    for row, made in zip(numbers, colour.jitter(numbers, **RANGES), strict=True):
        expected = pixels
        for name in order:
            moved = RANGES[name] * (2 * row[list(STEPS).index(name)] - 1)
            expected = STEPS[name](expected, moved if name == "hue" else 1 + moved)
        np.testing.assert_allclose(apply(made, pixels), expected, atol=1e-9)


def test_jitter_without_range_is_nothing_and_gray_stays_gray() -> None:
    numbers = np.random.default_rng(0).random((50, 5))
    np.testing.assert_allclose(colour.jitter(numbers, 0, 0, 0, 0), np.tile(np.eye(3, 4), (50, 1, 1)), atol=1e-12)
    levels = np.linspace(0, 255, 5)[:, None] * np.ones(3)
    for made in colour.jitter(numbers, 0.5, 0.5, 0.5, 0.5):
        assert np.ptp(apply(made, levels), axis=1).max() < 1e-9


def test_gray_is_the_luminance_or_a_copy_of_one_channel() -> None:
    pixels = np.random.default_rng(0).uniform(0, 255, (20, 3))
    [luminance] = colour.gray("luminance", np.array([2, 0]))
    np.testing.assert_allclose(apply(luminance, pixels), gray_of(pixels), atol=1e-9)
    for made, channel in zip(colour.gray("channel", np.array([2, 0, 1])), (2, 0, 1), strict=True):
        np.testing.assert_allclose(apply(made, pixels), np.repeat(pixels[:, [channel]], 3, axis=1))


def test_several_maps_are_composed_like_one() -> None:
    rng = np.random.default_rng(0)
    first, second, pixels = rng.normal(size=(5, 3, 3)), rng.normal(size=(5, 3, 4)), rng.normal(size=(4, 2))
    for one, two, composed in zip(first, second, compose(second, first), strict=True):
        np.testing.assert_allclose(apply(composed, pixels), apply(two, apply(one, pixels)))
    np.testing.assert_allclose(compose(second[0], first)[3], compose(second[0], first[3]))


@pytest.mark.parametrize(
    ("statistics", "mean", "std"),
    [
        ("imagenet", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ("kinetics", (0.4345, 0.4051, 0.3775), (0.2768, 0.2713, 0.2737)),
    ],
)
def test_normalisation_is_by_the_named_statistics_and_can_be_undone(
    statistics: Statistics, mean: tuple, std: tuple
) -> None:
    pixels = np.random.default_rng(0).uniform(0, 255, (20, 3))
    normalised = apply(colour.normalisation(statistics), pixels)
    np.testing.assert_allclose(normalised, (pixels / 255 - mean) / std, atol=1e-12)
    np.testing.assert_allclose(apply(colour.denormalisation(statistics), normalised), pixels, atol=1e-10)


@pytest.mark.parametrize("bound", [20.0, 8.0])
def test_flow_becomes_what_networks_were_given(bound: float) -> None:
    stored = np.array([[3, 250], [128, 128], [0, 255]])
    u, v = stored.T
    motion = dequantise(stored.astype(np.uint8), bound)
    made = {kind: apply(both(bound, flow=kind)["flow"].given, stored) for kind in ("pixels", "signed", "image", "u")}
    np.testing.assert_allclose(made["pixels"], motion / 2.5, atol=1e-5)
    np.testing.assert_allclose(made["signed"], stored / 255 - 0.5)
    np.testing.assert_array_equal(made["image"], np.stack([np.full(3, 128), v, u], axis=1))
    np.testing.assert_array_equal(made["u"], np.stack([u, u, u], axis=1))


@pytest.mark.parametrize("mirror", ["turned", "plain", "never"])
@pytest.mark.parametrize("flow", ["pixels", "signed", "image", "u"])
def test_what_moves_right_on_the_left_moves_left_on_the_right(tmp_path: Path, flow: str, mirror: Mirror) -> None:
    """From stored bytes through the loader to the network's input, in a mirror; `plain` forgets the direction."""
    motion = np.zeros((5, 2, 24, 32), np.float32)
    motion[:, 0, :, :16], motion[:, 1] = 5.0, 2.0
    store = write_frames(tmp_path / "store", {"a": (np.full((6, 24, 32, 3), 90, np.uint8), quantise(motion))})
    mirrored = policy("slic", flip=1.0, jitter=0.0, gray=0.0, blur=0.0, area=(1.0, 1.0), retry=False)
    clips = spec_of({"flow": flow, "flow_mirror": mirror}, 4, 1).changed(size=(24, 32))
    loader = batches.make(store, videos=["a"], reads={"flow": (0,)}, clips=clips, policy=mirrored, batch=1, seed=0)
    [seen] = loader.load(0).views("flow")[0].numpy()
    loader.close()
    left, right = seen[:, 1, 12, 4], seen[:, 1, 12, 27]
    still, moving = (255 * (x + 20) / 40 for x in (0.0, 5.0 if mirror != "turned" else -5.0))
    if mirror == "never":
        still, moving = moving, still
    v = 255 * (2.0 + 20) / 40
    for found, u in ((left, still), (right, moving)):
        expected = {
            "pixels": [(u / 255 * 40 - 20) / 2.5, 2.0 / 2.5],
            "signed": [u / 255 - 0.5, v / 255 - 0.5],
            "image": (np.array([128, v, u]) / 255 - colour.IMAGENET_MEAN) / colour.IMAGENET_STD,
            "u": (np.array([u, u, u]) / 255 - colour.IMAGENET_MEAN) / colour.IMAGENET_STD,
        }[flow]
        level = 1.5 / 255 / 0.224 if flow in ("image", "u") else 1.5 / 255 * (40 / 2.5 if flow == "pixels" else 1)
        np.testing.assert_allclose(found, expected, atol=level)  # bytes are rounded, and JPEG is not exact


def drawn(name: str, count: int, length: int = 4, **settings: object) -> list[Pixels]:
    """Of RGB."""
    rng = np.random.default_rng(0)
    return [pixels(name, rng, length=length, **settings)["rgb"] for _ in range(count)]


def maps_of(made: list[Pixels]) -> list[np.ndarray]:
    """From bytes to bytes, each (K, 3, 4)."""
    undo = colour.denormalisation("imagenet")
    return [compose(undo, one.colour) for one in made]


def drawn_maps(name: str, count: int, length: int = 4, **settings: object) -> list[np.ndarray]:
    return maps_of(drawn(name, count, length, **settings))


def factors(maps: np.ndarray) -> dict[str, np.ndarray]:
    """What each operation did, from maps (N, 3, 4) that did only one."""
    inside = TO_YIQ @ maps[:, :, :3] @ np.linalg.inv(TO_YIQ)
    return {
        "brightness": inside[:, 0, 0],
        "contrast": inside[:, 0, 0],
        "saturation": inside[:, 1, 1],
        "hue": np.arctan2(inside[:, 2, 1], inside[:, 1, 1]) / 2 / np.pi,
    }


@pytest.mark.parametrize("name", ["coclr", "slic", "goca", "cocon"])
@pytest.mark.parametrize("operation", list(STEPS))
def test_jitter_is_drawn_evenly_in_the_papers_ranges(name: str, operation: str) -> None:
    published = {
        "coclr": (0.4, 0.4, 0.4, 0.1),
        "slic": (0.5, 0.5, 0.5, 0.5),
        "goca": (0.4, 0.4, 0.2, 0.1),
        "cocon": (0.5, 0.5, 0.5, 0.25),
    }[name]
    half_range = dict(zip(STEPS, published, strict=True))[operation]
    others = {other: 0.0 for other in STEPS if other != operation}
    maps = np.concatenate(drawn_maps(name, 2000, length=1, gray=0.0, **others))
    maps = maps[~np.isclose(maps, np.eye(3, 4), atol=1e-4).all(axis=(1, 2))]  # those that the coin chose
    middle = 0.0 if operation == "hue" else 1.0
    assert_uniform(factors(maps)[operation], middle - half_range, middle + half_range)


@pytest.mark.parametrize(
    ("name", "jitter", "gray", "blur"), [("coclr", 0.8, 0.2, 0.5), ("slic", 0.8, 0.2, 0.2), ("goca", 0.8, 0.2, 0.0)]
)
def test_jitter_gray_and_blur_come_as_often_as_in_the_papers(
    name: str, jitter: float, gray: float, blur: float
) -> None:
    made = drawn(name, 3000)
    maps = np.concatenate(maps_of(made))
    grayed = np.ptp(maps, axis=1).max(axis=1) < 1e-4
    assert_share(grayed, gray)
    assert_share(~np.isclose(maps[~grayed], np.eye(3, 4), atol=1e-4).all(axis=(1, 2)), jitter)
    blurs = np.array([one.blur for one in made])
    assert_share(blurs > 0, blur)
    if name == "coclr":
        assert_uniform(blurs[blurs > 0], 0.1, 2.0)
    else:
        assert set(blurs) <= {0.0, 2.0}


def test_every_frame_of_cocon_has_its_own_colour() -> None:
    maps = np.array(drawn_maps("cocon", 300, length=6))
    assert maps.shape == (300, 6, 3, 4)
    grayed = np.ptp(maps[..., :3], axis=2).max(axis=2) < 1e-4
    assert_share(grayed.ravel(), 0.5)
    assert_share((grayed[:, 1:] == grayed[:, :-1]).ravel(), 0.5)
    assert len(np.unique(maps[~grayed].round(6), axis=0)) == (~grayed).sum()


@pytest.mark.parametrize("name", ["coclr", "slic", "goca"])
def test_a_copied_channel_is_another_one_in_every_frame(name: str) -> None:
    maps = np.array(drawn_maps(name, 300, length=6, jitter=0.0, gray=1.0, gray_kind="channel"))
    copied = maps[:, :, 0, :3].argmax(axis=2)
    np.testing.assert_allclose(maps[..., :3], np.eye(3)[copied][:, :, None].repeat(3, axis=2), atol=1e-6)
    for channel in range(3):
        assert_share((copied == channel).ravel(), 1 / 3)
    assert_share((copied[:, 1:] == copied[:, :-1]).ravel(), 1 / 3)


@pytest.mark.parametrize(("name", "gray_first"), [("coclr", False), ("slic", False), ("goca", False), ("cocon", True)])
def test_gray_comes_after_the_jitter_and_in_cocon_before_it(name: str, gray_first: bool) -> None:
    settings = {"jitter": 1.0, "gray_kind": "channel"}
    plain, grayed = (drawn_maps(name, 20, gray=gray, **settings) for gray in (0.0, 1.0))
    copies = colour.gray("channel", np.arange(3))
    for jittered, found in zip(plain, grayed, strict=True):
        for frame, made in enumerate(found):
            first = jittered[frame % len(jittered)]
            possible = [compose(first, copy) if gray_first else compose(copy, first) for copy in copies]
            assert min(np.abs(made - wanted).max() for wanted in possible) < 1e-3
