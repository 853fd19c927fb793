"""What the documentation takes from the code: `make docs` puts it where a page says `<!-- made: NAME -->`."""

from __future__ import annotations

import ast
import dataclasses
import html
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import docstring_parser
from mkdocs.structure.files import File, Files

import train  # noqa: F401  (mends torchvision before lightning is imported)

# isort: split
from eval.__main__ import COMMANDS as EVAL
from eval.protocols import PROTOCOLS, Windows
from pipeline import called, importers
from pipeline.__main__ import COMMANDS as PIPELINE
from pipeline.errors import Refusal
from pipeline.show.preview import contact_sheet
from pipeline.store import open_store
from train.__main__ import COMMANDS as TRAIN
from train.augment import POLICIES
from train.clips.spec import ClipSpec, StreamSettings
from train.methods import METHODS, settings_of
from train.networks.settings import NetworkSettings
from train.optim import OptimiserSettings
from train.order import OrderSettings
from train.recipe import HeldOutSettings, KeepBest, NeighbourSettings, Recipe, StageSettings
from train.sampling import SAMPLINGS

TOP = Path(__file__).resolve().parents[1]
DEMO = TOP / "data" / "synthetic" / "store"
PICTURES = 4  # of the gallery, each of another class
MARK = re.compile(r"<!-- made: (\w+) -->")
REFUSING = {"Refusal", "UsageError", "cannot_be"}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """MkDocs calls it with each page."""
    return MARK.sub(lambda found: MADE[found[1]](), markdown)


