"""An option that takes a name or a path takes any: what YAML would read as something else stays text."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from eval.__main__ import COMMANDS as EVAL
from pipeline.__main__ import COMMANDS as PIPELINE
from pipeline.commands import console
from train.__main__ import COMMANDS as TRAIN

# fmt: off
ODD = [
    "#a", "&a", "&a b", "!a", "*a", "{a", "{a}", "{a: b}", "[a", "[a]", "[a, b]", "a [b]", "-a", "--a", "--store=x",
    "~", "null", "123", "1e3", "0x1", "1_0", "12:30", "yes", "true", "@file", "a: b", "a:", "%x", "`x", "|", "> x",
    "'q", '"q"', "- x", "---", "...", "?", "? a", " a ", "a #b", "é", "e\u0301", "..", "a\nb", "\n#b", "$x", "${x}",
    "$(x)", "{}", "[]", ";", "=", "\\", "\U0001f600", "here",
]
# fmt: on
FUNCTIONS = [(name, function) for commands in (PIPELINE, TRAIN, EVAL) for name, function in commands.items()]
TEXTS: dict[Any, type] = {str: str, str | None: str, Path: Path, Path | None: Path}
LISTS: dict[Any, type] = {list[str]: str, list[str] | None: str, list[Path]: Path}


TAKEN: dict[str, Any] = {}  # by the stand-in that was called last

pytestmark = pytest.mark.usefixtures("parsers_made_once")


@functools.cache
def stand_in(function: Callable) -> Callable:
    """A command with the same options, which notes what it is called with."""

    def record(*by_place: Any, **options: Any) -> None:
        TAKEN.clear()
        TAKEN.update(zip(places(function), by_place, strict=True), **options)

    vars(record)["__signature__"] = inspect.signature(function)
    record.__annotations__, record.__doc__ = get_type_hints(function), function.__doc__
    return record


def parsed(monkeypatch: pytest.MonkeyPatch, function: Callable, given: dict[str, str]) -> dict[str, Any]:
    """What the command would be called with."""
    options = [f"--{name}={value}" for name, value in given.items() if name not in places(function)]
    by_place = [given[name] for name in places(function) if name in given]
    monkeypatch.setattr(sys, "argv", ["program", "run", *options, *(["--"] if by_place else []), *by_place])
    assert console.main({"run": stand_in(function)}, "", "program") == 0
    return dict(TAKEN)


def places(function: Callable) -> list[str]:
    return [p.name for p in inspect.signature(function).parameters.values() if p.kind is p.POSITIONAL_ONLY]


def options(function: Callable) -> Iterator[tuple[str, Any]]:
    """Name and type of each option, also of the fields of settings."""
    hints = get_type_hints(function)
    for name in inspect.signature(function).parameters:
        yield name, hints[name]
        if dataclasses.is_dataclass(hints[name]):
            of_fields = get_type_hints(hints[name])
            yield from ((f"{name}.{f.name}", of_fields[f.name]) for f in dataclasses.fields(hints[name]) if f.init)


@pytest.mark.parametrize(("name", "function"), FUNCTIONS, ids=lambda given: given if isinstance(given, str) else "")
def test_every_text_of_every_command_stays_as_it_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, function: Callable
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").write_text("a: b\n")  # a file's content is not the option's value
    texts = {option: TEXTS[kind] for option, kind in options(function) if kind in TEXTS and "." not in option}
    lists = {option: LISTS[kind] for option, kind in options(function) if kind in LISTS}
    for first in range(0, len(ODD), 16):
        words = {option: ODD[(first + 3 * place) % len(ODD)] for place, option in enumerate(texts | lists)}
        given = words | {option: json.dumps([words[option]] * 2, ensure_ascii=False) for option in lists}
        taken = parsed(monkeypatch, function, given)
        wanted: dict[str, Any] = {option: kind(words[option]) for option, kind in texts.items()}
        wanted |= {option: [kind(words[option])] * 2 for option, kind in lists.items()}
        assert {option: taken[option] for option in wanted} == wanted


def test_every_odd_word_stays_as_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").write_text("a: b\n")

    def command(
        one: str, two: Path, /, *, a: str, b: str | None = None, c: Path | None = None, d: list[str] | None = None
    ) -> None:
        """Any.

        Args:
            one: x
            two: x
        """

    for word in ODD:
        given = dict.fromkeys(("one", "two", "a", "b", "c"), word) | {"d": json.dumps([word], ensure_ascii=False)}
        wanted = {"one": word, "two": Path(word), "a": word, "b": word, "c": Path(word), "d": [word]}
        assert parsed(monkeypatch, command, given) == wanted


def test_texts_within_settings_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    extract = PIPELINE["extract"]
    for word in ODD[::5]:
        given = {"videos": "v", "store": "s", "slurm.queue": word, "slurm.account": word}
        slurm = parsed(monkeypatch, extract, given)["slurm"]
        assert (slurm.queue, slurm.account) == (word, word)


def test_numbers_truth_values_sizes_and_mappings_are_still_read(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"videos": "v", "store": "s", "split": "2", "time_limit": "1e3", "overwrite": "yes", "decode.fps": "12.5"}
    given |= {"rgb.size": "[128, 171]", "flow.parameters": "{iterations: 12, tau: 0.25, on: true, name: x}"}
    taken = parsed(monkeypatch, PIPELINE["extract"], given)
    assert (taken["split"], taken["time_limit"], taken["overwrite"]) == (2, 1000.0, True)
    assert (taken["decode"].fps, taken["rgb"].size) == (12.5, (128, 171))
    many = {f"x{number}": "1" for number in range(200)}
    spelled = parsed(
        monkeypatch, PIPELINE["extract"], {"videos": "v", "store": "s", "flow": json.dumps({"parameters": many})}
    )
    assert len(spelled["flow"].parameters) == 200
    assert taken["flow"].parameters == {"iterations": 12, "tau": 0.25, "on": True, "name": "x"}


def test_what_is_no_number_is_refused_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    no_data = [("flow.parameters", "{x: &a [1], y: *a}"), ("rgb.size", "[!x 1, 2]")]
    for option, word in [("split", "two"), ("overwrite", "perhaps"), ("rgb.size", "[1, b]"), *no_data]:
        with pytest.raises(SystemExit) as stopped:
            parsed(monkeypatch, PIPELINE["extract"], {"videos": "v", "store": "s", option: word})
        assert stopped.value.code == 2
