"""Losses and assignments compute in float32 at least, whatever arrives and also under autocast; and what
NVIDIA's tensor cores make of float32."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Literal, ParamSpec, TypeVar

import torch
from torch import Tensor

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
TF32 = Literal["none", "convolutions", "all"]
TORCHS_TF32: TF32 = "convolutions"  # unless told otherwise


@contextlib.contextmanager
def tf32(where: TF32) -> Iterator[None]:
    """Within the block float32 is rounded to TF32, 10 bits of its 23, in what is named: on GPUs that have it, from
    Ampere on. Elsewhere it changes nothing."""
    cudnn = torch.backends.cudnn
    kinds = cudnn.conv, cudnn.rnn, torch.backends.cuda.matmul  # type: ignore[attr-defined]
    before = [kind.fp32_precision for kind in kinds]
    wanted = [where != "none", where != "none", where == "all"]
    try:
        for kind, rounded in zip(kinds, wanted, strict=True):
            kind.fp32_precision = "tf32" if rounded else "ieee"
        yield
    finally:
        for kind, precision in zip(kinds, before, strict=True):
            kind.fp32_precision = precision


def at_least_float32(tensor: Tensor) -> Tensor:
    """float16 and bfloat16 become float32; float32 and float64 stay as they are."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def in_full_precision(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Decorator: floating tensors reach `function` as float32 at least, and autocast is off inside it."""

    @functools.wraps(function)
    def wrapper(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        raised = [_raised(value) for value in args]
        raised_by_name = {name: _raised(value) for name, value in kwargs.items()}
        devices = {value.device.type for value in [*raised, *raised_by_name.values()] if isinstance(value, Tensor)}
        with torch.autocast(devices.pop(), enabled=False):
            return function(*raised, **raised_by_name)  # type: ignore[arg-type]

    return wrapper


def _raised(value: object) -> object:
    return at_least_float32(value) if isinstance(value, Tensor) and value.is_floating_point() else value
