"""Recipes: YAML files that say what is trained, checked key by key before anything starts."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import UsageError, refuse_unknown
from pipeline.manifest import SPLITS
from train import augment, methods
from train.callbacks.neighbours import NeighbourSettings
from train.loader import ClipSettings
from train.methods.method import Method
from train.networks.network import check_fit
from train.order import OrderSettings
from train.settings import check_number

FOLDER = Path(__file__).parent / "recipes"
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
TAKEN = ("features",)  # a folder of evaluation's, beside those of the stages
LARGEST_SEED = 2**32 - 1  # of NumPy's global random state


@dataclass(frozen=True)
class Augmentation:
    """A policy of `train.augment` by name, with its settings."""

    name: str
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class EvaluationSettings:
    """How evaluation cuts frames: the whole frame, or a centred square of this fraction of the short side."""

    crop: float | str = "whole"


@dataclass(frozen=True)
class StageSettings:
    """One training run of one method; stages follow each other as listed.

    Args:
        name: Of the stage's folder in the run.
        method: A name in `train.methods`.
        settings: Of the method.
        epochs: How often the training goes through an epoch, which is every video once unless `order` says otherwise; or
        steps: how often the weights are moved.
        batch: As the recipe's, for this stage; 0: the recipe's.
    """

    name: str
    method: str
    settings: dict[str, Any] = field(default_factory=dict)
    start: dict[str, str] = field(default_factory=dict)
    epochs: int = 0
    steps: int = 0
    batch: int = 0


@dataclass(frozen=True)
class KeepBest:
    """Which line of metrics.jsonl is the best one; its network is kept as best.ckpt.

    Args:
        metric: A name in metrics.jsonl, e.g. contrast_top1; none: no best.ckpt.
        mode: min or max: which value is better.
    """

    metric: str = ""
    mode: str = ""


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what a run computes.

    Args:
        title: What it is, in a line.
        clips: Frames and size of a clip.
        augmentation: What is done to pixels.
        batch: Videos in a pass through the network, over all devices: what a loss, a queue and batch norm get to see.
            A stage may give its own.
        stages: What is trained, in order.
        accumulate: Passes of a step, which averages their gradients: `accumulate` x `batch` videos move the weights once.
            All that counts steps counts moves of the weights, whatever this is: steps of a stage, learning-rate
            schedules, checkpoint_every, keep_every, log_every. A queue takes in `batch` keys with every pass, a momentum
            encoder follows once a step. An epoch leaves out the videos that do not fill its last step.
        clip_gradients: Largest norm of a step's gradient (of all weights together); 0: as it is.
        sync_batchnorm: Batch norm over the clips of all devices instead of each device's own. Needs GPUs.
        seed: Of weights, order, frames and pixels.
        splits: Which videos are trained on; "" are those without a split.
        order: Which videos an epoch holds, and in which order: see `train.order.OrderSettings`.
        precision: As Lightning names it: 32-true, bf16-mixed or 16-mixed.
        checkpoint_every: Steps between checkpoints, of which the last one stays.
        keep_every: Steps between checkpoints that stay, as step-N.ckpt; 0: none.
        keep_best: The best checkpoint by a metric, as best.ckpt.
        log_every: Steps between lines of metrics.jsonl.
        neighbours: Nearest neighbours of held-out videos while training: see `train.callbacks.neighbours`.
        evaluation: How evaluation cuts frames.
    """

    title: str
    clips: ClipSettings
    augmentation: Augmentation
    batch: int
    stages: list[StageSettings]
    seed: int = 0
    splits: list[str] = field(default_factory=lambda: ["train", ""])
    order: OrderSettings = field(default_factory=OrderSettings)
    precision: str = "32-true"
    accumulate: int = 1
    clip_gradients: float = 0.0
    sync_batchnorm: bool = False
    checkpoint_every: int = 50
    keep_every: int = 0
    keep_best: KeepBest = field(default_factory=KeepBest)
    log_every: int = 10
    neighbours: NeighbourSettings = field(default_factory=NeighbourSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)

    def method_settings(self, stage: StageSettings) -> dict[str, Any]:
        """What the method of a stage is made with: its settings, and the channels that the augmentation gives networks."""
        policy = augment.policy(self.augmentation.name, **self.augmentation.settings)
        return {**stage.settings, "channels": policy.channels}

    def batch_of(self, stage: StageSettings) -> int:
        """Videos in a pass of a stage, over all devices."""
        return stage.batch or self.batch

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as they are written to RUN/recipe.yaml."""
        values = _plain(dataclasses.asdict(self))
        for stage in values["stages"]:
            # Runs that are older than this choice lack it: left out where it is not made, they are still this recipe's.
            if not stage["batch"]:
                del stage["batch"]
        return values


def find(recipe: str, method: str) -> Path:
    """The file of a recipe: a path, or the name of a folder in train/recipes, which has one file per method."""
    if recipe.endswith((".yaml", ".yml")):
        path = Path(recipe)
        if not path.is_file():
            raise UsageError(
                "there is no such recipe", where=recipe, remedy="give a YAML file, or the name of a folder"
            )
        return path
    known = sorted(path.name for path in FOLDER.iterdir() if path.is_dir())
    if recipe not in known:
        refuse_unknown("recipe", recipe, known, where=str(FOLDER))
    methods_known = sorted(path.stem for path in (FOLDER / recipe).glob("*.yaml"))
    if method not in methods_known:
        refuse_unknown(f"method in recipe {recipe}", method, methods_known, where=str(FOLDER / recipe))
    return FOLDER / recipe / f"{method}.yaml"


def load(path: Path, seed: int | None = None) -> Recipe:
    """Read and check a recipe. Raises UsageError naming file, key and nearest spelling; `seed` replaces the file's."""
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeys)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"the recipe cannot be read: {error}", where=str(path), remedy="it is a YAML file") from error
    recipe: Recipe = _parse(Recipe, data, str(path), "")
    if seed is not None:
        recipe = dataclasses.replace(recipe, seed=seed)
    _check(recipe, str(path))
    return recipe


