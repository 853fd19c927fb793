"""Where the figures of a run go beside metrics.jsonl: to TensorBoard, and to Weights & Biases or MLflow if asked."""

from __future__ import annotations

import importlib.util
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from pipeline import storage
from pipeline.errors import UsageError
from train.console import LEADER

LoggerName = Literal["tensorboard", "wandb", "mlflow"]
PROJECT = "costream"


def refuse_missing(name: LoggerName) -> None:
    """Raises UsageError where the package of a logger is not installed."""
    if importlib.util.find_spec(name) is None:
        remedy = f"pip install 'costream[{name}]', or leave --logger out"
        raise UsageError(f"{name} is not installed", where="--logger", remedy=remedy)


@contextmanager
def of_stage(name: LoggerName, run: Path, stage: str) -> Iterator[list[Logger]]:
    """TensorBoard's files, RUN/<stage>/tensorboard, and the one that is asked for.

    There each stage is a run of its own, which the stage's id, RUN/<stage>/<name>.txt, finds again when it goes on. The
    environment says where it is (WANDB_MODE, WANDB_PROJECT, MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME, ...); without
    it MLflow's files lie in RUN/mlruns.
    """
    folder = run / stage
    usual = TensorBoardLogger(str(folder), name="", version="tensorboard")
    path, title = folder / f"{name}.txt", f"{run.name}, {stage}"
    known = path.read_text(encoding="utf-8").strip() if path.is_file() else None
    if name == "mlflow":
        experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        where = os.environ.get("MLFLOW_TRACKING_URI", (run / "mlruns").absolute().as_uri())
        if where.startswith("file:"):
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # or MLflow 3.17 refuses every folder
        logger: Logger = MLFlowLogger(experiment, title, where, run_id=known)
    elif name == "wandb":
        known = known or uuid.uuid4().hex
        project = os.environ.get("WANDB_PROJECT", PROJECT)
        logger = WandbLogger(title, run, project=project, id=known, group=run.name)
    else:
        yield [usual]
        return
    if LEADER and not path.is_file():
        found = logger.run_id if isinstance(logger, MLFlowLogger) else known
        with storage.writing("the run", run):
            storage.make_folder(folder)
            storage.write_atomically(path, f"{found}\n".encode())
    try:
        yield [usual, logger]
    finally:
        if isinstance(logger, WandbLogger):
            logger.experiment.finish()  # or the next stage would be the same run there