def on_files(files: Files, config: Any) -> Files:
    """And with all files: the gallery's pictures are those of the demo's store."""
    for number, sheet in enumerate(_sheets()):
        _, png = cv2.imencode(".png", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
        files.append(File.generated(config, f"gallery/{number}.png", content=png.tobytes()))
    return files


def recipes() -> str:
    """Every key of a recipe, from the types that check it."""
    parts = [
        ("A recipe", Recipe),
        ("clips", ClipSpec),
        ("clips.streams", StreamSettings),
        ("order", OrderSettings),
        ("stages", StageSettings),
        ("neighbours", NeighbourSettings),
        ("held_out", HeldOutSettings),
        ("keep_best", KeepBest),
        ("optimiser, of a method's settings", OptimiserSettings),
        ("The network, among a method's settings", NetworkSettings),
        *((f"sampling: {{name: {name}}}", SAMPLINGS.find(name)) for name in SAMPLINGS.names),
        *((f"augmentation: {{name: {name}}}", POLICIES.find(name)) for name in POLICIES.names),
    ]
    made = [f"## {title}\n\n{_first(kind)}\n\n{_keys(kind)}" for title, kind in parts]
    shared = set(NetworkSettings.model_fields) | {"optimiser"}
    for name in METHODS.names:
        kind = settings_of(name)
        made.append(f"## settings of {name}\n\n{_first(METHODS.find(name))}\n\n{_keys(kind, without=shared)}")
    return "\n\n".join(made)


def commands() -> str:
    """Every command and its options."""
    made = []
    for package, listed in (("pipeline", PIPELINE), ("train", TRAIN), ("eval", EVAL)):
        for name, function in listed.items():
            described = docstring_parser.parse(function.__doc__ or "")
            text = (inspect.getdoc(function) or "").partition("\nArgs:")[0].strip()
            rows = [
                (f"`--{p.name}`", _shown(p.default), _cell(_of(described, p.name)))
                for p in inspect.signature(function).parameters.values()
            ]
            table = _table(("option", "default", "what it says"), rows)
            made.append(f"## python -m {package} {name}\n\n{_plain(text)}\n\n{table}")
    return "\n\n".join(made)


def data_sets() -> str:
    """The data sets of `data_manifests`, with their known counts."""
    rows = []
    for name in importers.names():
        told = importers.describe(name)
        known = told.get("known", {})
        counts = ", ".join(f"{known[split]:,} {split}" for split in ("train", "val", "test") if split in known)
        rows.append((f"`{name}`", told["title"], told["importer"], counts, str(known.get("classes") or "")))
    return _table(("DATASET=", "what it is", "importer", "videos", "classes"), rows)


def protocols() -> str:
    rows = [(f"`{name}`", one.words, ", ".join(one.methods)) for name, one in PROTOCOLS.items()]
    details = [
        f"## {name}\n\n{_table(('', 'features', 'classifiers'), _looks(one.features, one.classifier))}"
        for name, one in PROTOCOLS.items()
    ]
    return _table(("protocol", "what it does", "by default for"), rows) + "\n\n" + "\n\n".join(details)


def refusals() -> str:
    """Whatever the program refuses with words of its own, and the remedy that it prints, package by package."""
    made = []
    for package in ("pipeline", "train", "eval"):
        rows = sorted(set(found for path in sorted((TOP / package).rglob("*.py")) for found in _refusals(path)))
        made.append(f"## {package}\n\n{_table(('what is wrong', 'what to do'), rows)}")
    return "\n\n".join(made)


def gallery() -> str:
    shown = [f"![A contact sheet of the demo's store](gallery/{number}.png)" for number, _ in enumerate(_sheets())]
    return "\n\n".join(shown) or "*There is no store of the demo yet: `make demo`, then `make docs` again.*"


MADE: dict[str, Callable[[], str]] = {
    made.__name__: made for made in (recipes, commands, data_sets, protocols, refusals, gallery)
}


def _refusals(path: Path) -> Iterator[tuple[str, str]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.func.id not in REFUSING:
            continue
        given = {keyword.arg: keyword.value for keyword in node.keywords}
        remedy = given.get("remedy") or (node.args[1] if node.func.id == "cannot_be" and len(node.args) > 1 else None)
        what, to_do = (_cell(_words(part)) for part in (node.args[0] if node.args else None, remedy))
        if what and to_do:
            yield what, to_do


def _words(node: ast.expr | None) -> str:
    """A text of the code, with … for what is only known when it is told; empty where nothing else would be left."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            words = "".join(
                part.value if isinstance(part, ast.Constant) else called.in_source(part.value, "…") for part in parts
            )
            return words if words.strip("… ") else ""
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return f"{_words(left) or '…'}{_words(right) or '…'}"
        case ast.IfExp(body=body, orelse=otherwise):
            return " / ".join(filter(None, (_words(body), _words(otherwise))))
    return ""


def _keys(kind: Any, without: set[str] = frozenset()) -> str:  # type: ignore[assignment]
    """A table of the settings that a class has: pydantic's fields, or the arguments that it is made with."""
    described = docstring_parser.parse(kind.__doc__ or "")
    inherited = [docstring_parser.parse(base.__doc__ or "") for base in kind.__mro__[1:] if base.__doc__]
    rows = []
    for name, (annotation, default) in _fields(kind).items():
        if name not in without:
            words = _of(described, name) or next(filter(None, (_of(base, name) for base in inherited)), "")
            rows.append((f"`{name}`", _cell(_type(annotation)), _shown(default), _cell(words)))
    return _table(("key", "type", "default", "what it says"), rows) if rows else "*No settings of its own.*"


def _fields(kind: Any) -> dict[str, tuple[Any, Any]]:
    if hasattr(kind, "model_fields"):
        return {
            name: (field.annotation, inspect.Parameter.empty if field.is_required() else field.get_default())
            for name, field in kind.model_fields.items()
        }
    return {p.name: (p.annotation, p.default) for p in inspect.signature(kind).parameters.values()}


def _type(annotation: Any) -> str:
    name = inspect.formatannotation(annotation) if not isinstance(annotation, str) else annotation
    short = re.sub(r"\b(?:[a-z_]+\.)+(?=[A-Z])", "", name).replace("typing.", "").replace("NoneType", "none")
    return short if len(short) < 90 else short[:87] + "..."


def _of(described: docstring_parser.Docstring, name: str) -> str:
    for param in described.params:
        if name in [word.strip() for word in param.arg_name.split(",")]:
            return param.description or ""
    return ""


def _first(kind: Any) -> str:
    return _plain((inspect.getdoc(kind) or "").partition("\n\n")[0])


def _shown(value: Any) -> str:
    if value is inspect.Parameter.empty:
        return "*needed*"
    if dataclasses.is_dataclass(value) or hasattr(value, "model_fields"):
        return "see below"
    return f"`{value}`" if value not in ("", None) else ""


def _looks(*looks: Any) -> list[tuple[str, ...]]:
    return [
        (field.name, *(_cell(_in_words(getattr(look, field.name))) for look in looks))
        for field in dataclasses.fields(looks[0])
    ]


def _in_words(value: Any) -> str:
    if isinstance(value, Windows):
        return f"{value.count} {value.kind}" if value.kind in ("uniform", "random") else value.kind
    return "–" if value is None or value == "" else str(value)


def _sheets() -> list[Any]:
    """Contact sheets of the demo's store, if there is one."""
    try:
        store = open_store(DEMO)
    except Refusal:
        return []
    of_class = {store.info(video).label: video for video in reversed(store.videos)}
    return [contact_sheet(store, video) for _, video in sorted(of_class.items())[:PICTURES]]


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(text: str) -> str:
    return html.escape(" ".join(text.split()), quote=False).replace("|", "\\|")


def _plain(text: str) -> str:
    return "\n\n".join(_cell(part) for part in text.split("\n\n"))
