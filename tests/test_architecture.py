"""What the layout promises: who imports whom, how long things are, what lies at the top."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[1]
FORBIDDEN = {
    "pipeline": {"train", "eval", "costream", "tests"},
    "train": {"eval", "costream", "tests"},
    "eval": {"costream", "tests"},
    "costream": {"tests"},
    "tests": set(),
}
AT_TOP = {
    *FORBIDDEN,
    *"data_manifests docs Dockerfile Makefile mkdocs.yml pyproject.toml README.md CITATION.cff LICENSE".split(),
}
LONGEST_MODULE, LONGEST_FUNCTION = 400, 60
NAMES_THAT_SAY_NOTHING = {"utils.py", "util.py", "helpers.py", "misc.py", "common.py"}
Module = tuple[Path, str, ast.Module]


@pytest.fixture(scope="module", params=FORBIDDEN)
def modules(request: pytest.FixtureRequest) -> list[Module]:
    """Of a package: their files, below the top, their texts, and what those say."""
    read = [(path, path.read_text(encoding="utf-8")) for path in sorted((TOP / request.param).rglob("*.py"))]
    return [(path.relative_to(TOP), text, ast.parse(text)) for path, text in read]


def imported(tree: ast.Module) -> Iterator[str]:
    """Top-level names of all that is imported, inside functions too, and of modules named in registries ("a.b:C")."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute"
            yield (node.module or "").split(".")[0]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            name, dot, rest = node.value.partition(".")
            if (
                dot
                and name.isidentifier()
                and rest.replace(".", "").replace(":", "").isidentifier()
                and is_module(node.value)
            ):
                yield name


def is_module(text: str) -> bool:
    """Not "costream.jpeg", which is the name of a codec."""
    path = TOP.joinpath(*text.partition(":")[0].split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def test_imports_go_one_way(modules: list[Module]) -> None:
    wrong = {str(path): FORBIDDEN[path.parts[0]] & set(imported(tree)) for path, _, tree in modules}
    assert not {path: names for path, names in wrong.items() if names}


def test_modules_and_functions_are_short_and_named(modules: list[Module]) -> None:
    wrong = [fault for module in modules for fault in faults(*module)]
    assert not wrong, "\n".join(wrong)


def faults(path: Path, text: str, tree: ast.Module) -> Iterator[str]:
    """What is too long, or named by what says nothing."""
    if path.name in NAMES_THAT_SAY_NOTHING:
        yield f"{path}: a name that says nothing"
    if (lines := len(text.splitlines())) > LONGEST_MODULE:
        yield f"{path} has {lines} lines"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1 - _help_lines(node)
            if lines > LONGEST_FUNCTION:
                yield f"{path}, line {node.lineno}: {node.name} has {lines} lines"


def _help_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Of its docstring: a command's is the help of its options, which nobody wants shorter for the code's sake."""
    first = function.body[0]
    return (first.end_lineno or first.lineno) - first.lineno + 1 if ast.get_docstring(function) else 0


def test_an_import_against_the_direction_would_be_found() -> None:
    code = 'import numpy\ndef f():\n    from train.clips import random_clip\nNAMES = {"a": "eval.report:Report"}\n'
    assert {"numpy", "train", "eval"} <= set(imported(ast.parse(code)))


def test_what_is_too_long_or_badly_named_would_be_found() -> None:
    code = "\n".join(["def f():", *["    x = 1"] * LONGEST_FUNCTION, *["x = 1"] * LONGEST_MODULE])
    long = LONGEST_FUNCTION + 1
    assert list(faults(Path("a/utils.py"), code, ast.parse(code))) == [
        "a/utils.py: a name that says nothing",
        f"a/utils.py has {LONGEST_MODULE + long} lines",
        f"a/utils.py, line 1: f has {long} lines",
    ]


def test_nothing_else_lies_at_the_top() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=TOP, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("needs a git checkout")
    names = {name.partition("/")[0] for name in listed.stdout.splitlines()}
    assert {name for name in names if not name.startswith(".")} <= AT_TOP
