"""Fixtures of the training tests."""

from __future__ import annotations

import sys

import pytest
import torch

from pipeline.commands import console
from pipeline.store import VideoStore
from tests.train import runs
from tests.train.runs import Run
from tests.train.stores import write_store
from train.__main__ import COMMANDS


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> VideoStore:
    """What the runs of `tests.train.runs` train on. For reading only."""
    return write_store(tmp_path_factory.mktemp("tiny") / "store", runs.VIDEOS)


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command line in this process: exit code, standard output, standard error."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["train", *map(str, arguments)])
        try:
            code = console.main(COMMANDS, "Stage two", "train")
        except SystemExit as leaving:  # how the parser ends
            code = int(leaving.code or 0)
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """DALI on the CPU also where there is a GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
