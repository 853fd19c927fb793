"""What a run is executed on."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.plugins.environments import ClusterEnvironment, SLURMEnvironment, TorchElasticEnvironment
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from pipeline.arguments import Cores, Name
from pipeline.errors import UsageError, counted
from train.settings import check_number

AHEAD = 2  # batches that are made while the network works; more would only hold memory


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
        reader_settings: Of the reader, by name (dali: decoder_load, preallocate).
        ahead: Batches that are made while the network works. Each takes memory; more than two were not measured.
        accelerator: cpu, gpu or auto.
        devices: How many, of each node.
        nodes: Machines that train together, on each of which torchrun or SLURM starts a process for each device.
        compile: Compile the networks (torch.compile): faster steps after a first one that takes minutes.
    """

    reader: Name = "auto"
    threads: Cores = field(default_factory=reading_threads)
    reader_settings: dict[str, Any] = field(default_factory=dict)
    ahead: Cores = AHEAD
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: Cores = 1
    nodes: Cores = 1
    compile: bool = False

    @property
    def ranks(self) -> int:
        """Processes that train together."""
        return self.nodes * self.devices


def in_words(found: torch.device, devices: int) -> str:
    """What a run computes on, as reports name it."""
    if found.type == "cuda":
        return f"{devices} x {torch.cuda.get_device_name(found)}"
    several = f"{counted(devices, 'process', 'processes')} of " if devices > 1 else ""
    return f"{_processor()}, {several}{counted(torch.get_num_threads(), 'thread')}"


def _processor() -> str:
    """Name of the CPU, where the system tells it; otherwise its kind."""
    with contextlib.suppress(OSError):
        if named := re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE):
            return f"the CPU ({named[1].strip()})"
    return f"the CPU ({platform.machine()})"


def device(hardware: Hardware, precision: str, sync_batchnorm: bool) -> torch.device:
    """What this process trains on. Raises UsageError for devices that are missing, or cannot do what a recipe asks."""
    check_number("hardware.threads", hardware.threads, whole=True, least=1)
    check_number("hardware.devices", hardware.devices, whole=True, least=1)
    check_number("hardware.nodes", hardware.nodes, whole=True, least=1)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            trainer = Trainer(
                accelerator=hardware.accelerator,
                devices=hardware.devices,
                num_nodes=hardware.nodes,
                plugins=started_by(hardware),  # type: ignore[arg-type]
                logger=False,
                enable_checkpointing=False,
            )
    except (MisconfigurationException, ValueError, RuntimeError) as error:  # the latter two of an environment
        raise UsageError(str(error), where="hardware", remedy="other --hardware options, or none") from error
    found = trainer.strategy.root_device
    if found.type != "cpu":
        return found
    if precision == "16-mixed":  # Lightning would go on in another precision
        raise UsageError(
            "a CPU does not train in precision 16-mixed", where="precision", remedy="32-true or bf16-mixed"
        )
    if sync_batchnorm and hardware.ranks > 1:
        raise UsageError(
            f"torch's synchronised batch norm works on GPUs only, these are {hardware.ranks} CPU processes",
            where="sync_batchnorm",
            remedy="--hardware.devices 1, GPUs, or sync_batchnorm: false in the recipe",
        )
    return found


def started_by(hardware: Hardware) -> list[ClusterEnvironment]:
    """What started this process beside others, for Lightning, where it needs to be told. Raises UsageError.

    A job of SLURM is not put into its queue again by Lightning, which would write a checkpoint of its own then: the
    same command goes on with ours.
    """
    if SLURMEnvironment.detect():
        return [SLURMEnvironment(auto_requeue=False)]
    if hardware.nodes > 1 and not TorchElasticEnvironment.detect():
        raise UsageError(
            f"a training on {hardware.nodes} nodes is begun on each of them, by torchrun or by SLURM's srun",
            where="hardware.nodes",
            remedy=f"torchrun --nnodes {hardware.nodes} --nproc_per_node {hardware.devices} --node_rank 0 (1, ...)"
            " --master_addr HOST --master_port PORT -m -- train, and what followed `python -m train`",
        )
    return []
