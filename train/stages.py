"""Run a recipe: its stages one after the other, each from where it stopped."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml
from lightning.pytorch import LightningDataModule, Trainer, seed_everything
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from pipeline import environment, storage
from pipeline.errors import Refusal, UsageError
from pipeline.settings import differences
from pipeline.store import VideoStore
from train import augment, checkpoints
from train.checkpoints import METADATA
from train.loader import ClipLoader
from train.methods.method import Method
from train.recipe import Recipe, StageSettings
from train.record import Bar, Checkpoints, Metrics, WholeFiles
from train.settings import check_number

logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # its hints name no file and repeat every stage


@dataclass(frozen=True)
class Hardware:
    """What a run is executed on. It changes what is computed in the order of sums, and where a network has batch norm
    in its statistics: each device takes them over its own clips, as the published systems do.

    Args:
        reader: Executor of clip plans: opencv, dali or auto (dali with a CUDA device).
        threads: Of the reader.
        accelerator: cpu, gpu or auto.
        devices: How many.
    """

    reader: str = "auto"
    threads: int = field(default_factory=lambda: min(8, len(os.sched_getaffinity(0))))
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: int = 1


class Stopped(Exception):
    """Training was asked to stop by a signal and has written its checkpoint."""

    def __init__(self, number: int, step: int) -> None:
        super().__init__(number, step)
        self.number, self.step = number, step


def checkpoint_path(run: Path, stage: str) -> Path:
    return run / stage / "checkpoints" / "last.ckpt"


def check(recipe: Recipe, store: VideoStore, hardware: Hardware) -> None:
    """Raise Refusal for what would stop any stage later: see `ClipLoader`. Nothing is written."""
    check_number("hardware.threads", hardware.threads, whole=True, least=1)
    check_number("hardware.devices", hardware.devices, whole=True, least=1)
    videos = training_videos(recipe, store)
    for stage in recipe.stages:
        module = checkpoints.create(stage.method, recipe.method_settings(stage), recipe.seed)
        make_loader(recipe, module, store, videos, hardware, world_size=hardware.devices).close()


def prepare(run: Path, recipe: Recipe) -> None:
    """Make the run's folder and write RUN/recipe.yaml; or see that it belongs to this recipe. Raises Refusal."""
    if run.exists() and not run.is_dir():
        raise Refusal("the run's path is a file", where=str(run), remedy="give a folder that does not exist yet")
    path, wanted = run / "recipe.yaml", recipe.as_dict()
    if path.is_file():
        found = differences(_read_recipe(path), wanted)
        if found:
            raise Refusal(
                "the run belongs to another recipe:\n    " + "\n    ".join(found),
                where=str(path),
                remedy="give another RUN=, or the recipe that it was started with; nothing was changed",
            )
        return
    if run.is_dir() and any(item.name != "recipe.yaml.partial" for item in run.iterdir()):
        raise Refusal("this folder is not empty and not a run", where=str(run), remedy="give a new folder as RUN=")
    with checkpoints.writing("the run", run):
        run.mkdir(parents=True, exist_ok=True)
        storage.write_atomically(path, yaml.safe_dump(wanted, sort_keys=False, allow_unicode=True).encode())


