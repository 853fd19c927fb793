"""Arguments of all three packages' commands: what cannot be meant is refused before anything is read or written."""

from __future__ import annotations

import dataclasses
import inspect
import os
import types
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import pytest

from eval.__main__ import COMMANDS as EVAL
from pipeline import arguments, importers, storage
from pipeline.__main__ import COMMANDS as PIPELINE
from pipeline.commands import console
from pipeline.errors import Refusal, UsageError
from pipeline.extraction.workers.cluster import check_scheduler
from pipeline.storage import exclusive
from tests.faults import small
from train.__main__ import COMMANDS as TRAIN

COMMANDS = {
    f"{program} {name}": function
    for program, known in (("pipeline", PIPELINE), ("train", TRAIN), ("eval", EVAL))
    for name, function in known.items()
}
WRONG: dict[Any, list[Any]] = {  # by type, as the parser hands them over
    int: [-5, 10**13, 10**30],
    float: [-5.0, 1e300, float("nan"), float("inf"), float("-inf")],
    Path: [Path("pipe"), Path("x" * 300)],
    str: ["a\0b", "x" * 300, "deep/" * 1000, "\ud83d"],
}
TYPED = {int: "-5", float: "nan", Path: "", str: "x" * 300, bool: "perhaps", dict: "5", Literal: "nosuch"}
OF_PARTS = {"parameters", "running", "reader_settings"}  # whose values each estimator, or reader, checks


def plain_types(hint: Any) -> Iterator[tuple[Any, bool]]:
    """The types within a hint, each with whether a rule or a choice stands beside it."""
    kind, within = typing.get_origin(hint), typing.get_args(hint)
    if kind is Annotated:
        yield from ((plain, True) for plain, _ in plain_types(within[0]))
    elif kind is Literal:
        yield Literal, True
    elif kind in (list, tuple, typing.Union, types.UnionType):
        for part in within:
            if part not in (type(None), Ellipsis):
                yield from plain_types(part)
    else:
        yield kind or hint, False


def options(function: Callable[..., Any]) -> Iterator[tuple[str, Any]]:
    """Name and type of each option; of settings, those of their fields."""
    for name, hint in get_type_hints(function, include_extras=True).items():
        if dataclasses.is_dataclass(hint):
            of_fields = get_type_hints(hint, include_extras=True)
            yield from ((f"{name}.{field.name}", of_fields[field.name]) for field in dataclasses.fields(hint))
        elif name != "return":
            yield name, hint


def takes_several(hint: Any) -> bool:
    return typing.get_origin(hint) in (list, tuple) or any(map(takes_several, typing.get_args(hint)))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    return tmp_path


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_has_a_range_or_choices_that_rule_out_what_cannot_be_meant(command: str) -> None:
    for name, hint in options(COMMANDS[command]):
        for plain, ruled in plain_types(hint):
            assert ruled or plain is bool or (plain is dict and name.rpartition(".")[2] in OF_PARTS), name
        for wrong in WRONG.get(plain, []):

            def only(**_: Any) -> None: ...

            only.__annotations__ = {name: hint}
            with pytest.raises(Refusal, match=f"where: --{name}"):
                arguments.check(only, {name: [wrong] if takes_several(hint) else wrong})


