"""The papers' policies as wholes: two views, two streams, what a setting changes, and what is refused."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from pipeline.errors import UsageError
from tests.train.chances import assert_share, assert_uniform
from tests.train.drawing import FRAME, Drawn, both, draw, pixels, spec_of, streams_of
from train.augment import Draws, Pixels, policy
from train.clips.colour import compose, denormalisation, normalisation
from train.clips.streams import Clip

PAPERS = ["coclr", "slic", "goca", "cocon"]
STRONG = {"jitter": 1.0, "blur": 1.0, "gray": 0.0}  # strong changes leave a mark in every clip


def parts(drawn: list[Drawn]) -> dict[str, object]:
    """All that was drawn, by name."""
    found: dict[str, object] = {}
    for number, made in enumerate(drawn):
        found[f"{number}.frames"] = made.frames.tolist()
        for view, own in made.pixels.items():
            found |= {
                f"{number}.{view}.window": own.window,
                f"{number}.{view}.flip": own.flip,
                f"{number}.{view}.blur": own.blur,
                f"{number}.{view}.colour": own.colour.tolist(),
            }
    return found


def is_strong(made: Pixels) -> bool:
    """Whether a clip drawn with STRONG is strongly changed; weak ones have neither blur nor colour."""
    coloured = not np.array_equal(made.colour, normalisation("imagenet")[None].astype(np.float32))
    assert coloured == (made.blur > 0)
    return coloured


def test_half_the_samples_of_coclr_are_one_clip_and_its_table_holds() -> None:
    """One clip twice: a strong and a weak view, in either order. Two clips: each strong by .3, for itself."""
    made, streams = policy("coclr", **STRONG), streams_of(spec_of({}))
    kinds: Counter = Counter()
    samples = 4000
    for sample in range(samples):
        given = [Clip(0, np.full(2, place)) for place in (0, 1)]
        first, second = made.sample(given, streams, lambda video: FRAME, Draws(sample))
        clips = (int(first[0].frames[0]), int(second[0].frames[0]))
        kinds[clips, is_strong(first[1]["rgb"]), is_strong(second[1]["rgb"])] += 1
    expected = {((kept, kept), strong, not strong): 0.125 for kept in (0, 1) for strong in (True, False)}
    chance = {True: 0.3, False: 0.7}
    expected |= {((0, 1), one, two): 0.5 * chance[one] * chance[two] for one in chance for two in chance}
    assert kinds.keys() == expected.keys()
    for kind, share in expected.items():
        assert_share(np.arange(samples) < kinds[kind], share)


def test_two_views_of_one_clip_have_windows_and_mirrors_of_their_own() -> None:
    drawn = [draw("coclr", sample=sample, one_clip=1.0) for sample in range(200)]
    pairs = [(first.pixels["rgb"], second.pixels["rgb"]) for first, second in drawn]
    assert all(first.frames.tolist() == second.frames.tolist() for first, second in drawn)
    assert not any(first.window == second.window for first, second in pairs)
    assert_share([first.flip == second.flip for first, second in pairs], 0.5)


def test_coclr_without_one_clip_draws_any_number_of_clips() -> None:
    for count in (1, 2, 5):
        drawn = draw("coclr", count=count, one_clip=0.0, strong=1.0, **STRONG)
        assert [is_strong(made.pixels["rgb"]) for made in drawn] == [True] * count
        assert len({str(made.frames) for made in drawn}) == count
    assert not any(is_strong(made.pixels["rgb"]) for made in draw("coclr", one_clip=0.0, strong=0.0, **STRONG))


@pytest.mark.parametrize("name", PAPERS)
def test_equal_triples_give_equal_plans_and_others_do_not(name: str) -> None:
    first = parts(draw(name))
    assert first == parts(draw(name))
    for other in (draw(name, 2), draw(name, epoch=3), draw(name, sample=4), draw(name, 3, 2, 1)):
        different = {part for part, value in parts(other).items() if value != first[part]}
        assert different >= {"0.frames", "1.frames"}
        assert different & {"0.rgb.window", "0.rgb.colour"} and different & {"1.rgb.window", "1.rgb.colour"}


@pytest.mark.parametrize("name", ["slic", "goca", "cocon"])
def test_the_first_clips_do_not_depend_on_how_many_there_are(name: str) -> None:
    one, three = parts(draw(name, count=1)), parts(draw(name, count=3))
    assert one == {part: three[part] for part in one}


COLOURS = {"rgb.colour", "flow.colour"}
EVERY = {f"{view}.{part}" for view in ("rgb", "flow") for part in ("window", "flip", "blur", "colour")}
CHANGES = {
    "flip": (0.1, {"rgb.flip", "flow.flip", "flow.colour"}),
    "flow_mirror": ("never", {"flow.flip", "flow.colour"}),
    "jitter": (0.3, COLOURS),
    "brightness": (0.1, COLOURS),
    "contrast": (0.1, COLOURS),
    "saturation": (0.1, COLOURS),
    "hue": (0.05, COLOURS),
    "gray": (0.9, COLOURS),
    "gray_kind": ("luminance", COLOURS),
    "blur": (0.9, {"rgb.blur", "flow.blur"}),
    "sigma": ((0.5, 1.0), {"rgb.blur", "flow.blur"}),
    "steady": (False, COLOURS),
    "flow": ("pixels", {"flow.colour", "flow.blur"}),
    "statistics": ("kinetics", COLOURS),
    "together": (False, EVERY),
}
WINDOWS = {"rgb.window", "flow.window"}
OWN = {
    "coclr": {
        "area": ((0.1, 0.9), WINDOWS), "retry": (False, WINDOWS), "strong": (0.9, COLOURS | {"rgb.blur", "flow.blur"}),
        "one_clip": (0.9, COLOURS | {"rgb.blur", "flow.blur", "frames"}),
    },
    "slic": {"area": ((0.1, 0.9), WINDOWS), "retry": (False, WINDOWS)},
    "goca": {"scale": ((140.0, 180.0), WINDOWS), "crop": (100.0, WINDOWS)},
    "cocon": {"crop": (0.5, WINDOWS)},
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "setting"), [(name, setting) for name in PAPERS for setting in [*CHANGES, *OWN[name]]]
)
def test_a_setting_changes_all_that_it_names_and_nothing_else(name: str, setting: str) -> None:
    value, expected = (CHANGES | OWN[name])[setting]
    # As published, so that flow has colours too; every probability inside 0..1, so that it can rise and fall.
    base: dict = {
        "flow": "image",
        "gray_kind": "channel",
        "steady": True,
        "blur": 0.4,
        "sigma": (0.1, 2.0),
        "jitter": 0.6,
    }
    changed = set()
    for sample in range(60):
        one = parts(draw(name, sample=sample, **base))
        other = parts(draw(name, sample=sample, **(base | {setting: value})))
        changed |= {part.partition(".")[2] for part in one if one[part] != other[part]}
    assert changed == expected


QUIRKS: dict[str, tuple[object, set[str]]] = {
    "retry": (False, WINDOWS),
    "gray_kind": ("channel", {"rgb.colour"}),
    "flow": ("image", {"flow.colour", "flow.blur"}),
    "flow_mirror": ("plain", {"flow.colour"}),
}


@pytest.mark.parametrize("quirk", QUIRKS)
def test_each_quirk_of_coclr_changes_its_own_part_of_the_clean_policy(quirk: str) -> None:
    """Alone; `flow: image` brings colour, and with it blur, to flow. Windows stay where a box that was drawn first
    fits."""
    value, expected = QUIRKS[quirk]
    changed, stayed = set(), 0
    for sample in range(60):
        clean, quirky = (parts(draw("coclr", sample=sample, **given)) for given in ({}, {quirk: value}))
        different = {part.partition(".")[2] for part in clean if clean[part] != quirky[part]}
        changed |= different
        stayed += not different
    assert changed == expected
    assert stayed or quirk == "flow"


def test_flow_in_pixels_is_scaled_by_the_bound_of_the_store() -> None:
    one, other = (draw("slic", flip=0.0, bound=bound)[0].pixels["flow"].colour for bound in (20.0, 8.0))
    np.testing.assert_allclose(other, one * 0.4, rtol=1e-6)


@pytest.mark.parametrize("name", PAPERS)
def test_flow_in_pixels_is_no_picture(name: str) -> None:
    """It shares window and mirror with RGB and has no colour and no blur; u changes its sign."""
    for sample in range(50):
        for made in draw(name, sample=sample, flow="pixels", jitter=1.0, gray=0.5, blur=1.0):
            rgb, flow = made.pixels["rgb"], made.pixels["flow"]
            assert (flow.window, flow.flip, flow.blur) == (rgb.window, rgb.flip, 0.0)
            plain = both()["flow"].given.copy()
            if flow.flip:
                plain[0] *= -1
            np.testing.assert_allclose(flow.colour, plain[None], atol=1e-6)


@pytest.mark.parametrize("name", PAPERS)
@pytest.mark.parametrize("kind", ["image", "u"])
def test_flow_as_an_image_is_changed_like_rgb(name: str, kind: str) -> None:
    settings = {"flow": kind, "flow_mirror": "plain", "gray": 0.0, "blur": 0.5}
    given = both(flow=kind)["flow"].given
    for sample in range(50):
        for made in draw(name, sample=sample, **settings):
            rgb, flow = made.pixels["rgb"], made.pixels["flow"]
            assert (flow.window, flow.flip, flow.blur) == (rgb.window, rgb.flip, rgb.blur)
            expected = compose(rgb.colour.astype(float), given)
            np.testing.assert_allclose(flow.colour, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", PAPERS)
def test_streams_drawn_apart_have_nothing_in_common(name: str) -> None:
    settings = {"together": False, "flow": "image", "flow_mirror": "plain", "gray": 0.0, "blur": 0.5, "jitter": 1.0}
    if name == "coclr":
        settings |= {"one_clip": 0.0, "strong": 1.0}
    flips, blurs, given = [], [], both(flow="image")["flow"].given
    for sample in range(300):
        for made in draw(name, sample=sample, **settings):
            rgb, flow = made.pixels["rgb"], made.pixels["flow"]
            assert rgb.window != flow.window
            assert not np.allclose(flow.colour, compose(rgb.colour.astype(float), given), atol=1e-3)
            flips.append(rgb.flip == flow.flip)
            blurs.append((rgb.blur > 0) == (flow.blur > 0))
    assert_share(flips, 0.5)
    assert_share(blurs, 0.5)


def test_streams_together_share_the_coin_of_gray_but_not_the_copied_channel() -> None:
    """As published: of the 64 images of a pair each has a channel of its own."""
    alike = []
    undo = denormalisation("imagenet")
    for sample in range(300):
        [made] = draw(
            "slic", sample=sample, count=1, flow="image", flow_mirror="plain", jitter=0.0, gray=0.5, gray_kind="channel"
        )
        rgb, flow = (compose(undo, made.pixels[view].colour) for view in ("rgb", "flow"))
        assert len(rgb) == len(flow)
        if len(rgb) == 8:
            copied = rgb[:, 0, :3].argmax(axis=1)
            # of the channels (128, v, u): a constant, the second byte, the first byte
            seen = np.where(flow[:, 0, 2] > 1, 0, np.where(flow[:, 0, 1] > 0.5, 1, 2))
            alike += (copied == seen).tolist()
    assert_share(np.array(alike), 1 / 3)


@pytest.mark.parametrize("name", PAPERS)
def test_half_of_all_clips_are_mirrored(name: str) -> None:
    flips = [made.pixels["rgb"].flip for sample in range(1000) for made in draw(name, sample=sample)]
    assert_share(flips, 0.5)


@pytest.mark.parametrize("name", PAPERS)
def test_networks_are_given_as_many_channels_as_the_clips_say(name: str) -> None:
    for flow, channels in (("pixels", 2), ("signed", 2), ("image", 3), ("u", 3)):
        made = spec_of({"flow": flow}).channels()
        assert (made["rgb"], made["flow"]) == (3, channels)
        for stream, own in draw(name, flow=flow)[0].pixels.items():
            assert own.colour.shape[1] == made[stream] and own.colour.dtype == np.float32
    assert pixels("evaluate", np.random.default_rng(0), flow="u")["flow"].colour.shape == (1, 3, 3)


def test_blurs_are_spread_evenly_over_their_range() -> None:
    blurs = [draw("goca", sample=sample, blur=1.0, sigma=(0.5, 3.0))[0].pixels["rgb"].blur for sample in range(1000)]
    assert_uniform(blurs, 0.5, 3.0)


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("slic", {"one_clip": 0.5}, ['unknown setting "one_clip"', '"slic"']),
        ("goca", {"area": (0.2, 1.0)}, ['unknown setting "area"']),
        ("goca", {"retry": False}, ['unknown setting "retry"']),
        ("cocon", {"scale": (136, 190)}, ['unknown setting "scale"']),
        ("coclr", {"gray_first": True}, ['unknown setting "gray_first"', "gray_kind"]),
        ("coclr", {"retry": "false"}, ["'false'", "retry", "without quotes"]),
        ("coclr", {"strong": 1.5}, ["1.5", "strong", "at most 1"]),
        ("coclr", {"one_clip": -0.5}, ["one_clip", "at least 0"]),
        ("coclr", {"area": (0.0, 1.0)}, ["area", "more than 0"]),
        ("coclr", {"area": (0.2, 1.5)}, ["area", "at most 1"]),
        ("coclr", {"area": 0.5}, ["area", "not a range", "two numbers"]),
        ("coclr", {"area": ("a", 1.0)}, ["area", "'a'"]),
        ("slic", {"sigma": (2.0, 1.0)}, ["sigma", "falls"]),
        ("slic", {"hue": 0.6}, ["hue", "at most 0.5"]),
        ("slic", {"gray_kind": "chanel"}, ['unknown gray_kind "chanel"', 'did you mean "channel"']),
        ("slic", {"flow": "image"}, ['unknown setting "flow"']),
        ("goca", {"steady": 1}, ["steady", "neither true nor false"]),
        ("goca", {"together": None}, ["together", "neither true nor false"]),
        ("goca", {"scale": (100, 190)}, ["scale", "at least 128"]),
        ("goca", {"crop": 0}, ["crop", "more than 0"]),
        ("cocon", {"crop": 1.1}, ["crop", "at most 1"]),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_meant_fail(name: str, settings: dict, words: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        policy(name, **settings)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_a_number_of_views_that_the_policy_does_not_draw_fails() -> None:
    with pytest.raises(UsageError, match="(?s)draws 2 clips of a video and a sample has 3.*CoCLR"):
        draw("coclr", count=3)