def run_stage(recipe: Recipe, stage: StageSettings, store: VideoStore, run: Path, hardware: Hardware) -> bool:
    """Train one stage to its end, from its checkpoint if there is one. False if it was finished already.

    Raises Stopped after a signal, and Refusal for a checkpoint that is not of this run.
    """
    videos = training_videos(recipe, store)
    module = checkpoints.create(stage.method, recipe.method_settings(stage), recipe.seed)
    facts = _facts(recipe, stage, store, videos, module)
    path = checkpoint_path(run, stage.name)
    resume = path.exists()
    if resume:
        checkpoint = checkpoints.read(path)
        _refuse_other(checkpoint[METADATA], facts, path)
        if checkpoint[METADATA]["finished"]:
            return False
        checkpoints.load_strictly(module, checkpoint["state_dict"], str(path))
    data = _StageData(recipe, module, store, videos, hardware)
    keeper = Checkpoints(path, recipe.checkpoint_every, facts)
    steps = stage.steps or stage.epochs * (len(videos) // recipe.batch)
    with warnings.catch_warnings():
        # Lightning warns of its own pytree use and of loaders without workers; ours has threads of its own.
        warnings.filterwarnings("ignore", module="lightning")
        trainer = _trainer(recipe, steps, run / stage.name, hardware, keeper)
        seed_everything(recipe.seed, verbose=False)  # for what draws while it trains, such as dropout
        try:
            trainer.fit(module, datamodule=data, ckpt_path=str(path) if resume else None, weights_only=True)
        finally:
            data.close()
    if keeper.stopped_by:
        raise Stopped(keeper.stopped_by, trainer.global_step)
    return True


def training_videos(recipe: Recipe, store: VideoStore) -> list[str]:
    """The videos of the recipe's splits. Raises Refusal when there are none."""
    chosen = [video for video, info in store.infos.items() if info.split in recipe.splits]
    if not chosen:
        present = sorted({info.split or '""' for info in store.infos.values()})
        raise Refusal(
            f"no video of the splits {recipe.splits} is in the store",
            where=str(store.root),
            remedy=f"its videos are of the splits {', '.join(present) or 'none at all'}; see `splits` in the recipe",
        )
    return chosen


def make_loader(
    recipe: Recipe,
    module: Method,
    store: VideoStore,
    videos: list[str],
    hardware: Hardware,
    rank: int = 0,
    world_size: int = 1,
) -> ClipLoader:
    """What a stage of the recipe reads on one rank. Raises Refusal as `ClipLoader` does."""
    settings = dict(recipe.augmentation.settings)
    if "flow" in store.settings:
        settings["flow_bound"] = store.settings["flow"]["bound"]
    return ClipLoader(
        store,
        videos,
        module.streams,
        recipe.clips,
        augment.policy(recipe.augmentation.name, **settings),
        module.views_per_video,
        recipe.batch,
        recipe.seed,
        executor=hardware.reader,
        threads=hardware.threads,
        rank=rank,
        world_size=world_size,
    )


class _StageData(LightningDataModule):
    """Gives Lightning the loader of each rank."""

    def __init__(
        self, recipe: Recipe, module: Method, store: VideoStore, videos: list[str], hardware: Hardware
    ) -> None:
        super().__init__()
        self.recipe, self.module, self.store, self.videos, self.hardware = recipe, module, store, videos, hardware
        self.opened: list[ClipLoader] = []

    def train_dataloader(self) -> ClipLoader:
        assert self.trainer is not None
        rank, world_size = self.trainer.global_rank, self.trainer.world_size
        loader = make_loader(self.recipe, self.module, self.store, self.videos, self.hardware, rank, world_size)
        self.opened.append(loader)
        return loader

    def close(self) -> None:
        for loader in self.opened:
            loader.close()


def _trainer(recipe: Recipe, steps: int, folder: Path, hardware: Hardware, keeper: Checkpoints) -> Trainer:
    """Raises UsageError for devices that are not there, or that cannot compute in the recipe's precision."""
    try:
        trainer = Trainer(
            accelerator=hardware.accelerator,
            devices=hardware.devices,
            precision=recipe.precision,  # type: ignore[arg-type]
            max_epochs=-1,
            max_steps=steps,
            logger=TensorBoardLogger(str(folder), name="", version="tensorboard"),
            # A step's line is written before its checkpoint, and the bar shows up once signals are caught.
            callbacks=[Metrics(folder / "metrics.jsonl", recipe.log_every), keeper, Bar(folder.name)],
            plugins=[WholeFiles()],
            log_every_n_steps=recipe.log_every,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
            use_distributed_sampler=False,
        )
    except MisconfigurationException as error:
        raise UsageError(str(error), where="hardware", remedy="other --hardware options, or none") from error
    if recipe.precision == "16-mixed" and trainer.strategy.root_device.type == "cpu":
        # Lightning would go on in another precision.
        raise UsageError(
            "a CPU does not train in precision 16-mixed", where="precision", remedy="32-true or bf16-mixed"
        )
    return trainer


def _facts(
    recipe: Recipe, stage: StageSettings, store: VideoStore, videos: list[str], module: Method
) -> dict[str, Any]:
    """What a checkpoint records of where it comes from."""
    policy = augment.policy(recipe.augmentation.name, **recipe.augmentation.settings)
    clip = {
        "length": recipe.clips.length,
        "stride": recipe.clips.stride,
        "size": list(recipe.clips.size),
        "crop": recipe.evaluation.crop,
        "flow": policy.flow,
        "statistics": policy.statistics,
    }
    return {
        "method": stage.method,
        "stage": stage.name,
        "streams": list(module.encoders),
        "seed": recipe.seed,
        "clip": clip,
        "recipe_hash": _hash(recipe.as_dict()),
        "store_settings_hash": store.settings_hash,
        "store_videos_hash": videos_hash(store, videos),
        "versions": environment.versions(),
    }


def _refuse_other(found: dict[str, Any], facts: dict[str, Any], path: Path) -> None:
    """Raises Refusal if a checkpoint's facts say that it was made from something else."""
    meaning = {
        "stage": "another stage",
        "recipe_hash": "another recipe",
        "store_settings_hash": "a store with other settings",
        "store_videos_hash": "other videos: the store has changed since",
    }
    for key, what in meaning.items():
        if found[key] != facts[key]:
            raise Refusal(
                f"the checkpoint was made with {what}",
                where=str(path),
                remedy="continue with what it was made with, or give another RUN= to start anew",
            )


def _read_recipe(path: Path) -> dict[str, Any]:
    """A run's recipe as it was written. Raises Refusal for a file that is damaged."""
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise Refusal(
            f"the run's recipe cannot be read: {error}", where=str(path), remedy="give another RUN="
        ) from error
    if not isinstance(found, dict):
        raise Refusal("the run's recipe is damaged", where=str(path), remedy="give another RUN=")
    return found


def videos_hash(store: VideoStore, videos: list[str]) -> str:
    """Tells whether these videos, byte for byte, are what a checkpoint was trained on."""
    return _hash([(video, store.info(video).digest) for video in videos])


def _hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
