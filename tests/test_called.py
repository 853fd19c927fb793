"""Messages name commands as they are typed here: by make in a clone, by `costream` where that was typed."""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from costream.__main__ import COMMANDS
from pipeline import called
from tests import printed
from tests.remedies import TARGETS, TOP


@pytest.fixture(params=["make", "costream"])
def typed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(sys, "argv", [f"/bin/{request.param}"])
    return str(request.param)


def test_commands_and_options_are_called_as_they_are_typed(typed: str) -> None:
    told = (
        called.command("extract", videos="my videos", store="", **{"flow.estimator": "dis"}),
        called.command("evaluate", run="r", protocols="[clean]"),
        called.command("pretrain", set=["a=1", "b=2"]),
        called.command("import", rgb="FILE"),
        called.option("flow.estimator"),
        called.option("recipe", "small real"),
        called.of_module("python -m pipeline probe --file='a b'"),
        called.of_module("python -m pipeline bring --frames=f"),
        called.of_module("another line"),
        called.repair(),
    )
    assert (
        told
        == {
            "make": (
                "make extract-flow VIDEOS='my videos' STORE= FLOW=dis",
                "make evaluate RUN=r ARGS='--protocols [clean]'",
                "make pretrain SET='a=1 b=2'",
                ".venv/bin/python -m train import --rgb FILE",
                "FLOW=",
                "RECIPE='small real'",
                "python -m pipeline probe --file='a b'",
                "python -m pipeline bring --frames=f",
                "another line",
                "`make repair`, or: ",
            ),
            "costream": (
                "costream extract --videos 'my videos' --store STORE --flow.estimator dis",
                "costream evaluate --run r --protocols '[clean]'",
                "costream pretrain --set a=1 --set b=2",
                "costream import --rgb FILE",
                "--flow.estimator",
                "--recipe 'small real'",
                "costream probe-video --file='a b'",
                "costream bring --frames=f",
                "another line",
                "",
            ),
        }[typed]
    )


@pytest.mark.parametrize(
    ("program", "makefile", "told"),
    [
        ("/opt/bin/costream", True, True),
        ("/opt/costream/__main__.py", True, True),
        ("/opt/costream/train/__main__.py", True, False),
        ("/opt/costream/train/__main__.py", False, True),
        ("", True, False),
    ],
)
def test_who_was_called_is_told_by_the_programs_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, program: str, makefile: bool, told: bool
) -> None:
    monkeypatch.setattr(sys, "argv", [program])
    if not makefile:
        monkeypatch.setattr(called, "MAKEFILE", tmp_path / "Makefile")
    assert called.by_costream() is told


def named() -> Iterator[tuple[str, list[str], str]]:
    """Every command that a message of the project names, its options, and where."""
    for package in ("pipeline", "train", "eval", "costream"):
        for module in sorted((TOP / package).rglob("*.py")):
            for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and ast.unparse(node.func) in ("called.command", "following"):
                    name = node.args[0]
                    options = [keyword.arg for keyword in node.keywords if keyword.arg]
                    if isinstance(name, ast.Constant):
                        yield str(name.value), options, f"{module.relative_to(TOP)}:{node.lineno}"
    for page in sorted(TOP.glob("*/templates/*.html")):
        for name, options in re.findall(r"\bcommand\(['\"]([\w-]+)['\"]([^)]*)\)", page.read_text(encoding="utf-8")):
            yield name, re.findall(r"(\w+)=", options), str(page.relative_to(TOP))


def test_every_command_that_is_named_is_there_under_both_names() -> None:
    rules = dict(
        re.findall(r"^([a-z][a-z-]+):.*?## (.*)", (TOP / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    )
    found = list(named())
    assert len(found) > 30
    for name, options, where in found:
        place = COMMANDS[name]
        function = printed.COMMANDS[place.package][place.name]
        assert {option.split(".")[0] for option in options} <= set(inspect.signature(function).parameters), where
        if name in called.WITHOUT_TARGET:
            continue
        variables = {called.variable(option, name) for option in options if option not in called.WITHOUT_VARIABLE}
        assert variables <= set(re.findall(r"\b([A-Z_]+)=", rules[called.TARGETS.get(name, name)])), where


def test_no_message_names_a_command_by_itself() -> None:
    """Docstrings may, as help is read beside `make help`; all other texts ask `pipeline.called`."""
    variables = "|".join({*re.findall(r"\b([A-Z]{3,})=", (TOP / "Makefile").read_text(encoding="utf-8"))} - {"KEY"})
    by_itself = re.compile(rf"\bmake ({TARGETS})\b|(^|[ `(])({variables})=")
    wrong = []
    for package in ("pipeline", "train", "eval", "costream"):
        for module in sorted({*(TOP / package).rglob("*.py")} - {Path(called.__file__)}):
            nodes = list(ast.walk(ast.parse(module.read_text(encoding="utf-8"))))
            documentation = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
            for node in nodes:
                if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
                    wrong += [f"{module.relative_to(TOP)}: {node.value}" for _ in by_itself.findall(node.value)]
    assert not wrong
