"""Samplings against plain loops: which frames of which videos, how often, and what becomes of short ones."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.errors import UsageError
from tests.train.chances import assert_share
from train.clips import predictive_blocks, random_clip, sliding_windows
from train.clips.spec import ClipSpec, StreamSettings
from train.sampling import SAMPLINGS, Sample, Sampling, chosen
from train.sampling.blocks import Blocks
from train.sampling.cluster import Cluster
from train.sampling.groups import Groups
from train.sampling.multiscale import Multiscale
from train.sampling.random import Random

SPEC = ClipSpec(length=8, stride=2, size=(16, 16))
lengths = st.integers(1, 12), st.integers(1, 4), st.integers(1, 120), st.integers(0, 2**32)


def spec(length: int, stride: int) -> ClipSpec:
    return ClipSpec(length=length, stride=stride, size=(16, 16))


def draw(sampling: Sampling, clips: ClipSpec, frames: int, seed: int, count: int = 2) -> list[np.ndarray]:
    """Frames of a sample of the second of three videos."""
    drawn = sampling.draw(clips, Sample(1, np.array([999, frames, 999]), count), np.random.default_rng(seed))
    made = list(drawn)
    assert all(clip.video == 1 and clip.shown == {} for clip in made)
    return [clip.frames for clip in made]


@given(*lengths, st.integers(1, 4))
def test_random_clips_are_drawn_one_after_the_other(length: int, stride: int, frames: int, seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    expected = [random_clip(frames, length, stride, rng).tolist() for _ in range(n)]
    assert [clip.tolist() for clip in draw(Random(), spec(length, stride), frames, seed, n)] == expected


@given(*lengths, st.integers(0, 20), st.integers(1, 8))
def test_multiscale_starts_lie_apart_or_as_far_as_possible(
    length: int, stride: int, frames: int, seed: int, apart: int, shorter_length: int
) -> None:
    sampling = Multiscale(longer=2, shorter=3, shorter_length=shorter_length, apart=apart)
    drawn = draw(sampling, spec(length, stride), frames, seed)
    assert [len(clip) for clip in drawn] == [length] * 2 + [shorter_length] * 3
    used = stride
    while used > 1 and length * used > frames:
        used -= 1
    starts: list[int] = []
    for clip in drawn:
        if len(clip) * used > frames:
            whole = [list(range(frames))[offset::used] for offset in range(min(used, frames))]
            assert clip.tolist() in [[0] * (len(clip) - len(real)) + real for real in whole]
            continue
        assert all(two - one == used for one, two in pairwise(clip.tolist())) and clip[-1] < frames
        # The most that any start could keep from all earlier ones, up to what is asked for.
        places = range(frames - len(clip) * used + 1)
        best = max(min([abs(place - start) for start in starts] + [apart]) for place in places)
        assert min([abs(int(clip[0]) - start) for start in starts] + [apart]) == best
        starts.append(int(clip[0]))


def test_multiscale_draws_every_start_that_lies_far_enough() -> None:
    """A video of 30 frames: first starts 0 to 22; beside a start of 10 the next is 0 to 2 or 18 to 22."""
    sampling = Multiscale(longer=2, shorter=0, apart=8)
    seconds: Counter[int] = Counter()
    for seed in range(3000):
        first, second = (int(clip[0]) for clip in draw(sampling, spec(8, 1), 30, seed))
        assert 0 <= first <= 22
        if first == 10:
            seconds[second] += 1
    assert set(seconds) == {0, 1, 2, 18, 19, 20, 21, 22}


@given(st.integers(1, 8), st.integers(1, 5), st.integers(1, 4), st.integers(1, 300), st.integers(0, 2**32))
def test_blocks_start_anywhere_where_they_fit(blocks: int, each: int, stride: int, frames: int, seed: int) -> None:
    clips = spec(blocks * each, stride)
    [clip] = draw(Blocks(blocks=blocks), clips, frames, seed, 1)
    found = predictive_blocks(frames, blocks, each, stride, int(clip[0]))
    assert clip.tolist() == found.ravel().tolist()
    last = frames - clips.span if frames > clips.span else frames - 1 - int(0.9 * (frames - 1))
    assert 0 <= clip[0] <= last


@pytest.mark.parametrize(("frames", "last"), [(30, 6), (24, 3), (9, 1), (1, 0)])
def test_blocks_draw_every_start(frames: int, last: int) -> None:
    """Blocks over 24 frames; of a shorter video over nine tenths of it."""
    starts = {int(draw(Blocks(blocks=4), spec(8, 3), frames, seed, 1)[0][0]) for seed in range(300)}
    assert starts == set(range(last + 1))


def test_windows_of_blocks_are_some_blocks_apart() -> None:
    windows = Blocks(blocks=4, hop=2).windows(spec(8, 3), 50)
    assert [window.tolist() for window in windows] == [list(range(start, start + 24, 3)) for start in (0, 12, 24)]
    [short] = Blocks(blocks=4).windows(spec(8, 3), 20)
    assert short.tolist() == predictive_blocks(20, 4, 2, 3, 0).ravel().tolist()


@pytest.mark.parametrize("sampling", [Random(), Multiscale(), Cluster()])
def test_windows_of_the_others_slide(sampling: Sampling) -> None:
    np.testing.assert_array_equal(sampling.windows(SPEC, 50), sliding_windows(50, 8, 2))


def test_windows_of_a_video_that_is_short_for_multiscale_lie_closer() -> None:
    np.testing.assert_array_equal(Multiscale().windows(SPEC, 15), sliding_windows(15, 8, 1))


GROUPS = Groups(np.array([2, 0, 2, -1, 2, 0, 1]))


def cluster(sampling: Cluster, video: int, seed: int, groups: Groups | None = GROUPS, frames: int = 50):
    rng = np.random.default_rng(seed)
    return sampling.draw(SPEC, Sample(video, np.full(7, frames), 3, groups), rng)


def test_the_anchor_is_the_first_frames_and_comes_twice() -> None:
    for seed in range(50):
        anchor, positive, again = cluster(Cluster(), 2, seed)
        assert anchor.frames.tolist() == again.frames.tolist() == list(range(0, 16, 2))
        assert (anchor.video, again.video) == (2, 2)
        start = int(positive.frames[0])
        assert positive.frames.tolist() == list(range(start, start + 16, 2)) and 16 <= start <= 34


def test_positives_are_of_the_video_or_of_its_group() -> None:
    seen = Counter(cluster(Cluster(same_video=0.3), 2, seed)[1].video for seed in range(3000))
    assert set(seen) == {0, 2, 4}
    for video, share in ((2, 0.3), (0, 0.35), (4, 0.35)):
        assert_share(np.arange(3000) < seen[video], share)
    assert {cluster(Cluster(same_video=0.0), 1, seed)[1].video for seed in range(50)} == {5}
    for alone in (3, 6):  # without a group, and the only one of its group
        assert {cluster(Cluster(same_video=0.0), alone, seed)[1].video for seed in range(20)} == {alone}
    assert {cluster(Cluster(same_video=0.0), 2, seed, None)[1].video for seed in range(20)} == {2}
    assert {cluster(Cluster(same_video=1.0), 2, seed)[1].video for seed in range(20)} == {2}


def test_positives_start_at_every_frame_behind_an_anchor() -> None:
    assert {int(cluster(Cluster(), 2, seed)[1].frames[0]) for seed in range(1000)} == set(range(16, 35))
    # Where no clip fits behind the anchor, at the last start; where none fits at all, padded in front.
    assert {int(cluster(Cluster(), 2, seed, frames=20)[1].frames[0]) for seed in range(50)} == {4}
    assert cluster(Cluster(), 2, 0, frames=9)[1].frames.tolist() == [0, 0, 0, 0, 2, 4, 6, 8]


def test_positive_and_second_anchor_are_replaced_each_for_itself() -> None:
    shown = {
        "rgb": [StreamSettings(view="flow", input="u", mirror="plain"), StreamSettings(view="flow", input="image")]
    }
    sampling = Cluster(replaced=0.25, replacements=shown)
    kinds: Counter[tuple[str, str]] = Counter()
    for seed in range(4000):
        anchor, positive, again = cluster(sampling, 2, seed)
        assert anchor.shown == {}
        kinds[tuple(clip.shown["rgb"].input if clip.shown else "" for clip in (positive, again))] += 1  # type: ignore[index]
    chance = {"": 0.75, "u": 0.125, "image": 0.125}
    assert set(kinds) == {(one, two) for one in chance for two in chance}
    for (one, two), count in kinds.items():
        assert_share(np.arange(4000) < count, chance[one] * chance[two])
    stream = sampling.others(SPEC)["rgb"][0]
    assert (stream.name, stream.view, stream.input, stream.mirror) == ("rgb", "flow", "u", "plain")


@given(st.lists(st.integers(-1, 5), min_size=1, max_size=30))
def test_members_of_a_group_are_those_with_its_label(labels: list[int]) -> None:
    groups = Groups(np.array(labels))
    for video, label in enumerate(labels):
        alike = [other for other, found in enumerate(labels) if found == label] if label >= 0 else [video]
        assert groups.members(video).tolist() == alike


@pytest.mark.parametrize(
    ("sampling", "least"), [(Random(), 16), (Multiscale(), 8), (Cluster(), 32), (Blocks(blocks=4), 17)]
)
def test_every_sampling_says_what_is_short_and_what_becomes_of_it(sampling: Sampling, least: int) -> None:
    assert sampling.least(SPEC) == least
    assert sampling.short in sampling.fates and "drop" in sampling.fates
    assert chosen(sampling.as_dict()) == sampling and sampling.name in SAMPLINGS.names


def test_more_clips_than_a_sample_has_fail() -> None:
    Cluster().check(SPEC, 3), Multiscale().check(SPEC, 6), Random().check(SPEC, 9), Blocks(blocks=4).check(SPEC, 1)
    for sampling, count in ((Cluster(), 4), (Multiscale(), 7), (Blocks(blocks=4), 2)):
        with pytest.raises(UsageError, match=f"reads clip {count} of a sample, which has {count - 1}"):
            sampling.check(SPEC, count)


def test_blocks_that_do_not_divide_a_clip_fail() -> None:
    with pytest.raises(UsageError, match="(?s)clip of 8 frames is not 3 blocks.*sampling.blocks"):
        Blocks(blocks=3).check(SPEC, 1)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"name": "randon"}, 'unknown sampling "randon".*did you mean "random"'),
        ({"shorter": 4}, 'unknown key "shorter".*did you mean "short"'),
        ({"short": "spread"}, 'unknown value "spread".*known: pad, drop'),
        ({"name": "blocks", "short": "pad"}, 'unknown value "pad".*known: spread, drop'),
        ({"name": "multiscale", "longer": 0}, "0 is out of range.*longer.*at least 1"),
        ({"name": "cluster", "replaced": 1.5}, "1.5 is out of range.*replaced"),
        ({"name": "cluster", "replacements": {"rgb": [{"viw": "flow"}]}}, r'unknown key "viw".*replacements.rgb\[0\]'),
    ],
)
def test_settings_that_cannot_be_meant_fail(data: dict, message: str) -> None:
    with pytest.raises(UsageError, match=f"(?s){message}"):
        chosen(data, "a recipe")
    with pytest.raises((ValidationError, UsageError)):
        SAMPLINGS.find(data.pop("name", "random"))(**data)
