"""Two nodes that train together, imitated by two processes that talk over loopback: begun by torchrun or as by srun."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import train  # noqa: F401  (before torch and lightning)

# isort: split
import pytest
import torch

from pipeline.errors import UsageError
from pipeline.store import VideoStore
from tests.train import runs
from tests.train.runs import IN_BATCH
from tests.train.two_ranks import free_port
from train.backbones import BACKBONES
from train.hardware import Hardware, started_by

STAGE = IN_BATCH | {"settings": IN_BATCH["settings"] | {"backbone": "plain", "backbone_settings": {}}}
PATIENCE = 300.0  # seconds
WHOLE = "term:1000"  # no signal: there are eight steps
ROOT = Path(__file__).resolve().parents[2]
Started = tuple[list[str], dict[str, str]]


def torchrun(node: int, port: int) -> Started:
    """What the remedy says, on a node."""
    with pytest.raises(UsageError, match="on 2 nodes is begun on each of them") as refused:
        started_by(Hardware(nodes=2))
    command = refused.value.remedy.partition(" train,")[0]
    for said, meant in {" 0 (1, ...)": f" {node}", "HOST": "127.0.0.1", "PORT": str(port)}.items():
        command = command.replace(said, meant)
    return [sys.executable, "-m", "torch.distributed.run", *command.split()[1:]], {}


def srun(node: int, port: int) -> Started:
    """A task of a job of two nodes with one task each, as SLURM describes it to the task."""
    of_job = {"NTASKS": "2", "NTASKS_PER_NODE": "1", "NNODES": "2", "JOB_NAME": "train", "JOB_ID": "7"}
    of_task = {"PROCID": str(node), "NODEID": str(node), "LOCALID": "0", "NODELIST": "127.0.0.1"}
    named = {f"SLURM_{name}": value for name, value in (of_job | of_task).items()}
    return [sys.executable, "-m"], named | {"MASTER_PORT": str(port)}


def trained(started: Callable[[int, int], Started], store: VideoStore, run: Path, event: str) -> list[int]:
    """Exit codes of both nodes, whose output is kept beside the run."""
    port = free_port()
    with ExitStack() as stack:
        nodes = []
        for node in range(2):
            command, variables = started(node, port)
            command += ["tests.train.runs", "pretrain", "--method", "infonce", "--store", str(store.root)]
            command += ["--run", str(run), "--recipe", str(run.parent / "recipe.yaml"), "--hardware.nodes", "2"]
            command += ["--hardware.reader", "opencv", "--hardware.accelerator", "cpu", "--hardware.threads", "1"]
            nodes.append(
                stack.enter_context(
                    subprocess.Popen(
                        command,
                        cwd=ROOT,
                        env=os.environ | runs.same_threads() | {runs.EVENT: event} | variables,
                        stdout=stack.enter_context((run.parent / f"node{node}.txt").open("wb")),
                        stderr=subprocess.STDOUT,
                    )
                )
            )
            stack.callback(nodes[-1].kill)
        return [node.wait(timeout=PATIENCE) for node in nodes]


@pytest.fixture
def one(store: VideoStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The run of one process, beside its recipe."""
    monkeypatch.setitem(BACKBONES.entries, "plain", "tests.train.runs:Plain")
    recipe = runs.load(tmp_path / "recipe.yaml", STAGE)
    runs.run(recipe, store, tmp_path / "one")
    return tmp_path / "one"


def assert_as_one(one: Path, two: Path) -> None:
    """Same batches in the same order, so the same weights but for the order of sums."""
    first, second = (runs.content(run, "pixels") for run in (one, two))
    for part in ("state_dict", "optimizer_states"):
        torch.testing.assert_close(second[part], first[part], rtol=1e-4, atol=1e-5)
    for before, after in zip(*(runs.lines(run, "pixels") for run in (one, two)), strict=True):
        assert after == pytest.approx(before, rel=1e-4)


@pytest.mark.slow
@pytest.mark.remedy("--node_rank 0 (1, ...)")
def test_two_nodes_of_torchrun_equal_one_process_and_go_on_exactly(store: VideoStore, one: Path) -> None:
    assert started_by(Hardware()) == []
    two, parts = one.with_name("two"), one.with_name("parts")
    assert trained(torchrun, store, two, WHOLE) == [0, 0], (one.parent / "node0.txt").read_text()
    assert_as_one(one, two)
    said, of_other = ((one.parent / f"node{node}.txt").read_text() for node in range(2))
    assert "), 2 processes of " in said and "pre-trained 1 stage" in said
    assert "pre-train" not in of_other
    assert trained(torchrun, store, parts, "term:4")[0] != 0
    assert "stopped by SIGTERM in stage pixels at step 5" in (one.parent / "node0.txt").read_text()
    assert trained(torchrun, store, parts, WHOLE) == [0, 0], (one.parent / "node0.txt").read_text()
    runs.assert_same_runs(two, parts, "pixels")


@pytest.mark.slow
def test_two_tasks_of_slurm_equal_one_process(store: VideoStore, one: Path) -> None:
    two = one.with_name("two")
    assert trained(srun, store, two, "term:4") == [128 + signal.SIGTERM, 0], (one.parent / "node0.txt").read_text()
    assert trained(srun, store, two, WHOLE) == [0, 0], (one.parent / "node0.txt").read_text()
    assert_as_one(one, two)
