"""Recipes: YAML files that say what is trained, checked key by key before anything starts."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, SerializeAsAny, ValidationInfo, field_validator, model_validator

from pipeline import called, yaml_file
from pipeline.errors import UsageError, refuse_unknown
from pipeline.manifest import SPLITS
from train import augment, methods, overrides, starts
from train.clips.spec import ClipSpec
from train.console import tell
from train.hardware.precision import TF32, TORCHS_TF32
from train.methods.method import MethodSettings
from train.order import OrderSettings
from train.sampling import AnySampling, Sampling
from train.sampling.random import Random
from train.settings import Settings, cannot_be, read, told_as_setting
from train.starts import GIVEN_RUN

FOLDER = Path(__file__).parent / "recipes"
FOLDERS_ON_LABELS = ("finetune", "probe")  # whose files are not named after methods
TAKEN = ("features",)  # a folder of evaluation's, beside those of the stages
STAGE_NAME = r"^[A-Za-z0-9_-]+$"  # a folder of the run
LARGEST_SEED = 2**32 - 1  # of NumPy's global random state

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
MoreSteps = Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(strict=False)]


class Augmentation(Settings):
    """A policy of `train.augment` by name, with its settings."""

    name: str
    settings: dict[str, Any] = {}

    @model_validator(mode="after")
    def _check(self) -> Augmentation:
        with told_as_setting():
            augment.policy(self.name, **self.settings)
        return self


class NeighbourSettings(Settings):
    """Nearest neighbours while training: `knn_top1` in the line of progress and in metrics.jsonl.

    A held-out video counts if the training video whose middle clip is most like its own has its class. Without labels,
    `same_video_top1`: if of all held-out videos' last clips its own is most like its first.

    Args:
        every: Steps between two looks; 0 for none, and then nothing is held out, unless a learning rate follows a
            held-out loss (schedule "plateau").
        share: Of the training videos to hold out, whole recordings.
        gallery: Training videos to compare with at most, drawn once.
    """

    every: int = Field(default=0, ge=0)
    share: float = Field(default=0.05, gt=0, le=0.5)
    gallery: int = Field(default=1000, ge=1)


class HeldOutSettings(Settings):
    """Classes of held-out videos while a classifier is trained: `held_out_top1` and `held_out_cross_entropy`.

    Each video's middle clip is classified. By `keep_best: {metric: held_out_top1, mode: max}` they choose the network.

    every: Steps between two looks; 0 for none, and then nothing is held out for it.
    share: Of the training videos to hold out, whole recordings.
    """

    every: int = Field(default=0, ge=0)
    share: float = Field(default=0.1, gt=0, le=0.5)


class StageSettings(Settings):
    """One training run of one method; stages follow each other as listed.

    Args:
        name: Of the stage's folder in the run.
        method: A name in `train.methods`.
        settings: Of the method.
        start: Role of the method -> an earlier stage, a file, or `<run>`: the run that `finetune` is given.
        epochs: How often the training goes through an epoch, which is every video once unless `order` says otherwise;
            or
        steps: how often the weights are moved.
        more_steps: By how many steps the stage was prolonged, each time that it was (`--more_steps`). A schedule with
            an end comes to it in the steps before, and then goes as `train.optim.PROLONGED` says.
        batch, precision, sampling: As the recipe's, for this stage; 0 and none: the recipe's.
    """

    name: str
    method: str
    settings: SerializeAsAny[MethodSettings] = Field(default={}, validate_default=True)
    start: dict[str, str] = {}
    epochs: int = Field(default=0, ge=0)
    steps: int = Field(default=0, ge=0)
    more_steps: MoreSteps = Field(default=(), exclude_if=lambda given: not given)  # runs of before say nothing of it
    batch: int = Field(default=0, ge=0)
    precision: Precision | None = None
    sampling: AnySampling | None = None

    @field_validator("method")
    @classmethod
    def _known_method(cls, given: str) -> str:
        with told_as_setting():
            methods.settings_of(given)
        return given

    @field_validator("settings", mode="plain")
    @classmethod
    def _of_the_method(cls, given: Any, stage: ValidationInfo) -> Any:
        if "method" not in stage.data:
            return given  # told of the method already
        return methods.settings_of(stage.data["method"]).model_validate(given)

    @model_validator(mode="after")
    def _check(self) -> StageSettings:
        if not re.fullmatch(STAGE_NAME, self.name) or self.name in TAKEN:
            raise cannot_be(
                f"{self.name!r} cannot be the name of a stage's folder in the run",
                f"letters, digits, _ and - ; and not {', '.join(TAKEN)}",
                "name",
            )
        if (self.epochs > 0) == (self.steps > 0):
            raise cannot_be("a stage has either epochs or steps", "give one of the two")
        return self

    def length(self, of_epoch: int) -> int:
        """Steps in all, where an epoch has so many."""
        return (self.steps or self.epochs * of_epoch) + sum(self.more_steps)


class KeepBest(Settings):
    """Which line of metrics.jsonl is the best one; its network is kept as best.ckpt.

    Args:
        metric: A name in metrics.jsonl, e.g. contrast_top1; none: no best.ckpt.
        mode: min or max: which value is better.
    """

    metric: str = ""
    mode: Literal["", "min", "max"] = ""

    @model_validator(mode="after")
    def _check(self) -> KeepBest:
        if bool(self.metric) != bool(self.mode):
            raise cannot_be("metric and mode go together", "give both, or none")
        return self


class Recipe(Settings):
    """Everything that decides what a run computes.

    Args:
        title: What it is, in a line.
        clips: Frames and size of a clip, and which views in which form.
        sampling: Which frames of which videos the clips of a sample show: see `train.sampling`.
        augmentation: What is done to pixels.
        batch: Videos in a pass through the network, over all devices: what a loss, a queue and batch norm get to see.
            A stage may give its own.
        stages: What is trained, in order.
        accumulate: Passes of a step, which averages their gradients: `accumulate` x `batch` videos move the weights
            once. All that counts steps counts moves of the weights, whatever this is: steps of a stage, learning-rate
            schedules, checkpoint_every, keep_every, log_every. A queue takes in `batch` keys with every pass, a
            momentum encoder follows once a step. An epoch leaves out the videos that do not fill its last step.
        clip_gradients: Largest norm of a step's gradient (of all weights together); 0: as it is.
        sync_batchnorm: Batch norm over the clips of all devices instead of each device's own. Needs GPUs.
        seed: Of weights, order, frames and pixels.
        splits: Which videos are trained on; "" are those without a split.
        order: Which videos an epoch holds, and in which order: see `train.order.OrderSettings`.
        precision: As Lightning names it. A stage may have its own.
        tf32: Where GPUs that can do so round float32 to TF32: none (published, by GPUs that could not), convolutions
            (torch's default), or all, matrix products included. Evaluation does as training did.
        checkpoint_every: Steps between checkpoints, of which the last one stays.
        keep_every: Steps between checkpoints that stay, as step-N.ckpt; 0: none.
        keep_best: The best checkpoint by a metric, as best.ckpt.
        log_every: Steps between lines of metrics.jsonl.
        neighbours: Nearest neighbours of held-out videos while training: see `NeighbourSettings`.
        held_out: Classes of held-out videos while training, for stages that classify: see `HeldOutSettings`.
        layer: Of the networks, by whose rows videos are compared, while training and by evaluation: see `Network`.
        fit_batch: Where a store has fewer training videos than `batch`, the batch becomes as large as they allow, which
            is told; false: such a store is refused. (The run's recipe has the batch that came of it.)
    """

    title: str
    clips: ClipSpec
    sampling: AnySampling = Random()
    augmentation: Augmentation
    batch: int = Field(ge=1)
    stages: list[StageSettings]
    seed: int = Field(default=0, ge=0, le=LARGEST_SEED)
    splits: list[str] = ["train", ""]
    order: OrderSettings = OrderSettings()
    precision: Precision = "32-true"
    tf32: TF32 = TORCHS_TF32
    accumulate: int = Field(default=1, ge=1)
    clip_gradients: float = Field(default=0.0, ge=0)
    sync_batchnorm: bool = False
    checkpoint_every: int = Field(default=50, ge=1)
    keep_every: int = Field(default=0, ge=0)
    keep_best: KeepBest = KeepBest()
    log_every: int = Field(default=10, ge=1)
    neighbours: NeighbourSettings = NeighbourSettings()
    held_out: HeldOutSettings = HeldOutSettings()
    layer: str = "backbone"
    fit_batch: bool = Field(default=False, exclude=True)

    @field_validator("splits")
    @classmethod
    def _known_splits(cls, given: list[str]) -> list[str]:
        for split in given:
            if split not in SPLITS:
                with told_as_setting():
                    refuse_unknown("split", split, SPLITS)
        return given

    @model_validator(mode="after")
    def _check(self) -> Recipe:
        if self.accumulate > 1 and self.order.last == "keep":
            raise cannot_be(
                "a step that accumulates batches has no place for a smaller one",
                "order.last: drop, or accumulate: 1",
                "order.last",
            )
        if self.held_out.every and not any(stage.settings.needs_labels for stage in self.stages):
            raise cannot_be("no stage of the recipe classifies", "neighbours, or every: 0", "held_out.every")
        names = [stage.name for stage in self.stages]
        if not names or len(set(names)) != len(names):
            raise cannot_be("a recipe needs stages, each with a name of its own", f"now: {names}", "stages")
        for place, stage in enumerate(self.stages):
            with told_as_setting(f"stages[{place}].settings"):
                for stream in stage.settings.reads:
                    if stream not in self.channels:
                        refuse_unknown("stream", stream, self.channels)
                stage.settings.check_batch(self.batch_of(stage))
            lengths = self.sampling_of(stage).lengths(self.clips)
            from_run = GIVEN_RUN in stage.start.values()  # which will give parts of the network
            for stream, network in () if from_run else stage.settings.networks.items():
                with told_as_setting("clips"):
                    for length in lengths:
                        network.check_clips(length, self.clips.stream(stream).size)
                        stage.settings.check_length(length)
                if self.layer not in network.layers:
                    with told_as_setting("layer"):
                        refuse_unknown("layer", self.layer, network.layers)
            with told_as_setting(f"stages[{place}].start"):
                starts.check(
                    stage.method,
                    stage.settings,
                    stage.start,
                    {other.name: other.settings for other in self.stages[:place]},
                )
        return self

    @functools.cached_property
    def channels(self) -> dict[str, int]:
        """Stream -> channels of its clips."""
        return self.clips.channels()

    @property
    def held_out_share(self) -> float:
        """Of the training videos, which are held out where something looks at them: neighbours, a rate, classes."""
        watched = self.neighbours.every or any(stage.settings.optimiser.schedule == "plateau" for stage in self.stages)
        return max(self.neighbours.share if watched else 0.0, self.held_out.share if self.held_out.every else 0.0)

    def of_classes(self, names: list[str]) -> Recipe:
        """The recipe for videos of these classes, in the order of their labels."""
        return self.of_stages([stage.changed(settings=stage.settings.of_classes(names)) for stage in self.stages])

    def of_stages(self, stages: Sequence[StageSettings], **others: Any) -> Recipe:
        """The recipe with other stages, and other values, checked again. What it says itself, and what by default, is
        still known."""
        said = {name: getattr(self, name) for name in self.model_fields_set}
        return Recipe(**said | others | {"stages": list(stages)})

    def precision_of(self, stage: StageSettings) -> Precision:
        return stage.precision or self.precision

    def batch_of(self, stage: StageSettings) -> int:
        """Videos in a pass of a stage, over all devices."""
        return stage.batch or self.batch

    def sampling_of(self, stage: StageSettings) -> Sampling:
        """Which clips the samples of a stage have."""
        return stage.sampling or self.sampling


def find(recipe: str, method: str) -> Path:
    """The file of a recipe: a path, or the name of a folder in train/recipes, which has one file per method."""
    if recipe.endswith((".yaml", ".yml")):
        path = Path(recipe)
        if not path.is_file():
            raise UsageError(
                "there is no such recipe", where=recipe, remedy="give a YAML file, or the name of a folder"
            )
        return path
    known = folders()
    if recipe not in known:
        refuse_unknown("recipe", recipe, known, where=str(FOLDER))
    path = FOLDER / recipe / f"{method}.yaml"
    if not path.is_file():
        elsewhere = [
            folder for folder in known if folder not in FOLDERS_ON_LABELS and (FOLDER / folder / path.name).is_file()
        ]
        kind = f"method in recipe {recipe}"
        if elsewhere:
            raise UsageError(
                f'unknown {kind} "{method}"',
                where=str(FOLDER / recipe),
                remedy=f"another {called.option('recipe')}: {' or '.join(elsewhere)} has a file of it",
            )
        refuse_unknown(kind, method, methods_of(recipe), where=str(FOLDER / recipe))
    return path


def folders() -> list[str]:
    """Those of train/recipes."""
    return sorted(path.name for path in FOLDER.iterdir() if path.is_dir())


def methods_of(recipe: str) -> list[str]:
    """The methods that a folder of train/recipes has a file of."""
    return sorted(path.stem for path in (FOLDER / recipe).glob("*.yaml"))


def load(path: Path, seed: int | None = None, changes: Sequence[str] = ()) -> Recipe:
    """Read and check a recipe. Raises UsageError naming file, key and nearest spelling.

    seed: replaces the file's. changes: see `train.overrides`; what they change is told.
    """
    try:
        data = yaml_file.read(path, UniqueKeys)
    except ValueError as error:
        raise UsageError(f"the recipe cannot be read: {error}", where=str(path), remedy="it is a YAML file") from error
    where = str(path)
    if isinstance(data, dict):
        if seed is not None:
            data["seed"] = seed
        if changes:
            data, told = overrides.changed(data, changes)
            where = f"{path}, changed by {' '.join(f'--set {change}' for change in changes)}"
    loaded = read(Recipe, data, where)
    if changes:
        tell(f"changed in the recipe: {', '.join(told)}")
    return loaded


class UniqueKeys(yaml_file.Loader):
    """Refuses a key that is given twice, of which YAML readers silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key in [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"the key {key.value!r} is given twice", problem_mark=key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)
