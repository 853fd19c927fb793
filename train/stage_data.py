"""What a stage reads: the loader of each rank, and another one of the videos that are held out."""

from __future__ import annotations

from collections.abc import Iterator

from lightning.pytorch import LightningDataModule
from pydantic import ValidationError

from pipeline import called
from pipeline.errors import Refusal, counted
from pipeline.store import VideoStore
from train import augment, reader
from train.batches.batch import Batch
from train.batches.loader import ClipLoader
from train.batches.planning import Planner, Reading
from train.console import tell
from train.hardware import Hardware
from train.order import OrderSettings
from train.recipe import Recipe, StageSettings
from train.settings import check_number
from train.training_set import TrainingSet, of_splits


class StageData(LightningDataModule):
    """Gives Lightning the loader of each rank."""

    def __init__(
        self, recipe: Recipe, stage: StageSettings, store: VideoStore, training_set: TrainingSet, hardware: Hardware
    ) -> None:
        super().__init__()
        self.made_of = recipe, stage, store, training_set, hardware
        self.opened: list[ClipLoader] = []

    def train_dataloader(self) -> ClipLoader:
        loader = make_loader(*self.made_of, *self._place)
        self.opened.append(loader)
        return loader

    def held_out(self) -> Iterator[Batch]:
        """This rank's share of whole batches of the held-out videos, the same every time."""
        recipe, stage, store, training_set, hardware = self.made_of
        once, held_out = of_held_out(recipe, training_set)
        loader = make_loader(once, stage, store, held_out, hardware, *self._place)
        try:
            yield from loader
        finally:
            loader.close()

    def close(self) -> None:
        for loader in self.opened:
            loader.close()

    @property
    def _place(self) -> tuple[int, int, bool]:
        """Rank, number of ranks, and whether batches go to a GPU."""
        assert self.trainer is not None
        pin = self.trainer.strategy.root_device.type == "cuda"
        return self.trainer.global_rank, self.trainer.world_size, pin


def refuse_without_split(store: VideoStore, recipe: Recipe) -> None:
    """Raises Refusal where videos have labels and no split, and the recipe does not say which `splits` it means.

    Such is a data set whose test videos nobody told apart: a network that has seen them cannot be tested fairly any
    more.
    """
    if "splits" not in recipe.model_fields_set and (lack := store.annotated.without_split()):
        root = str(store.root)
        raise Refusal(
            lack,
            where=str(store.root),
            remedy=f"`{called.command('annotate', store=root, test_share='0.2')}` keeps a fifth for the test,"
            f" `{called.option('manifest')}` in its place gives the official split;"
            " or train on all of them: `--use_all true`, or `splits` in the recipe",
        )


def training_set_of(recipe: Recipe, stage: StageSettings, store: VideoStore) -> TrainingSet:
    """The videos of a stage of a recipe. Raises Refusal where there are none."""
    sampling = recipe.sampling_of(stage)
    return TrainingSet(
        of_splits(store, recipe.splits),
        str(store.root),
        least=sampling.least(recipe.clips),
        drop=sampling.short == "drop",
        share=recipe.held_out_share,
        seed=recipe.seed,
        needs_labels=stage.settings.needs_labels,
    )


def steps_of_epoch(recipe: Recipe, stage: StageSettings, store: VideoStore) -> int:
    order = training_set_of(recipe, stage, store).order(
        recipe.order, recipe.batch_of(stage), recipe.seed, recipe.accumulate
    )
    return len(order) // recipe.accumulate


def make_loader(
    recipe: Recipe,
    stage: StageSettings,
    store: VideoStore,
    training_set: TrainingSet,
    hardware: Hardware,
    rank: int = 0,
    world_size: int = 1,
    pin: bool = False,
) -> ClipLoader:
    """What a stage of the recipe reads on one rank. Raises Refusal as `ClipLoader` does."""
    policy = augment.policy(recipe.augmentation.name, **recipe.augmentation.settings)
    reading = Reading(recipe.clips, recipe.sampling_of(stage), policy, stage.settings.reads, recipe.seed)
    planner = Planner(reading, training_set, store.settings)
    order = training_set.order(recipe.order, recipe.batch_of(stage), recipe.seed, recipe.accumulate)
    check_number("hardware.ahead", hardware.ahead, whole=True, least=1)
    executor = reader.create(hardware.reader, store, hardware.threads, **hardware.reader_settings)
    return ClipLoader(planner, order, executor, rank, world_size, pin, hardware.ahead)


def of_held_out(recipe: Recipe, training_set: TrainingSet) -> tuple[Recipe, TrainingSet]:
    """What a loader of the held-out videos is made of: it reads each once."""
    return recipe.changed(order=OrderSettings(), accumulate=1), training_set.of_held_out()


def fitted(recipe: Recipe, store: VideoStore, ranks: int = 1) -> Recipe:
    """The recipe with batches that its training sets fill, where it allows that by `fit_batch`; which is told.

    A batch becomes the largest one that the videos fill `accumulate` times, that methods take and devices can share.
    Where there is none, and where batches fit, the recipe stays as it is.
    """
    if not recipe.fit_batch:
        return recipe
    room = min(len(training_set_of(recipe, stage, store)) for stage in recipe.stages) // recipe.accumulate
    largest = max(recipe.batch_of(stage) for stage in recipe.stages)
    if largest <= room:
        return recipe
    for batch in range(room - room % ranks, 0, -ranks):
        try:
            stages = [
                stage.changed(
                    batch=min(stage.batch, batch),
                    settings=stage.settings.of_batch(min(recipe.batch_of(stage), batch)),
                )
                for stage in recipe.stages
            ]
            smaller = recipe.of_stages(stages, batch=min(recipe.batch, batch))
        except ValidationError:
            continue
        told = "".join(sorted(_differences(recipe.stages, stages)))
        tell(
            f"a batch of {largest} is more than the {counted(room, 'training video')}: batch {batch}{told} (fit_batch)"
        )
        return smaller
    return recipe


def _differences(stages: list[StageSettings], smaller: list[StageSettings]) -> set[str]:
    """Of the methods' settings."""
    return {
        f", {key} {value} -> {now[key]}"
        for one, other in zip(stages, smaller, strict=True)
        for now in [other.settings.as_dict()]
        for key, value in one.settings.as_dict().items()
        if now[key] != value
    }
