"""What is printed is data: brackets stay, and no name steers the terminal."""

from __future__ import annotations

import ast
import contextlib
import gc
import io
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.table import Table

from pipeline.commands import starting
from pipeline.terminal import Terminal, marked, visible

TOP = Path(__file__).resolve().parents[2]
ODD = [
    "x [a]",
    "[bold]b[/bold]",
    "[/]",
    "\\[a]",
    ":smile:",
    "a\x1b[31mred",
    "a\rb",
    "\x9b2J",
    "a\u202egpj.mp4",
    "é e\u0301",
]


@pytest.mark.parametrize("name", ODD)
def test_lines_marked_words_and_tables_show_names_as_they_are(name: str) -> None:
    terminal = Terminal()
    terminal.file = io.StringIO()
    terminal.print(f"into {name}")
    terminal.print(marked("note", "yellow", f"into {name}"))
    table = Table("column", title=name, box=None, padding=0, title_justify="left")
    table.add_row(name)
    terminal.print(table)
    line, note, title, _, cell = [text.rstrip() for text in terminal.file.getvalue().split("\n")][:5]
    told = visible(name)
    assert (line, note, title, cell) == (f"into {told}", f"note into {told}", told, told)
    assert told.isprintable()


def test_names_without_such_letters_stay_to_the_letter() -> None:
    for name in ("x [a]", "a\tb\nc", "é", "e\u0301", "\U0001f600", "日本"):
        assert visible(name) == name
    assert visible("a\x1b[1m\r\u202e\x9b") == "a\\x1b[1m\\r\\u202e\\x9b"


def test_a_log_says_again_what_takes_long_and_nothing_once_it_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.terminal.PAUSE", 0.05)
    log = Terminal()
    log.file = io.StringIO()
    status = log.status("checking [a]")
    with status, status:  # as a command's and that of what it imports
        deadline = time.monotonic() + 60
        while log.file.getvalue().count("\n") < 3:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    first, *others = said = log.file.getvalue().splitlines()
    assert first == "checking [a]"
    assert all(re.fullmatch(r"checking \[a\]: \d+ s so far", line) for line in others)
    time.sleep(0.2)
    assert log.file.getvalue().splitlines() == said


def test_no_module_has_a_console_that_would_read_names_as_markup() -> None:
    for package in ("pipeline", "train", "eval"):
        for module in (TOP / package).rglob("*.py"):
            if module != TOP / "pipeline" / "terminal.py":
                assert not _reading_markup(module.read_text()), module


def test_a_console_that_reads_markup_would_be_found_fails() -> None:
    assert _reading_markup("from rich.console import Console\nConsole(stderr=True)\n") == {"Console"}
    assert _reading_markup("from rich.progress import TextColumn\nTextColumn('{task.description}')\n") == {"TextColumn"}
    assert not _reading_markup("from rich.progress import TextColumn\nTextColumn('{a}', markup=False)\n")


def _reading_markup(code: str) -> set[str]:
    if not re.search(r"\b(Console|escape|TextColumn)\b", code):
        return set()
    calls = [
        node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    ]
    found = {
        node.func.id for node in calls if isinstance(node.func, ast.Name) and node.func.id in ("Console", "escape")
    }
    columns = [node for node in calls if isinstance(node.func, ast.Name) and node.func.id == "TextColumn"]
    described = [node for node in columns if "task.description" in ast.unparse(node)]
    return found | {"TextColumn" for node in described if "markup" not in {keyword.arg for keyword in node.keywords}}


def test_one_of_a_kind_is_told_as_one() -> None:
    """What commands say counts by `counted`, as "1 videos" is what a first try shows."""
    noun = "videos|frames|clips|classes|runs|recipes|files|pairs|threads|workers|sheets"
    several = re.compile(rf"(?<!of )\{{[^{{}}]*\}} (?:{noun})\b(?!/s)")
    commands = ["eval/commands.py", "eval/splits.py", "train/commands.py", "train/file_commands.py", "train/stages.py"]
    stores = ["pipeline/importers/matching.py", "pipeline/store/annotated.py", "pipeline/store/table.py"]
    for module in [*(TOP / "pipeline" / "commands").glob("*.py"), *(TOP / name for name in commands + stores)]:
        assert several.findall(module.read_text(encoding="utf-8")) == [], module


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_terminal_that_lacks_letters_gets_escapes(encoding: str) -> None:
    code = (
        "from pipeline.terminal import *; escape_unknown_letters();"
        "Terminal().print('a \u2265 \U0001f600 \\udcff'); Terminal(stderr=True).print('\u2265')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, env={"PYTHONIOENCODING": encoding}, cwd=TOP, check=True
    )
    shown = done.stdout.decode(encoding)
    assert shown == "a \u2265 \U0001f600 \\udcff\n".encode(encoding, "backslashreplace").decode(encoding)


@pytest.mark.parametrize(("terminal", "said"), [(False, "reading [a]\n"), (True, "")])
def test_what_goes_on_is_a_line_that_stays_where_none_can_be_taken_back(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, said: str
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    console = Terminal()
    console.file, console._force_terminal = io.StringIO(), terminal
    with console.status("reading [a]"):
        assert console.file.getvalue().replace("\x1b[?25l", "").startswith(said)
        assert ("\x1b" in console.file.getvalue()) is terminal


@pytest.mark.parametrize("collecting", [True, False])
def test_packages_are_imported_without_looking_for_garbage_and_then_it_is_looked_for_as_before(
    collecting: bool,
) -> None:
    before = gc.isenabled()
    (gc.enable if collecting else gc.disable)()
    try:
        frozen = gc.get_freeze_count()
        with contextlib.suppress(ImportError), starting.importing():
            made = [{}]
            assert not gc.isenabled()
            raise ImportError
        assert gc.isenabled() is collecting
        assert gc.get_freeze_count() > frozen and made
    finally:
        (gc.enable if before else gc.disable)()
