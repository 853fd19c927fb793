"""Banks that are computed in several goes, whatever ended the earlier ones: the same file byte for byte."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

from eval import bank, features
from eval.bank import FeatureBank
from eval.protocols import Look, Windows
from eval.rows import CHECK, Rows
from pipeline.errors import Refusal
from pipeline.store import VideoStore
from tests.eval.test_features import network, request
from tests.faults.disk import Killed, the_disk
from train import reader
from train.reader import Executor

OF = {"network": "trained"}


@pytest.fixture
def executor(store: VideoStore) -> Iterator[Executor]:
    made = reader.create("opencv", store, threads=1)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Videos of five windows each: batches end within videos and between them."""
    monkeypatch.setattr(features, "BATCH", 7)


def rows_at(path: Path, of: dict = OF) -> Rows:
    return Rows(path, of, 3, "float32")


def test_rows_come_back_in_order_and_stay_with_what_they_are_of(tmp_path: Path) -> None:
    path, given = tmp_path / "a" / "rows", np.arange(15, dtype=np.float32).reshape(5, 3)
    with rows_at(path) as rows:
        for block in (given[:2], given[2:]):
            rows.append(block)
    with rows_at(path) as rows:
        assert rows.count == 5
        np.testing.assert_array_equal(np.concatenate(list(rows.blocks())), given)
        rows.keep(4)
    with rows_at(path) as rows:
        assert rows.count == 4
    with rows_at(path, {"network": "other"}) as rows:
        assert rows.count == 0 and list(rows.blocks()) == []
        with pytest.raises(ValueError, match="not .2, 4."):
            rows.append(np.ones((2, 4)))
        rows.remove()
    assert not path.exists()


def test_many_blocks_are_read_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eval.rows.AT_ONCE", 2 * (3 * 4 + CHECK))
    given = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    with rows_at(tmp_path / "rows") as rows:
        rows.append(given)
        assert [len(block) for block in rows.blocks()] == [2, 2, 2, 1]
        np.testing.assert_array_equal(np.concatenate(list(rows.blocks())), given)