@pytest.mark.usefixtures("parsers_made_once")
@pytest.mark.parametrize("command", COMMANDS)
def test_no_option_takes_what_cannot_be_meant(
    command: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    function, reached = COMMANDS[command], []

    def stands_in(*_: object, **__: object) -> None:
        reached.append(command)

    vars(stands_in)["__signature__"] = inspect.signature(function, eval_str=True)
    stands_in.__annotations__ = get_type_hints(function, include_extras=True)
    stands_in.__doc__ = function.__doc__
    given = inspect.signature(function).parameters.values()
    by_place = [parameter.name for parameter in given if parameter.kind is parameter.POSITIONAL_ONLY]
    needed = [parameter.name for parameter in given if parameter.default is parameter.empty]

    def outcome(option: str, value: str) -> tuple[int, str]:
        places = [value if name == option else "some" for name in by_place if name == option or name in needed]
        named = [f"--{name}=some" for name in needed if name not in (*by_place, option)]
        monkeypatch.setattr("sys.argv", ["program", "run", *named, f"--{option}={value}", *places])
        if option in by_place:
            monkeypatch.setattr("sys.argv", ["program", "run", *named, *places])
        try:
            code = console.main({"run": stands_in}, "", "program")
        except SystemExit as ended:
            code = int(ended.code or 0)
        return code, capsys.readouterr().err

    for option, hint in options(function):
        plain, _ = next(plain_types(hint))
        code, told = outcome(
            option, "[]" if typing.get_origin(hint) is Annotated and takes_several(hint) else TYPED[plain]
        )
        assert (code, option in told, "Traceback" in told) == (2, True, False), (option, told)
    assert reached == []
    assert [item.name for item in folder.iterdir()] == ["pipe"]


@pytest.mark.parametrize("word", ["[" * 600, "1" * 5000, "!!int x", "? a", "\ud83d"])
def test_odd_words_end_in_a_sentence(word: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    def run(
        number: arguments.Positive = 1, share: arguments.Share = 0.0, size: tuple[arguments.Positive, ...] = ()
    ) -> None: ...

    for option in ("number", "share", "size"):
        monkeypatch.setattr("sys.argv", ["program", "run", f"--{option}={word}"])
        with pytest.raises(SystemExit) as ended:
            console.main({"run": run}, "", "program")
        assert ended.value.code == 2
        assert option in capsys.readouterr().err


def test_settings_are_never_read_from_a_pipe(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    for words in (["--flow=pipe"], ["--rgb", "pipe"], ["--slurm=pipe"]):
        monkeypatch.setattr("sys.argv", ["pipeline", "extract", "--videos=v", "--store=s", *words])
        with pytest.raises(SystemExit) as ended:
            console.main({"extract": PIPELINE["extract"]}, "", "pipeline")
        assert ended.value.code == 2
        assert "pipe is a device, a pipe or a socket" in capsys.readouterr().err


def test_a_rule_that_is_broken_names_option_value_and_what_to_do() -> None:
    def command(count: arguments.Positive = 1, bound: arguments.Bound = 20.0) -> None: ...

    arguments.check(command, {"count": 3, "bound": 2.0})
    with pytest.raises(UsageError, match=r"count 0 is out of range\n  where: --count\n  to do: 1 to 1,000,000"):
        arguments.check(command, {"count": 0})
    with pytest.raises(UsageError, match=r"bound 1e\+300 is out of range"):
        arguments.check(command, {"bound": 1e300})


def test_a_store_lies_where_one_can_be() -> None:
    def command(store: arguments.StorePlace) -> None: ...

    for given in ("stores/a", "s3://bucket/a", "memory://a", "#a", "a b"):
        arguments.check(command, {"store": given})
    for given in ("http://127.0.0.1/a", "s3://", "s3:///a", "generic://a", "nosuch://a", ""):
        with pytest.raises(UsageError, match="where: --store"):
            arguments.check(command, {"store": given})


def test_an_output_replaces_files_only(tmp_path: Path) -> None:
    def command(out: arguments.OutputFile) -> None: ...

    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_text("old")
    for name in ("file", "new", "deep/new"):
        arguments.check(command, {"out": tmp_path / name})
    for place in (tmp_path, tmp_path / "pipe", Path("http:/127.0.0.1/x"), Path(".")):
        with pytest.raises(UsageError, match="where: --out"):
            arguments.check(command, {"out": place})


def test_nothing_is_written_into_a_store_but_by_the_store(tmp_path: Path) -> None:
    def command(
        out: arguments.OutputFile | None = None,
        folder: arguments.OutputFolder | None = None,
        place: arguments.OutputPlace | None = None,
        store: arguments.StorePlace = "s",
    ) -> None: ...

    store = small.store(small.make(tmp_path / "videos"), tmp_path / "store")
    (tmp_path / "link").symlink_to(store / "videos")
    given = {"out": None, "folder": None, "place": None, "store": str(store)}
    arguments.check(command, given)
    arguments.check(command, given | {"out": tmp_path / "a", "folder": tmp_path / "b", "place": tmp_path / "c"})
    for name in ("out", "folder", "place"):
        for place in (store / "x", store / "videos" / "walk" / "x", tmp_path / "link" / "x"):
            with pytest.raises(UsageError, match=f"{name} lies inside the store"):
                arguments.check(command, given | {name: place})
    with pytest.raises(UsageError, match="folder lies inside the store"):
        arguments.check(command, given | {"folder": store})
    with pytest.raises(UsageError, match="store cannot|store lies inside the store"):
        arguments.check(command, given | {"store": str(store / "another")})


@pytest.mark.parametrize("write", [storage.write, storage.write_atomically, storage.commit])
def test_what_is_written_never_goes_through_a_link_or_over_a_pipe(
    write: Callable[[Path, bytes], None], tmp_path: Path
) -> None:
    precious, out = tmp_path / "precious", tmp_path / "out"
    precious.write_text("precious")
    if write is storage.write:
        out.symlink_to(precious)
        with pytest.raises(OSError, match="symbolic links"):
            write(out, b"new")
    else:
        (tmp_path / "out.partial").symlink_to(precious)
        write(out, b"new")
        assert out.read_bytes() == b"new"
        assert not out.is_symlink()
    assert precious.read_text() == "precious"
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a regular file"):
        write(tmp_path / "pipe", b"new")
    assert (tmp_path / "pipe").is_fifo()


def test_nothing_is_written_over_what_is_read(tmp_path: Path) -> None:
    def command(first: arguments.Input, out: arguments.OutputFile, second: arguments.Input | None = None) -> None: ...

    one, two = tmp_path / "one", tmp_path / "two"
    one.touch()
    two.touch()
    for out in (tmp_path / "new", two):
        arguments.check(command, {"first": one, "out": out, "second": None})
    for given in ({"first": one, "out": one, "second": two}, {"first": two, "out": one, "second": one}):
        with pytest.raises(UsageError, match="is what is read"):
            arguments.check(command, given)


def test_a_lock_is_never_taken_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "lock").symlink_to("precious")
    with pytest.raises(OSError, match="symbolic links"), exclusive.held(tmp_path / "lock", Refusal):
        pytest.fail("it is held")
    assert (tmp_path / "precious").read_text() == "precious"


def test_what_is_written_aside_never_replaces_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a regular file"), storage.writing_aside(tmp_path / "pipe"):
        pytest.fail("nothing is written for what cannot be put in place")
    assert [item.name for item in tmp_path.iterdir()] == ["pipe"]


@pytest.mark.parametrize("content", ["root:x:0:0", "[]", '{"address": 3}', "{}"])
def test_a_file_that_no_scheduler_wrote_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text(content)
    with pytest.raises(UsageError, match="no scheduler file"):
        check_scheduler(str(tmp_path / "file"), 0)
    (tmp_path / "file").write_text('{"address": "tcp://127.0.0.1:1"}')
    check_scheduler(str(tmp_path / "file"), 0)


@pytest.mark.parametrize(
    "content",
    [
        "a: [b",
        "a: {b: c",
        "[]",
        "importer: [folder]",
        "importer: {a: b}",
        "3",
        "importer: ucf101\nsettings: {lists: 3}",
        "a: !!bool perhaps",
        "[" * 600,
    ],
)
def test_a_data_set_that_cannot_be_read_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text(content)
    with pytest.raises(UsageError, match="broken.yaml"):
        importers.read(str(tmp_path / "broken.yaml"), tmp_path)
