"""Records that carry their digest cost no more than their file, whatever it says."""

from __future__ import annotations

import tracemalloc

import pytest

from pipeline.storage import sealed

RECORDS = [{"metric": "R@1", "value": 0.25, "é": [1, None, {"a": "b"}]}, {"metric": "R@5", "value": 1}]


def test_records_come_back() -> None:
    assert sealed.records(sealed.seal_records(RECORDS)) == RECORDS
    assert sealed.records(sealed.seal_records([])) == []


@pytest.mark.parametrize("cut", [0, 1, 40, -40, -2])
def test_any_other_bytes_are_noticed(cut: int) -> None:
    data = sealed.seal_records(RECORDS)
    for changed in (data[:cut] + b" " + data[cut:], data[:cut] + data[cut + 1 :], data + b"\n"):
        with pytest.raises(ValueError, match=r"."):
            sealed.records(changed)


@pytest.mark.parametrize("depth", [10, 500, 100_000])
def test_what_is_nested_takes_no_more_memory_than_its_bytes_are_worth(depth: int) -> None:
    """In full each of its numbers would stand behind as many blanks as it is deep: 100 MB of 400 kB."""
    data = b'[{"a":' + b"[" * depth + b"1," * 200_000 + b"1" + b"]" * depth + b"}]"
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"not those that were written|nested too deeply"):
            sealed.records(data)
        assert tracemalloc.get_traced_memory()[1] < 20 * len(data)
    finally:
        tracemalloc.stop()


def test_a_number_that_is_too_long_is_no_number() -> None:
    with pytest.raises(ValueError, match=r"."):
        sealed.records(b'[{"a": ' + b"9" * 1_000_000 + b"}]")
