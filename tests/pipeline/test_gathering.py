"""Gathering: many threads, one estimator, batches of pairs of several callers; the flow is the estimator's in every
bit."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import flow
from pipeline.flow.estimator import FlowEstimator
from pipeline.flow.gathering import Gathering, _Pairs
from pipeline.flow.quantisation import Quantiser
from tests.patience import PATIENCE

BROKEN = 255  # a pixel that the estimator stumbles over


class Differences(FlowEstimator):
    """In a GPU estimator's place: flow that tells pairs apart, and a list of the batches, as pixels of their first
    frames."""

    name = "differences"
    device = "cuda"
    sees_colour = False

    def __init__(self, batch_size: int = 8) -> None:
        self.batch_size = batch_size
        self.batches: list[list[int]] = []
        self.open = threading.Event()
        self.open.set()

    def batch(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        self.batches.append([int(frame[0, 0]) for frame in first])
        assert self.open.wait(PATIENCE)
        if (broken := (first == BROKEN).any(axis=(1, 2))).any():
            raise ValueError(f"stumbled over pair {int(np.flatnonzero(broken)[0])}")
        one, two = first.astype(np.float32), second.astype(np.float32)
        return np.stack([one - 0.1 * two, np.sqrt(one * two)], axis=1)


class OnItsWay(Differences):
    """Whose batches are finished when the test says so, one after the other, as a GPU finishes what was launched."""

    def __init__(self, batch_size: int = 8, streams: int = 1) -> None:
        super().__init__(batch_size)
        self.streams = streams
        self.finished = threading.Semaphore(0)

    def launch(self, first: np.ndarray, second: np.ndarray) -> Callable[[], np.ndarray]:
        found = self.batch(first, second)

        def collect() -> np.ndarray:
            assert self.finished.acquire(timeout=PATIENCE)
            return found

        return collect


def frames(value: int, pairs: int = 1, size: tuple[int, int] = (4, 5)) -> tuple[np.ndarray, np.ndarray]:
    both = np.random.default_rng(value).integers(0, 200, (2, pairs, *size), dtype=np.uint8)
    both[0, :, 0, 0] = value
    return both[0], both[1]


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.001)


class Callers:
    """Threads that call, each known to wait before the next one comes."""

    def __init__(self, gathering: Gathering) -> None:
        self.gathering, self.pool = gathering, ThreadPoolExecutor(16)

    def call(self, *given: np.ndarray) -> Future[np.ndarray]:
        """A call that finds the GPU busy."""
        return self.call_for(self.gathering.estimate, *given)

    def call_for(self, work: Callable[..., np.ndarray], *given: Any) -> Future[np.ndarray]:
        before = len(self.gathering._waiting)
        called = self.pool.submit(work, *given)
        until(lambda: len(self.gathering._waiting) > before)
        return called

    def hold(self, *given: np.ndarray) -> Future[np.ndarray]:
        """A call that the GPU is busy with from now on."""
        estimator: Any = self.gathering.estimator
        estimator.open.clear()
        before = len(estimator.batches)
        called = self.pool.submit(self.gathering.estimate, *given)
        until(lambda: len(estimator.batches) > before)
        return called


@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 12), st.sampled_from([(3, 4), (5, 2)])), max_size=5), min_size=1, max_size=6
    ),
    st.integers(1, 20),
)
def test_any_threads_get_the_estimators_own_flow(calls: list[list[tuple[int, tuple[int, int]]]], most: int) -> None:
    estimator, alone = Differences(most), Differences(most)
    gathering, begin = Gathering(estimator), threading.Barrier(len(calls))

    def work(caller: int) -> list[np.ndarray]:
        begin.wait(PATIENCE)
        return [gathering.estimate(*frames(10 * caller + n, *call)) for n, call in enumerate(calls[caller])]

    with ThreadPoolExecutor(len(calls)) as pool:
        for caller, found in enumerate(pool.map(work, range(len(calls)))):
            for number, (call, one) in enumerate(zip(calls[caller], found, strict=True)):
                assert np.array_equal(one, alone.estimate(*frames(10 * caller + number, *call)))
    assert sum(map(len, estimator.batches)) == sum(pairs for caller in calls for pairs, _ in caller)
    for batch in estimator.batches:
        assert len(batch) <= most or len(set(batch)) == 1  # one call's pairs are never torn apart


def test_tvl1_gives_the_same_bits_in_any_company() -> None:
    settings: dict[str, Any] = {"warps": 2, "outer_iterations": 2, "inner_iterations": 5}
    estimator = flow.create("tvl1-torch", **settings)
    estimator.batch_size = 64
    gathering = Gathering(estimator)
    given = [frames(n, 1 + n % 3, (17, 19)) for n in range(12)]
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda pairs: gathering.estimate(*pairs), given))
    for pairs, one in zip(given, found, strict=True):
        assert np.array_equal(one, flow.create("tvl1-torch", **settings).estimate(*pairs))


def test_whatever_waits_for_the_gpu_becomes_one_batch_the_oldest_first() -> None:
    estimator = Differences(batch_size=6)
    callers = Callers(Gathering(estimator))
    calls = [callers.hold(*frames(1))]  # alone: the GPU waits for no more
    calls += [callers.call(*frames(value, pairs)) for value, pairs in ((2, 2), (3, 2))]
    calls.append(callers.call(*frames(4, size=(7, 7))))
    calls += [callers.call(*frames(value, pairs)) for value, pairs in ((5, 2), (6, 3), (7, 9), (8, 1))]
    estimator.open.set()
    for called in calls:
        called.result(PATIENCE)
    assert estimator.batches == [[1], [2, 2, 3, 3, 5, 5], [4], [6, 6, 6], [7] * 9, [8]]


@pytest.mark.parametrize("streams", [1, 2])
def test_only_full_batches_are_launched_behind_one_that_is_on_its_way(streams: int) -> None:
    estimator = OnItsWay(4, streams)
    callers = Callers(Gathering(estimator))
    calls = [callers.hold(*frames(1))]
    estimator.open.set()
    calls += [callers.call(*frames(value, pairs)) for value, pairs in ((2, 2), (3, 1))]
    assert estimator.batches == [[1]]  # three of four pairs wait until the GPU is free
    calls.append(callers.pool.submit(callers.gathering.estimate, *frames(4)))
    until(lambda: estimator.batches == [[1], [2, 2, 3, 4]])
    if streams == 2:
        calls.append(callers.pool.submit(callers.gathering.estimate, *frames(9, 4)))
        until(lambda: len(estimator.batches) == 3)
    calls += [callers.call(*frames(value, 4)) for value in (5, 6)]
    assert len(estimator.batches) == streams + 1  # and no further one however full
    for _ in calls:
        estimator.finished.release()
    for called in calls:
        called.result(PATIENCE)
    assert estimator.batches[streams + 1 :] == [[5] * 4, [6] * 4]


class Mixing(Differences):
    """Pairs of any sizes at once, and their bytes."""

    mixes_sizes = True
    bytes_back = True

    def launch_groups(self, groups: Any, quantise: Any = None) -> Callable[[], list[np.ndarray]]:
        self.batches.append([int(frame[0, 0]) for first, _ in groups for frame in first])
        assert self.open.wait(PATIENCE)
        alone = Differences()
        found = [alone.batch(*group) for group in groups]
        return lambda: [quantise(flow) if quantise else flow for flow in found]


def test_pairs_of_all_sizes_share_a_batch_where_the_estimator_mixes_them_and_makes_their_bytes() -> None:
    estimator, quantise = Mixing(batch_size=6), Quantiser(250.0, "sqrt")
    gathering = Gathering(estimator)
    callers = Callers(gathering)
    given = [frames(value, pairs, size) for value, pairs, size in ((2, 2, (3, 4)), (3, 1, (5, 2)), (4, 1, (3, 4)))]
    held = callers.hold(*frames(1))
    calls = [callers.call_for(gathering.quantised, *pairs, quantise) for pairs in given]
    flows = callers.call(*frames(5))
    estimator.open.set()
    for called, pairs in zip(calls, given, strict=True):
        assert np.array_equal(called.result(PATIENCE), quantise(Differences().estimate(*pairs)))
    for called, value in ((held, 1), (flows, 5)):
        assert np.array_equal(called.result(PATIENCE), Differences().estimate(*frames(value)))
    assert estimator.batches == [[1], [2, 2, 3, 4], [5]]
    none = np.empty((0, 4, 5), np.uint8)
    assert gathering.quantised(none, none, quantise).dtype == np.uint8


@pytest.mark.parametrize("back", [False, True])
def test_bytes_of_flow_are_the_estimators_wherever_they_are_made(back: bool) -> None:
    estimator, quantise = (Mixing() if back else Differences()), Quantiser(100.0)
    found = Gathering(estimator).quantised(*frames(1, 3), quantise)
    assert np.array_equal(found, estimator.quantised(*frames(1, 3), quantise)) and found.dtype == np.uint8


def test_only_the_caller_whose_pairs_fail_is_blamed() -> None:
    estimator = Differences()
    callers = Callers(Gathering(estimator))
    calls = [callers.hold(*frames(1)), *(callers.call(*frames(value)) for value in (2, BROKEN, 3, BROKEN))]
    estimator.open.set()
    for called, value in zip(calls, (1, 2, None, 3, None), strict=True):
        if value:
            assert np.array_equal(called.result(PATIENCE), Differences().estimate(*frames(value)))
        else:
            with pytest.raises(ValueError, match="stumbled over pair 0"):
                called.result(PATIENCE)
    assert estimator.batches[:2] == [[1], [2, BROKEN, 3, BROKEN]]
    assert all(
        len(batch) == 1 for batch in estimator.batches[2:]
    )  # each alone, and black frames to see if the GPU works


def test_pairs_that_are_tried_again_have_no_company() -> None:
    estimator = Differences()
    callers = Callers(Gathering(estimator))
    calls = [callers.hold(*frames(1)), callers.call(*frames(2))]
    again = callers.pool.submit(callers.gathering._flow, _Pairs(*frames(BROKEN), alone=True))
    until(lambda: len(callers.gathering._waiting) == 2)
    calls.append(callers.call(*frames(3)))
    estimator.open.set()
    assert [len(called.result(PATIENCE)) for called in calls] == [1, 1, 1]
    with pytest.raises(ValueError, match="stumbled"):
        again.result(PATIENCE)
    assert estimator.batches == [[1], [2, 3], [BROKEN]]


def test_an_error_that_shows_when_the_flow_is_collected_blames_one_caller_too() -> None:
    class Late(Differences):
        def launch(self, first: np.ndarray, second: np.ndarray) -> Callable[[], np.ndarray]:
            return lambda: self.batch(first, second)

    gathering = Gathering(Late())
    given = [frames(value) for value in (1, BROKEN, 2, 3)]
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(gathering.estimate, *pairs) for pairs in given]
        with pytest.raises(ValueError, match="stumbled over pair 0"):
            calls.pop(1).result(PATIENCE)
        assert all(len(called.result(PATIENCE)) == 1 for called in calls)
    assert len(gathering.estimate(*frames(4))) == 1  # and the next caller is served


LOST = """
import numpy as np
from tests.pipeline.test_gathering import Differences, Gathering
class Lost(Differences):
    def batch(self, first, second):
        raise RuntimeError("an illegal memory access was encountered")
