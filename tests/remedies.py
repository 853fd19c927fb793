"""What messages tell people to do, as the source has it, and which tests do it.

A remedy is text that an error gives as `remedy`, and any other text that names a command or an option. A test that
does what one says is marked with a part of its text: `@pytest.mark.remedy("give a new folder as RUN=")`. What only says
which values there are ("at most 16", "known: rgb, flow") is no remedy: nothing is to be done but to take one.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline import called
from pipeline.errors import Refusal

TOP = Path(__file__).resolve().parents[1]
PARAMETER = "remedy"
NAMES = {PARAMETER, "REMEDY", "REMOVE", "REPLACE", "FETCH", "MAKE_ROOM"}
POSITIONS = {"cannot_be": 1, "Wrong": 1, "_refusal": 2}  # of functions that take a remedy without naming it
VERBS = (
    "add|ask|choose|close|compare|compute|continue|copy|correct|delete|download|end|evaluate|export|extract|give|import"
    "|install|keep|leave|let|list|load|make|mend|move|name|note|open|pack|put|quote|read|remove|rename|repair|repeat"
    "|replace|restore|run|save|say|score|see|set|start|take|test|train|turn|unpack|use|wait|write"
)
TARGETS = "|".join(re.findall(r"^([a-z][a-z-]+):", (TOP / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
COMMAND = re.compile(
    rf"\bmake ({TARGETS})\b|(?<![\w-])--[a-z]\w+|python -m|pip install|\b[A-Z_]{{2,}}=|`(extract|remove|annotate)"
)
MAY_TELL = re.compile(rf"{'|'.join(map(re.escape, NAMES | POSITIONS.keys()))}|{COMMAND.pattern}|\bcalled\.")
BETWEEN_LITERALS = re.compile(r"\"\s+f?\"")
DOING = re.compile(rf"\b({VERBS})\b|\banother\b|{COMMAND.pattern}")


@functools.cache
def found() -> dict[str, str]:
    """Each remedy of the three packages, with its place; {} stands for what is filled in."""
    listed = {}
    for package in ("pipeline", "train", "eval"):
        for module in sorted({*(TOP / package).rglob("*.py")} - {Path(called.__file__)}):  # names none by itself
            code = module.read_text(encoding="utf-8")
            if not MAY_TELL.search(BETWEEN_LITERALS.sub("", code)):
                continue
            for node in texts(ast.parse(code)):
                text = written(node)
                listed.setdefault(text, f"{module.relative_to(TOP)}:{node.lineno}")
    return listed


def named_by(part: str) -> list[str]:
    """The remedies that a mark names: the one that it is, or else all that it is a part of."""
    return [part] if part in found() else [text for text in found() if part in text]


def texts(tree: ast.Module) -> Iterator[ast.expr]:
    nodes = list(ast.walk(tree))
    given = {id(part) for node in nodes for part in _given(node)}
    docstrings = {
        id(node.body[0].value)
        for node in nodes
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if node.body and isinstance(node.body[0], ast.Expr)
    }
    inside = {
        id(part) for node in nodes if isinstance(node, ast.JoinedStr) for part in ast.walk(node) if part is not node
    }
    inside |= {id(node.value) for node in nodes if isinstance(node, ast.keyword) and node.arg == "where"}
    for node in nodes:
        if isinstance(node, ast.Constant | ast.JoinedStr) and id(node) not in docstrings | inside:
            text = written(node)
            if DOING.search(text) if id(node) in given else " " in text and COMMAND.search(text):
                yield node


def _given(node: ast.AST) -> Iterator[ast.expr]:
    """The texts within what is given as a remedy, under its name or at its place."""
    values: list[ast.expr | None] = []
    if isinstance(node, ast.Call):
        values += [keyword.value for keyword in node.keywords if keyword.arg == PARAMETER]
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        if (place := POSITIONS.get(name, len(node.args))) < len(node.args):
            values.append(node.args[place])
    elif isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        if any(isinstance(target, ast.Name) and target.id in NAMES for target in targets):
            values.append(node.value)
    elif isinstance(node, ast.FunctionDef):
        named = [argument.arg for argument in node.args.args][::-1]
        values += [value for name, value in zip(named, node.args.defaults[::-1], strict=False) if name == PARAMETER]
    for value in filter(None, values):
        yield from (part for part in ast.walk(value) if isinstance(part, ast.Constant | ast.JoinedStr))


def written(node: ast.expr) -> str:
    if isinstance(node, ast.JoinedStr):
        return "".join(map(written, node.values))
    if isinstance(node, ast.FormattedValue):
        return called.in_source(node.value, "{}")
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


@functools.cache
def done() -> dict[str, str]:
    """Each part of a remedy that a test, or a case of one, is marked with, and where."""
    return {
        ast.literal_eval(part): f"{module.relative_to(TOP)}:{node.lineno}"
        for module in sorted((TOP / "tests").rglob("test_*.py"))
        if "remed" in (text := module.read_text(encoding="utf-8"))
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("pytest.mark.remedy", "remedies.case")
        for part in node.args
        if isinstance(part, ast.Constant) and isinstance(part.value, str)
    }


def case(part: str, wrong: Callable[[Path], Any], right: Callable[[Path], Any]) -> Any:
    """Of a parametrized test: what is refused with a remedy that has this part, and the same when it is followed. Both
    are given a folder, the second as the first left it."""
    return pytest.param(wrong, right, id=part, marks=pytest.mark.remedy(part))


def helps(wrong: Callable[[Path], Any], right: Callable[[Path], Any], folder: Path) -> None:
    with pytest.raises(Refusal):
        wrong(folder)
    right(folder)