def test_what_is_torn_or_changed_is_cut_off_with_all_behind_it(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    with rows_at(path) as rows:
        rows.append(np.ones((4, 3), np.float32))
    whole, record = path.read_bytes(), 3 * 4 + CHECK
    first = len(whole) - 4 * record
    for left in range(first, len(whole)):
        path.write_bytes(whole[:left])
        with rows_at(path) as rows:
            assert rows.count == (left - first) // record
        assert len(path.read_bytes()) == first + rows.count * record
    for place in range(first, len(whole), 3):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with rows_at(path) as rows:
            assert rows.count == (place - first) // record
    for place in range(first):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with rows_at(path) as rows:
            assert rows.count == 0
    moved = whole[:first] + whole[first + record :]  # equal rows, each in the place of the one before
    path.write_bytes(moved)
    with rows_at(path) as rows:
        assert rows.count == 0


@pytest.mark.remedy("wait for it, or end it")
def test_one_evaluation_at_a_time_has_them(tmp_path: Path) -> None:
    with rows_at(tmp_path / "rows"), pytest.raises(Refusal, match="(?s)another evaluation.*wait"):
        rows_at(tmp_path / "rows")
    rows_at(tmp_path / "rows").close()


@pytest.mark.remedy("keep them as float32: leave out --half")
def test_float16_halves_the_file_and_refuses_what_it_cannot_hold(
    store: VideoStore, executor: Executor, tmp_path: Path
) -> None:
    made = {}
    for kind in ("float32", "float16"):
        wanted = request(store, dtype=kind)
        path = tmp_path / f"{kind}.h5"
        features.banks({path: wanted}, lambda asked: network(asked.stream), store, store.videos, executor)
        with h5py.File(path) as file:
            assert file["rgb"].dtype == kind and file["rgb"].chunks == (18, 32)
        made[kind] = FeatureBank.load(path)
    expected = made["float32"].features.astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(made["float16"].features, expected)
    with Rows(tmp_path / "rows", OF, 2, "float16") as rows, pytest.raises(Refusal, match="(?s)1e.05.*--half"):
        rows.append(np.array([[1.0, 1e5]]))
    with Rows(tmp_path / "whole", OF, 2, "float32") as rows:
        rows.append(np.array([[1.0, 1e5]]))


def test_a_bank_of_other_rows_than_announced_is_never_written(tmp_path: Path) -> None:
    path, block = tmp_path / "bank.h5", np.ones((2, 3), np.float32)
    facts = ["a", "b", "c"], np.zeros(3), ["train"] * 3, {"dtype": "float32", "stream": "rgb", "videos": ""}
    with pytest.raises(ValueError, match="2 rows of 3"):
        bank.write(path, "rgb", [block], (3, 3), *facts)
    assert list(tmp_path.iterdir()) == []


def test_the_file_ends_where_hdf5_does_and_no_reserved_space_is_left(tmp_path: Path) -> None:
    path = tmp_path / "bank.h5"
    ids = [f"class/{i:05} with a long name {'x' * (i % 90)}" for i in range(3000)]
    rows = np.random.default_rng(0).normal(size=(3000, 64)).astype(np.float32)
    blocks = (rows[first : first + 700] for first in range(0, 3000, 700))
    facts = np.arange(3000), ["test"] * 3000, {"dtype": "float32", "stream": "rgb", "videos": ""}
    bank.write(path, "rgb", blocks, rows.shape, ids, *facts)
    found = FeatureBank.load(path)
    np.testing.assert_array_equal(found.features, rows)
    assert found.video_ids == ids and found.labels[-1] == 2999
    assert rows.nbytes < path.stat().st_size < 2 * rows.nbytes


@pytest.mark.parametrize("look", [Look(), Look(gallery=Windows("random"), crops=3, crop=1.0)], ids=["clean", "crops"])
def test_what_ended_at_any_batch_goes_on_to_the_same_bank(
    store: VideoStore, executor: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, look: Look
) -> None:
    wanted = request(store, look=look), request(store, look=look, network="untrained", checkpoint="fresh")
    networks = {made: network("rgb", seed) for seed, made in enumerate(wanted)}
    run, steps = executor.run, []

    def go(folder: Path, until: int = 10**6) -> list[bytes]:
        steps.clear()
        paths = {folder / f"{request.network}.h5": request for request in wanted}

        def read(*arguments):
            steps.append(1)
            if len(steps) > until:
                raise Killed
            return run(*arguments)

        monkeypatch.setattr(executor, "run", read)
        features.banks(paths, networks.__getitem__, store, store.videos, executor)
        assert sorted(path.name for path in folder.iterdir()) == ["trained.h5", "untrained.h5"]
        return [path.read_bytes() for path in paths]

    whole = go(tmp_path / "whole")
    total = len(steps)
    for until in range(1, total, 2):
        with pytest.raises(Killed):
            go(tmp_path / str(until), until)
        # Behind what the last network kept, the first may have kept a block more.
        assert go(tmp_path / str(until)) == whole
        assert len(steps) <= total - until + 2 + 1  # a batch is read ahead, and one begins before what is missing


def test_what_ended_at_any_change_of_the_disk_goes_on_to_the_same_bank(
    store: VideoStore, executor: Executor, tmp_path: Path
) -> None:
    wanted = request(store)

    def go(folder: Path) -> bytes:
        features.banks({folder / "bank.h5": wanted}, lambda _: network("rgb"), store, store.videos, executor)
        return (folder / "bank.h5").read_bytes()

    whole, step, died = go(tmp_path / "whole"), 0, True
    while died:
        folder = tmp_path / str(step)
        with the_disk().killed_at(folder, step):
            go(folder)
        died = the_disk().died
        assert go(folder) == whole
        step += 1
    assert step > 4


KILLED = """
import os, signal, sys
from pathlib import Path
from eval import features
from eval.protocols import Look
from pipeline.store import open_store
from tests.eval.test_features import network, request
from train import reader

store = open_store(sys.argv[1])
executor = reader.create("opencv", store, threads=1)
run, steps = executor.run, []

def read(*arguments):
    steps.append(1)
    if len(steps) > 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return run(*arguments)

executor.run = read
features.banks({Path(sys.argv[2]): request(store)}, lambda asked: network("rgb"), store, store.videos, executor)
"""


def test_a_process_that_is_killed_leaves_what_the_next_one_goes_on_with(
    store: VideoStore, executor: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # batches of the usual size, as the other process has
    path = tmp_path / "bank.h5"
    killed = subprocess.run([sys.executable, "-c", KILLED, str(store.root), str(path)], capture_output=True)
    assert killed.returncode == -9
    left = [item.name for item in tmp_path.iterdir()]
    assert left == ["bank.h5.rows"]
    alone = request(store)
    for place in (path, tmp_path / "whole" / "bank.h5"):
        features.banks({place: alone}, lambda _: network("rgb"), store, store.videos, executor)
    assert path.read_bytes() == (tmp_path / "whole" / "bank.h5").read_bytes()