class _UniqueKeys(yaml.SafeLoader):
    """Refuses a key that is given twice, of which YAML readers silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for place, key in enumerate(keys):
            if key.value in [earlier.value for earlier in keys[:place]]:
                raise yaml.constructor.ConstructorError(
                    problem=f"the key {key.value!r} is given twice", problem_mark=key.start_mark
                )
        return super().construct_mapping(node, deep)


def _check(recipe: Recipe, where: str) -> None:
    check_number(f"{where}: batch", recipe.batch, whole=True, least=1)
    check_number(f"{where}: seed", recipe.seed, whole=True, least=0, most=LARGEST_SEED)
    for key in ("length", "stride"):
        check_number(f"{where}: clips.{key}", getattr(recipe.clips, key), whole=True, least=1)
    for side in recipe.clips.size:
        check_number(f"{where}: clips.size", side, whole=True, least=1)
    for key in ("accumulate", "checkpoint_every", "log_every"):
        check_number(f"{where}: {key}", getattr(recipe, key), whole=True, least=1)
    check_number(f"{where}: keep_every", recipe.keep_every, whole=True, least=0)
    check_number(f"{where}: clip_gradients", recipe.clip_gradients, least=0)
    if recipe.accumulate > 1 and recipe.order.last == "keep":
        raise UsageError(
            "a step that accumulates batches has no place for a smaller one",
            where=f"{where}: order.last",
            remedy="order.last: drop, or accumulate: 1",
        )
    if bool(recipe.keep_best.metric) != bool(recipe.keep_best.mode):
        raise UsageError("metric and mode go together", where=f"{where}: keep_best", remedy="give both, or none")
    if recipe.keep_best.mode not in ("", "min", "max"):
        refuse_unknown("mode", recipe.keep_best.mode, ("min", "max"), where=f"{where}: keep_best.mode")
    if recipe.precision not in PRECISIONS:
        refuse_unknown("precision", recipe.precision, PRECISIONS, where=f"{where}: precision")
    for split in recipe.splits:
        if split not in SPLITS:
            refuse_unknown("split", split, SPLITS, where=f"{where}: splits")
    with _within(f"{where}: augmentation"):
        if "flow_bound" in recipe.augmentation.settings:
            raise _said_elsewhere("flow_bound", "the store says up to which bound its flow goes")
        augment.policy(recipe.augmentation.name, **recipe.augmentation.settings)
    with _within(f"{where}: evaluation"):
        augment.policy("evaluate", crop=recipe.evaluation.crop)
    names = [stage.name for stage in recipe.stages]
    if not names or len(set(names)) != len(names):
        raise UsageError(
            "a recipe needs stages, each with a name of its own", where=f"{where}: stages", remedy=f"now: {names}"
        )
    earlier: dict[str, Method] = {}
    for place, stage in enumerate(recipe.stages):
        earlier[stage.name] = _check_stage(recipe, stage, earlier, f"{where}: stages[{place}]")


def _check_stage(recipe: Recipe, stage: StageSettings, earlier: dict[str, Method], where: str) -> Method:
    if not re.fullmatch(r"[A-Za-z0-9_-]+", stage.name) or stage.name in TAKEN:
        raise UsageError(
            f"{stage.name!r} cannot be the name of a stage's folder in the run",
            where=f"{where}.name",
            remedy=f"letters, digits, _ and - ; and not {', '.join(TAKEN)}",
        )
    for key in ("epochs", "steps", "batch"):
        check_number(f"{where}.{key}", getattr(stage, key), whole=True, least=0)
    if (stage.epochs > 0) == (stage.steps > 0):
        raise UsageError("a stage has either epochs or steps", where=where, remedy="give one of the two")
    # Every setting of every stage is checked before the first one starts.
    with _within(f"{where}.settings"):
        if "channels" in stage.settings:
            raise _said_elsewhere(
                "channels", "the augmentation says how many channels networks are given: see its `flow`"
            )
        method = methods.create(stage.method, **recipe.method_settings(stage))
        method.check_batch(recipe.batch_of(stage))
    _check_start(stage, method, earlier, f"{where}.start")
    return method


def _check_start(stage: StageSettings, method: Method, earlier: dict[str, Method], where: str) -> None:
    for role in method.needed_starts:
        if role not in stage.start:
            raise UsageError(
                f"{stage.method} needs a trained network as {role}",
                where=where,
                remedy=f"start: {{{role}: <an earlier stage, or a file>}}",
            )
    for role, given in stage.start.items():
        if role not in method.starts:
            refuse_unknown("role", role, method.starts, where=where)
        stream, encoders = method.starts[role]
        if given in earlier:
            found = earlier[given].encoders
            if stream not in found:
                raise UsageError(
                    f"stage {given!r} has no {stream} network, which {role} is to start from",
                    where=where,
                    remedy=f"it has {', '.join(found)}; give a stage that trains {stream}",
                )
            with _within(where):
                check_fit(found[stream], encoders[0], given)
        elif not Path(given).is_file():
            refuse_unknown("earlier stage (and there is no such file)", given, earlier, where=f"{where}.{role}")


def _said_elsewhere(key: str, where_instead: str) -> UsageError:
    return UsageError(f"{key} is not a recipe's to say", where=key, remedy=f"leave it out: {where_instead}")


@contextlib.contextmanager
def _within(where: str) -> Iterator[None]:
    """Puts the recipe's file and key before what a part of it says of its settings."""
    try:
        yield
    except UsageError as error:
        place = f"{where}: {error.where}" if error.where else where
        raise UsageError(error.what, where=place, remedy=error.remedy) from error


