"""What refusals of training and evaluation say is to be done helps: each is done here to the letter."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from eval import embed
from eval.__main__ import COMMANDS as EVAL
from pipeline.commands import console
from pipeline.errors import Refusal
from pipeline.importers import folder
from pipeline.store import open_store
from pipeline.store.settings import ExtractionSettings
from pipeline.views.flow import FlowSettings
from tests.faults import small
from tests.pipeline.reference import run_here
from train.__main__ import COMMANDS as TRAIN


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """A command line in this process: exit code and standard error."""

    def call(commands: Mapping[str, Callable[..., int | None]], *arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["costream", *map(str, arguments)])
        return console.main(commands, "a stage", "costream"), capsys.readouterr().err

    return call


Call = Callable[..., tuple[int, str]]


@pytest.mark.remedy(
    "--stream rgb, or --layout coclr",
    "--rgb FILE, --flow FILE, or both",
    "give a new folder as --run",
    "download it first; nothing is fetched",
)
def test_networks_are_written_and_taken(call: Call, run: Path, tmp_path: Path) -> None:
    export = ("export", "--checkpoint", run / "rgb" / "checkpoints" / "last.ckpt", "--out", tmp_path / "a.pt")
    code, err = call(TRAIN, *export)
    assert code == 2
    assert "to do: --stream rgb, or --layout coclr" in err
    assert call(TRAIN, *export, "--stream", "rgb")[0] == 0
    made = ("import", "--run", run)
    code, err = call(TRAIN, *made)
    assert code == 2
    assert "--rgb FILE, --flow FILE, or both" in err
    code, err = call(TRAIN, *made, "--rgb", tmp_path / "none.pth")
    assert code == 1
    assert "to do: give a new folder as --run" in err
    code, err = call(TRAIN, "import", "--run", tmp_path / "new", "--rgb", tmp_path / "none.pth")
    assert "download it first" in err


@pytest.mark.remedy("add it: make extract-flow VIDEOS= STORE={} VIEWS={}")
def test_a_view_that_a_network_looks_at_is_added(tmp_path: Path) -> None:
    videos = small.make(tmp_path / "videos")
    store = small.store(videos, tmp_path / "store")
    with pytest.raises(Refusal) as refused:
        embed._refuse_without_view(open_store(store), "flow", "flow")
    told = dict(word.split("=", 1) for word in shlex.split(refused.value.remedy) if "=" in word)
    views = {told["VIEWS"]: FlowSettings("dis", short_side=0)}
    run_here(folder.read(videos), videos, Path(told["STORE"]), ExtractionSettings(views).resolved(), add_views=True)
    embed._refuse_without_view(open_store(store), "flow", "flow")


@pytest.mark.remedy("run the evaluation: make evaluate RUN=")
def test_a_run_is_compared_once_it_is_evaluated(
    call: Call, finished_run: Path, evaluated: Path, tmp_path: Path
) -> None:
    command = ("compare", "--out", tmp_path / "page.html", "--runs")
    code, err = call(EVAL, *command, "[]")
    assert code in (1, 2)
    assert "name what is meant" in err
    assert call(EVAL, *command, f"[{evaluated}]")[0] == 0
    code, err = call(EVAL, *command, f"[{finished_run}]")
    assert code == 1
    assert "run the evaluation: make evaluate" in err
