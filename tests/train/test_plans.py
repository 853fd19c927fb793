"""Plans as numbers that are kept: who changes what a recipe draws changes these, and raises `PLANS`.

`python -m tests.train.test_plans` writes them anew.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.train.drawing import streams_of
from train.augment import Draws, Pixels, policy
from train.batches.planning import PLANS
from train.clips.spec import ClipSpec
from train.sampling import Sample
from train.sampling.random import Random
from train.settings import read

KEPT = Path(__file__).with_name("plans.json")
FRAMES, SIZES = np.array([40, 7]), [(48, 64), (60, 45)]  # of two videos, the second shorter than a clip


def numbers(made: Pixels) -> list[float]:
    """Window, flip, blur, and two sums over the colours."""
    colour = made.colour.astype(np.float64)
    weights = np.cos(np.arange(colour.size)).reshape(colour.shape)
    sums = [len(colour), colour.sum(), (colour * weights).sum()]
    return [round(float(number), 6) for number in (*made.window, made.flip, made.blur, *sums)]


def drawn(case: dict[str, Any]) -> list[list[dict[str, list[float]]]]:
    """By sample, by clip and by stream."""
    clips = {key: case[key] for key in ("streams", "statistics")}
    spec = read(ClipSpec, {"length": 8, "stride": 2, "size": [16, 16], **clips}, "test")
    samples = []
    for sample in range(len(FRAMES)):
        draws = Draws(5, 3, sample)
        given = Random().draw(spec, Sample(sample, FRAMES, 2), draws.shared)
        made = policy(case["policy"], **case["settings"]).sample(given, streams_of(spec), SIZES.__getitem__, draws)
        samples.append(
            [
                {"frames": clip.frames.tolist(), **{stream: numbers(own) for stream, own in pixels.items()}}
                for clip, pixels in made
            ]
        )
    return samples


CASES = json.loads(KEPT.read_text())["cases"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['policy']} {case['settings']}")
def test_a_recipe_draws_what_it_drew(case: dict[str, Any]) -> None:
    for found, kept in zip(drawn(case), case["samples"], strict=True):
        for one, other in zip(found, kept, strict=True):
            assert one.keys() == other.keys() and one["frames"] == other["frames"]
            for stream in ("rgb", "flow"):
                np.testing.assert_allclose(one[stream], other[stream], rtol=1e-5, atol=2e-6)


def test_kept_plans_are_of_this_version() -> None:
    assert json.loads(KEPT.read_text())["version"] == PLANS


if __name__ == "__main__":
    made = [json.dumps(case | {"samples": drawn(case)}) for case in CASES]
    KEPT.write_text(f'{{"version": {PLANS}, "cases": [\n' + ",\n".join(made) + "\n]}\n")