def _parse(kind: Any, data: Any, where: str, key: str) -> Any:
    """`data` from YAML as the annotated type `kind`; `key` is the path to it within the file."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _parse_fields(kind, data, where, key)
    if origin is list and isinstance(data, list):
        return [_parse(arguments[0], item, where, f"{key}[{place}]") for place, item in enumerate(data)]
    if origin is tuple and isinstance(data, list) and len(data) == len(arguments):
        return tuple(_parse(part, item, where, key) for part, item in zip(arguments, data, strict=True))
    if origin is dict and isinstance(data, dict) and all(isinstance(name, str) for name in data):
        return data
    allowed = arguments if origin is types.UnionType else (kind,)
    plain = tuple(part for part in allowed if isinstance(part, type))
    if float in plain:
        plain += (int,)
    taken_for_a_number = isinstance(data, bool) and bool not in plain
    if origin in (None, types.UnionType) and isinstance(data, plain) and not taken_for_a_number:
        return data
    raise UsageError(
        f"{data!r} is not {_name(kind)}", where=f"{where}: {key or 'top level'}", remedy="correct the value"
    )


def _parse_fields(kind: Any, data: Any, where: str, key: str) -> Any:
    if not isinstance(data, dict):
        raise UsageError(
            f"{data!r} is not a mapping", where=f"{where}: {key or 'top level'}", remedy="see train/recipes"
        )
    types_ = typing.get_type_hints(kind)
    for name in data:
        if name not in types_:
            refuse_unknown("key", name, types_, where=f"{where}: {key or 'top level'}")
    required = [
        item.name
        for item in dataclasses.fields(kind)
        if item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
    ]
    missing = [name for name in required if name not in data]
    if missing:
        raise UsageError(f"{missing[0]} is missing", where=f"{where}: {key or 'top level'}", remedy="add it")
    prefix = f"{key}." if key else ""
    values = {name: _parse(types_[name], value, where, prefix + name) for name, value in data.items()}
    with _within(f"{where}: {key or 'top level'}"):
        return kind(**values)


def _name(kind: Any) -> str:
    """An annotated type in words."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        return " or ".join(_name(part) for part in arguments)
    if origin is tuple:
        return f"a list of {len(arguments)}, each {_name(arguments[0])}"
    words = {bool: "true or false", int: "a whole number", str: "text", float: "a number"}
    words |= {list: "a list", dict: "a mapping of names"}
    return words[origin or kind]


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
