"""What a run is executed on."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass, field
from typing import Literal

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from pipeline.arguments import Cores, Name
from pipeline.errors import UsageError
from train.settings import check_number


def reading_threads(asked: int = 0) -> int:
    """Of a reader: as many as are asked for; 0 takes one for each core, eight at most."""
    return asked or min(8, len(os.sched_getaffinity(0)))


@dataclass(frozen=True)
class Hardware:
    """What a run is executed on. It changes what is computed in the order of sums, and where a network has batch norm
    in its statistics: each device takes them over its own clips, as the published systems do.

    Args:
        reader: Executor of clip plans: opencv, dali or auto (opencv; with a CUDA device the faster one).
        threads: Of the reader.
        accelerator: cpu, gpu or auto.
        devices: How many.
        compile: Compile the networks (torch.compile): faster steps after a first one that takes minutes.
    """

    reader: Name = "auto"
    threads: Cores = field(default_factory=reading_threads)
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: Cores = 1
    compile: bool = False


def device(hardware: Hardware, precision: str, sync_batchnorm: bool) -> torch.device:
    """What this process trains on. Raises UsageError for devices that are missing, or cannot do what a recipe asks."""
    check_number("hardware.threads", hardware.threads, whole=True, least=1)
    check_number("hardware.devices", hardware.devices, whole=True, least=1)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            trainer = Trainer(
                accelerator=hardware.accelerator, devices=hardware.devices, logger=False, enable_checkpointing=False
            )
    except MisconfigurationException as error:
        raise UsageError(str(error), where="hardware", remedy="other --hardware options, or none") from error
    found = trainer.strategy.root_device
    if found.type != "cpu":
        return found
    if precision == "16-mixed":  # Lightning would go on in another precision
        raise UsageError(
            "a CPU does not train in precision 16-mixed", where="precision", remedy="32-true or bf16-mixed"
        )
    if sync_batchnorm and hardware.devices > 1:
        raise UsageError(
            f"torch's synchronised batch norm works on GPUs only, these are {hardware.devices} CPU processes",
            where="sync_batchnorm",
            remedy="--hardware.devices 1, GPUs, or sync_batchnorm: false in the recipe",
        )
    return found