try:
    Gathering(Lost()).estimate(*[np.zeros((2, 4, 5), np.uint8)] * 2)
finally:
    print("not reached")
"""


def test_a_process_whose_gpu_is_lost_ends() -> None:
    run = subprocess.run([sys.executable, "-c", LOST], capture_output=True, text=True, timeout=PATIENCE)
    assert (run.returncode, run.stdout) == (1, "")
    assert "RuntimeError: an illegal memory access was encountered" in run.stderr


def test_wrong_frames_are_refused_before_they_meet_others() -> None:
    estimator = Differences()
    gathering = Gathering(estimator)
    none = np.empty((0, 4, 5, 3), np.uint8)
    assert gathering.estimate(none, none).shape == (0, 2, 4, 5)
    with pytest.raises(ValueError, match="differ in shape"):
        gathering.estimate(np.zeros((2, 4, 5), np.uint8), np.zeros((1, 4, 5), np.uint8))
    assert not estimator.batches


def test_gray_is_made_of_frames_only_where_the_estimator_sees_no_colour() -> None:
    rgb = np.random.default_rng(0).integers(0, 200, (3, 4, 5, 3), dtype=np.uint8)
    seen: list[tuple[int, ...]] = []

    class Shapes(Differences):
        def batch(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
            seen.append(first.shape)
            return np.zeros((len(first), 2, *first.shape[1:3]), np.float32)

    class Colours(Shapes):
        sees_colour = True

    for kind in (Shapes, Colours):
        Gathering(kind()).estimate(rgb[:-1], rgb[1:])
    assert seen == [(2, 4, 5), (2, 4, 5, 3)]


def test_no_thread_and_no_frame_is_left_when_nobody_waits() -> None:
    before = set(threading.enumerate())
    gathering = Gathering(Differences())
    for value in range(20):
        first, second = frames(value)
        found = gathering.estimate(first, second)
    left = [weakref.ref(array) for array in (first, second, found)]
    until(lambda: set(threading.enumerate()) <= before)
    del first, second, found
    gc.collect()
    assert [reference() for reference in left] == [None] * 3
