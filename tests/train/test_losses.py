"""Training as it was: 200 losses of every method against those on file."""

from __future__ import annotations

import json

import pytest

from tests.train import losses

pytestmark = [
    pytest.mark.slow,  # all of them: 30 s of one core
    pytest.mark.filterwarnings("ignore:.*num_workers", "ignore:Found .* module.* in eval mode"),
]


@pytest.mark.parametrize("kind", losses.KINDS)
def test_two_hundred_steps_have_the_losses_that_they_had(kind: str) -> None:
    """`python -m tests.train.losses` writes the file anew, where a change is meant to change training."""
    found = losses.losses(losses.method(kind))
    assert len(found) == losses.STEPS
    assert found == pytest.approx(json.loads(losses.FILE.read_text())[kind], rel=losses.TOLERANCE)
