"""Fixtures of the tests of stage one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline import __main__ as program
from pipeline.commands import console, stores
from pipeline.extraction import estimate
from pipeline.extraction.workers.slurm import SlurmSettings


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Callable[..., tuple[int, str, str]]:
    """Runs `python -m pipeline` in this process; returns exit code, output and errors."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["pipeline", *map(str, arguments)])
        try:
            code = console.main(program.COMMANDS, "stage one", "pipeline")
        except SystemExit as ended:
            code = int(ended.code or 0)
        captured = capsys.readouterr()
        return code, captured.out.replace("\n", " "), captured.err.replace("\n", " ")

    monkeypatch.setattr(stores.console, "width", 10_000)
    monkeypatch.setattr(stores.errors, "width", 10_000)
    return call


@pytest.fixture
def sampled_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sample of `extract --dry_run` is worked on in this process; one of its own takes long to start."""
    chosen = estimate.workers_for_extraction
    monkeypatch.setattr(estimate, "workers_for_extraction", lambda *_: chosen("", 1, SlurmSettings(), "here"))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file of weights for raft-small."""
    from tests.pipeline.random_weights import save  # with ptlflow, which takes long to import

    return save("raft_small", tmp_path_factory.mktemp("weights") / "small.ckpt")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where torch.hub keeps downloads: an empty folder."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    return tmp_path / "hub" / "checkpoints"
