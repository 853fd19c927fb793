"""RAFT (Teed and Deng 2020), and the other networks of the package ptlflow by their names there."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from pipeline.errors import UsageError, refuse_unknown
from pipeline.flow import networks  # before torch: see there
from pipeline.flow.estimator import FlowEstimator, require_numbers

# isort: split
import torch
from torch import Tensor

SMALLEST = 128  # pixels a side: below, RAFT's coarsest level is one pixel wide, and it returns NaN without an error
ON_GPU, ON_CPU = 64, 8  # pairs at a time
PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass
class PTLFlow(FlowEstimator):
    """A network of ptlflow, `model` there. Its weights are a file that is there: nothing is ever downloaded.

    Frames are extended by repeating their edges, to a multiple of the network's stride and at least to 128 pixels a
    side; the flow is cropped back.

    Args:
        weights: Name of weights that ptlflow publishes for the model, whose file is taken from where torch.hub keeps
            downloads, or the path of a file as ptlflow writes it: a dict with `state_dict`.
        digest: sha256 of the file; any other is refused. None becomes the digest of the file that is there.
        iterations: Refinements of the flow; None is the model's own number (RAFT: 32). Some models take no number.
        batch_size: Pairs at a time; None is 64 on a GPU, which a few pairs do not keep at work, and 8 on a CPU. The
            last batch is filled up, so that a pair's flow is the same in every bit whatever the other pairs are. Other
            batch sizes give the same flow but for rounding (3e-5 in flow of 6 pixels, on a CPU).
        precision: fp16 and bf16 (autocast) are for GPUs; on a CPU they are right but take 7 to 24 times as long.
        device: cuda or cpu; None is cuda where there is one, in each process that computes.
    """

    model: ClassVar[str]
    RUNNING: ClassVar[frozenset[str]] = frozenset({"weights", "batch_size", "device"})  # `digest` tells which weights
    software: ClassVar[tuple[str, ...]] = ("torch", "ptlflow")

    weights: str = "things"
    digest: str | None = None
    iterations: int | None = None
    batch_size: int | None = None  # type: ignore[assignment]  # a number once it is open
    precision: Literal["fp32", "fp16", "bf16"] = "fp32"
    device: Literal["cuda", "cpu"] | None = None
    _path: Path = field(default=Path(), init=False, repr=False)
    _network: Any = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        self._check()
        if self.iterations is None:
            self.iterations = networks.own_iterations(self.model)
        elif networks.own_iterations(self.model) is None:
            raise TypeError(f"ptlflow's {self.model} takes no iterations")
        self._path, self.digest = networks.find_weights(self.model, self.weights, self.digest)

    @property
    def on_gpu(self) -> bool:
        return self.device == "cuda" or (self.device is None and torch.cuda.is_available())

    def open(self) -> None:
        if self.device == "cuda" and not torch.cuda.is_available():
            raise UsageError(
                f"flow estimator {self.name} is to run on a GPU, and torch finds none",
                remedy="set its device to cpu, or see why `nvidia-smi` or torch does not list the GPU",
            )
        if self.batch_size is None:
            self.batch_size = ON_GPU if self.on_gpu else ON_CPU
        self._network = networks.load(self.model, self.iterations, self._path, self.digest)

    def _check(self) -> None:
        require_numbers(self)
        if not isinstance(self.weights, str):
            raise TypeError(f"weights {self.weights!r} is neither a name nor a path")
        if self.precision not in PRECISIONS:
            raise TypeError(f"precision {self.precision!r} is none of {', '.join(PRECISIONS)}")
        if self.device not in ("cuda", "cpu", None):
            raise TypeError(f"device {self.device!r} is neither cuda nor cpu")

    def prepare(self) -> None:
        self._network.to(self._device)

    @property
    def _device(self) -> str:
        return "cuda" if self.on_gpu else "cpu"

    def batch(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return self.launch(first, second)()

    def launch(self, first: np.ndarray, second: np.ndarray) -> Callable[[], np.ndarray]:
        """On a GPU nothing waits between batches, nor before those of the next call."""
        self.prepare()
        begun: list[Tensor] = []
        batch = self.batch_size
        assert batch is not None  # since it is open
        for start in range(0, len(first), batch):
            index = np.minimum(np.arange(start, start + batch), len(first) - 1)
            try:
                begun.append(self._begun(np.stack([first[index], second[index]], axis=1))[: len(first) - start])
            except torch.OutOfMemoryError as error:
                what = f"{batch} pairs of {first.shape[1]} x {first.shape[2]} pixels at once"
                raise ValueError(f"there is too little memory for {what}; set batch_size lower") from error
        done = torch.cuda.Event(blocking=True) if self.on_gpu else None  # waits without keeping a core busy
        if done:
            done.record()

        def collect() -> np.ndarray:
            if done:
                done.synchronize()
            flow = torch.cat(begun).numpy()
            finite = np.isfinite(flow).all(axis=(1, 2, 3))
            if not finite.all():
                pair = int(np.flatnonzero(~finite)[0])
                raise ValueError(f"{self.name} ({self.precision}) gave a flow that is not finite, for pair {pair}")
            return flow

        return collect

    def _begun(self, pairs: np.ndarray) -> Tensor:
        """Flow (B, 2, H, W) of pairs, uint8 RGB (B, 2, H, W, 3) or gray (B, 2, H, W); on a GPU it is yet to come."""
        if pairs.ndim == 4:
            pairs = np.repeat(pairs[..., None], 3, axis=-1)
        height, width = pairs.shape[2:4]
        rows, columns = self._margins(height), self._margins(width)
        padded = torch.from_numpy(np.pad(pairs, ((0, 0), (0, 0), rows, columns, (0, 0)), mode="edge"))
        if self.on_gpu:
            padded = padded.pin_memory().to("cuda", non_blocking=True)
        bgr = padded.flip(-1).permute(0, 1, 4, 2, 3).contiguous().float() / 255
        half = self.precision != "fp32"
        with (
            torch.inference_mode(),
            # fp32 is fp32, without TF32's ten bits; and the same flow every time.
            torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=half),
            torch.autocast(self._device, PRECISIONS[self.precision]) if half else contextlib.nullcontext(),
        ):
            flow = self._network({"images": bgr})["flows"]
            if flow.shape != (len(pairs), 1, 2, *bgr.shape[-2:]):
                raise ValueError(f"{self.name} does not give the flow of a pair of frames, but {tuple(flow.shape)}")
            flow = flow[:, 0, :, rows[0] : rows[0] + height, columns[0] : columns[0] + width].float()
            given = torch.empty(flow.shape, pin_memory=self.on_gpu)
            return given.copy_(flow, non_blocking=True)

    def _margins(self, size: int) -> tuple[int, int]:
        """Pixels to add before and after a side of this size."""
        stride = self._network.output_stride or 1  # none: the model sees to it itself
        missing = -(-max(size, SMALLEST) // stride) * stride - size
        return missing // 2, missing - missing // 2


class RAFT(PTLFlow):
    """The network of the paper."""

    name = "raft"
    model = "raft"


class RAFTSmall(PTLFlow):
    """The paper's small network: a fifth of the parameters."""

    name = "raft-small"
    model = "raft_small"


def named(model: str) -> type[PTLFlow]:
    """The estimator of any of ptlflow's models. Raises UsageError for a name that ptlflow does not have."""
    for kind in (RAFT, RAFTSmall):
        if kind.model == model:
            return kind
    if model not in networks.names():
        refuse_unknown("model of ptlflow", model, networks.names())
    return type("PTLFlowModel", (PTLFlow,), {"name": f"ptlflow:{model}", "model": model})
