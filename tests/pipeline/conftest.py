"""Fixtures of the tests of stage one."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pipeline import __main__ as program
from pipeline.commands import console, stores


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
