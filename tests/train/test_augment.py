"""Plans as pure functions of (seed, epoch, sample), and the policies of the small recipes and of evaluation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pipeline.errors import UsageError
from pipeline.flow import dequantise
from pipeline.views.flow import FLOW_SCALE
from tests.train import drawing
from tests.train.chances import assert_share
from tests.train.drawing import Drawn, both, pixels
from train import augment
from train.augment import policy
from train.clips.colour import compose, normalisation


def draw(*triple: int, **settings: Any) -> list[Drawn]:
    return drawing.draw("small", *triple, frames=47, **settings)


def content(made: Drawn) -> list:
    drawn = [made.pixels[view] for view in sorted(made.pixels)]
    return [made.frames.tolist(), *((p.window, p.flip, p.blur, p.colour.tolist()) for p in drawn)]


def apply(affine: np.ndarray, pixel: np.ndarray) -> np.ndarray:
    return affine[:, :-1] @ pixel + affine[:, -1]


def test_equal_triples_give_equal_plans_and_others_do_not() -> None:
    first = draw(1, 2, 3)
    assert [content(made) for made in first] == [content(made) for made in draw(1, 2, 3)]
    others = [draw(2, 2, 3), draw(1, 3, 3), draw(1, 2, 4), draw(3, 2, 1)]
    assert len({str(content(made)) for views in (first, *others) for made in views}) == 10


def test_the_first_views_do_not_depend_on_how_many_there_are() -> None:
    assert content(draw(count=1)[0]) == content(draw(count=3)[0])


def test_a_setting_changes_only_what_it_names() -> None:
    plain, flipped, gray = draw()[0].pixels, draw(flip=1.0)[0].pixels, draw(strength=0.0)[0].pixels
    assert flipped["rgb"].flip and flipped["rgb"].window == plain["rgb"].window
    assert (flipped["rgb"].colour == plain["rgb"].colour).all()
    assert gray["rgb"].window == plain["rgb"].window and (gray["flow"].colour == plain["flow"].colour).all()
    assert not np.allclose(gray["rgb"].colour, plain["rgb"].colour)


def test_a_mirror_negates_u() -> None:
    plain, flipped = draw()[0].pixels["flow"].colour[0], draw(flip=1.0)[0].pixels["flow"].colour[0]
    np.testing.assert_allclose(
        apply(flipped, np.array([255 - 30.0, 80])), apply(plain, np.array([30.0, 80])), atol=1e-5
    )


def test_base_maps_are_imagenet_and_flow_in_pixels() -> None:
    rgb, flow = (both()[stream].affine(False) for stream in ("rgb", "flow"))
    np.testing.assert_allclose(apply(rgb, 255 * augment.IMAGENET_MEAN), 0, atol=1e-12)
    np.testing.assert_allclose(apply(rgb, 255 * (augment.IMAGENET_MEAN + augment.IMAGENET_STD)), 1, atol=1e-12)
    for bound in (20.0, 8.0):
        pixels = dequantise(np.array([3, 250], np.uint8), bound)
        wanted = pixels / FLOW_SCALE
        np.testing.assert_allclose(apply(both(bound)["flow"].affine(False), np.array([3, 250])), wanted, atol=1e-6)
    np.testing.assert_allclose(flow[:, :2], np.eye(2) * 40 / 255 / 2.5)


def test_flow_colour_is_one_gain_and_a_small_offset() -> None:
    base = both()["flow"].affine(False)
    gains, offsets = [], []
    for sample in range(200):
        affine = draw(sample=sample)[0].pixels["flow"].colour[0].astype(float)
        gain = affine[0, 0] / base[0, 0]
        np.testing.assert_allclose(affine[:, :2], gain * base[:, :2], atol=1e-7)
        gains.append(gain)
        offsets += (affine[:, 2] - gain * base[:, 2]).tolist()
    assert np.exp(-0.25) - 1e-5 <= min(gains) < 0.82 and 1.2 < max(gains) <= np.exp(0.25) + 1e-5
    assert 0.12 < np.std(offsets) < 0.18


def test_rgb_colour_is_sometimes_gray_sometimes_inverted() -> None:
    maps = np.array([draw(sample=sample)[0].pixels["rgb"].colour[0] for sample in range(300)], float)
    gray = np.ptp(maps[:, :, :3], axis=1).max(axis=1) < 1e-7  # all three outputs are the same mix
    assert 0.18 < gray.mean() < 0.32
    inverted = maps[gray][:, 0, :3].sum(axis=1) < 0
    assert 0.1 < inverted.mean() < 0.4


def test_evaluation_jitter_is_rare_as_asked_and_keeps_gray_gray() -> None:
    rng, base, flow = np.random.default_rng(0), both()["rgb"].affine(False), both()["flow"].affine(False)
    jittered = []
    for _ in range(1000):
        drawn = pixels("evaluate", rng, jitter=0.3)
        np.testing.assert_allclose(drawn["flow"].colour[0], flow, rtol=1e-6)
        affine = drawn["rgb"].colour[0].astype(float)
        jittered.append(not np.allclose(affine, base, rtol=1e-6))
        # Undo the normalisation: a gray pixel must stay gray, within brightness and contrast of .8 to 1.2 in either
        # order.
        pixel = (apply(affine, np.full(3, 100.0)) * augment.IMAGENET_STD + augment.IMAGENET_MEAN) * 255
        assert np.ptp(pixel) < 1e-3 and 0.8 * 1.2 * 100 - 0.2 * 118 <= pixel.mean() <= 1.2 * (0.8 * 100 + 0.2 * 118)
    assert_share(jittered, 0.3)


@pytest.mark.parametrize("kind", ["image", "u"])
def test_evaluation_jitters_flow_that_networks_see_as_an_image(kind: str) -> None:
    rng, jittered, given = np.random.default_rng(0), 0, both(flow=kind)["flow"].given
    for _ in range(50):
        drawn = pixels("evaluate", rng, jitter=0.5, flow=kind, statistics="kinetics")
        rgb = drawn["rgb"].colour[0].astype(float)
        np.testing.assert_allclose(drawn["flow"].colour[0], compose(rgb, given), atol=1e-4)
        jittered += not np.allclose(rgb, normalisation("kinetics"), rtol=1e-6)
    assert 10 < jittered < 40


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("smal", {}, ['"smal"', '"small"']),
        ("small", {"flips": 0.5}, ['"flips"', '"flip"']),
        ("small", {"flip": 1.5}, ["1.5", "flip", "at most 1"]),
        ("small", {"area": (0.9, 0.2)}, ["area", "(0.9, 0.2)"]),
        ("small", {"strength": -1}, ["strength", "at least 0"]),
        ("evaluate", {"crop": 0}, ["crop", "more than 0"]),
        ("evaluate", {"crop": "centre"}, ["crop", "'centre'"]),
        ("evaluate", {"jitter": 2}, ["jitter"]),
    ],
)
def test_settings_that_cannot_be_meant_fail(name: str, settings: dict, words: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        policy(name, **settings)
    assert all(word in str(caught.value) for word in words), str(caught.value)
