"""What is said of the videos of a table: classes, recordings and splits in columns."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.store.annotated import Annotated
from pipeline.store.table import Form, VideoTable

NAMES = st.text("ab/ 名", min_size=1, max_size=3)


def table(ids: list[str]) -> VideoTable:
    """Videos of which nothing matters but their names."""
    numbers = np.arange(len(ids), dtype=np.int32)
    digests = np.repeat(numbers[:, None].astype(np.uint8), 32, axis=1)
    kinds = [Form("", {"rgb": (0, 8, 8, 3)}, "", None, None)]
    empty = pa.array([""] * len(ids), pa.string())
    return VideoTable(
        pa.array(ids, pa.string()), numbers, numbers.astype(float), digests, 0 * numbers, kinds, pa.array([]), empty
    )


def annotated(ids: list[str], sources: list[str]) -> Annotated:
    """With a recording for every video; "" stands for the video itself."""
    recordings = sorted({source for source in sources if source})
    recorded = np.array([recordings.index(source) if source else -1 for source in sources], np.int32)
    nothing = np.full(len(ids), -1, np.int32)
    return Annotated(table(ids), "", "", ["x", "y"], nothing, nothing.astype(np.int8), recordings, recorded)


@given(st.dictionaries(NAMES, st.one_of(st.just(""), NAMES), min_size=1, max_size=8))
def test_recordings_are_numbered_in_the_order_of_their_names(said: dict[str, str]) -> None:
    ids = sorted(said)
    names = [said[video_id] or video_id for video_id in ids]
    made = annotated(ids, [said[video_id] for video_id in ids])
    assert [made.source(row) for row in range(len(ids))] == names
    ranks = {name: rank for rank, name in enumerate(sorted(set(names)))}
    assert np.unique(made.sources, return_inverse=True)[1].tolist() == [ranks[name] for name in names]


CHANGES = [
    {"labels": np.array([0, 1, -1], np.int32)},
    {"splits": np.array([0, 1, 1], np.int8)},
    {"recorded": np.array([-1, 0, -1], np.int32)},
    {"recordings": ["another"]},
    {"classes": ["x", "z"]},
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: next(iter(change)))
def test_the_digest_tells_what_is_said_of_the_videos(change: dict) -> None:
    whole = dataclasses.replace(
        annotated(["a", "b", "c"], ["", "r", "r"]),
        labels=np.array([0, 1, 1], np.int32),
        splits=np.array([0, 1, 2], np.int8),
    )
    rows = np.arange(3)
    other = dataclasses.replace(whole, **change)
    assert whole.digest_of(rows) == dataclasses.replace(whole).digest_of(rows)
    assert whole.digest_of(rows) != other.digest_of(rows)
    assert whole.digest_of(rows[:1]) == other.digest_of(rows[:1])  # what differs is said of others
    assert whole.digest_of(rows) != whole.digest_of(rows[::-1])
