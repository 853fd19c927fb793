"""Run a recipe: its stages one after the other, each from where it stopped."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from pipeline import environment
from pipeline.errors import Refusal
from pipeline.settings import differences
from pipeline.store import VideoStore
from train import augment, checkpoints
from train.loader import ClipLoader
from train.methods.method import Method
from train.recipe import Recipe, StageSettings
from train.record import Bar, Checkpoints, Metrics

logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # its hints name no file and repeat every stage


@dataclass(frozen=True)
class Hardware:
    """What a run is executed on; never changes what it computes beyond the order of sums.

    Args:
        reader: Executor of clip plans: opencv, dali or auto (dali with a CUDA device).
        threads: Of the reader.
        accelerator: cpu, gpu or auto.
        devices: How many.
    """

    reader: str = "auto"
    threads: int = field(default_factory=lambda: min(8, len(os.sched_getaffinity(0))))
    accelerator: str = "auto"
    devices: int = 1


class Stopped(Exception):
    """Training was asked to stop by a signal and has written its checkpoint."""

    def __init__(self, number: int, step: int) -> None:
        super().__init__(number, step)
        self.number, self.step = number, step


def checkpoint_path(run: Path, stage: str) -> Path:
    return run / stage / "checkpoints" / "last.ckpt"


def prepare(run: Path, recipe: Recipe) -> None:
    """Make the run's folder and write RUN/recipe.yaml; or see that it belongs to this recipe. Raises Refusal."""
    if run.exists() and not run.is_dir():
        raise Refusal("the run's path is a file", where=str(run), remedy="give a folder that does not exist yet")
    path, wanted = run / "recipe.yaml", recipe.as_dict()
    if path.is_file():
        found = differences(yaml.safe_load(path.read_text(encoding="utf-8")), wanted)
        if found:
            raise Refusal(
                "the run belongs to another recipe:\n    " + "\n    ".join(found),
                where=str(path),
                remedy="give another RUN=, or the recipe that it was started with; nothing was changed",
            )
        return
    if run.is_dir() and any(run.iterdir()):
        raise Refusal("this folder is not empty and not a run", where=str(run), remedy="give a new folder as RUN=")
    run.mkdir(parents=True, exist_ok=True)
    aside = path.with_name("recipe.yaml.partial")
    aside.write_text(yaml.safe_dump(wanted, sort_keys=False, allow_unicode=True), encoding="utf-8")
    os.replace(aside, path)


def run_stage(recipe: Recipe, stage: StageSettings, store: VideoStore, run: Path, hardware: Hardware) -> bool:
    """Train one stage to its end, from its checkpoint if there is one. False if it was finished already.

    Raises Stopped after a signal, and Refusal for a checkpoint that is not of this run.
    """
    videos = training_videos(recipe, store)
    facts = _facts(recipe, stage, store, videos)
    path = checkpoint_path(run, stage.name)
    resume = path if path.is_file() else None
    if resume and _is_finished(resume, facts):
        return False
    module = checkpoints.create(stage.method, stage.settings, recipe.seed)
    facts["streams"] = list(module.streams)
    data = _StageData(recipe, module, store, videos, hardware)
    loader = data.loader(rank=0, world_size=1)  # refuses what cannot work before a trainer is built
    folder = run / stage.name
    folder.mkdir(parents=True, exist_ok=True)
    keeper = Checkpoints(path, recipe.checkpoint_every, facts)
    trainer = Trainer(
        accelerator=hardware.accelerator,
        devices=hardware.devices,
        precision=recipe.precision,  # type: ignore[arg-type]
        max_epochs=-1,
        max_steps=stage.steps or stage.epochs * len(loader),
        logger=TensorBoardLogger(str(folder), name="", version="tensorboard"),
        callbacks=[
            Metrics(folder / "metrics.jsonl", recipe.log_every),
            Bar(stage.name, recipe.batch * module.views_per_video),
            keeper,
        ],
        log_every_n_steps=recipe.log_every,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        use_distributed_sampler=False,
    )
    with warnings.catch_warnings():
        # Lightning warns of its own pytree use and of loaders without workers; ours has threads of its own.
        warnings.filterwarnings("ignore", module="lightning")
        trainer.fit(module, datamodule=data, ckpt_path=str(resume) if resume else None, weights_only=False)
    if keeper.stopped_by is not None and trainer.global_step < trainer.max_steps:
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


class _StageData(LightningDataModule):
    """Gives Lightning the loader of each rank."""

    def __init__(
        self, recipe: Recipe, module: Method, store: VideoStore, videos: list[str], hardware: Hardware
    ) -> None:
        super().__init__()
        self.recipe, self.module, self.store, self.videos, self.hardware = recipe, module, store, videos, hardware

    def train_dataloader(self) -> ClipLoader:
        assert self.trainer is not None
        return self.loader(self.trainer.global_rank, self.trainer.world_size)

    def loader(self, rank: int, world_size: int) -> ClipLoader:
        flow = self.store.settings.get("flow")
        settings = dict(self.recipe.augmentation.settings)
        if flow is not None:
            settings["flow_bound"] = flow["bound"]
        return ClipLoader(
            self.store,
            self.videos,
            self.module.streams,
            self.recipe.clips,
            augment.policy(self.recipe.augmentation.name, **settings),
            self.module.views_per_video,
            self.recipe.batch,
            self.recipe.seed,
            executor=self.hardware.reader,
            threads=self.hardware.threads,
            rank=rank,
            world_size=world_size,
        )


def _facts(recipe: Recipe, stage: StageSettings, store: VideoStore, videos: list[str]) -> dict[str, Any]:
    """What a checkpoint records of where it comes from."""
    contents = [(video, store.info(video).digest) for video in videos]
    clip = {
        "length": recipe.clips.length,
        "stride": recipe.clips.stride,
        "size": list(recipe.clips.size),
        "crop": recipe.evaluation.crop,
    }
    return {
        "method": stage.method,
        "stage": stage.name,
        "seed": recipe.seed,
        "clip": clip,
        "recipe_hash": _hash(recipe.as_dict()),
        "store_settings_hash": store.settings_hash,
        "store_videos_hash": _hash(contents),
        "versions": environment.versions(),
    }


def _is_finished(path: Path, facts: dict[str, Any]) -> bool:
    """Whether the checkpoint is of the stage's end. Raises Refusal if it was made from something else."""
    found = checkpoints.metadata(path)
    meaning = {"recipe_hash": "another recipe", "store_settings_hash": "a store with other settings"}
    meaning["store_videos_hash"] = "other videos: the store has changed since"
    for key, what in meaning.items():
        if found[key] != facts[key]:
            raise Refusal(
                f"the checkpoint was made with {what}",
                where=str(path),
                remedy="continue with what it was made with, or give another RUN= to start anew",
            )
    return found["finished"]


def _hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
