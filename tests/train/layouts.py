"""Tensors under every name of the published files, one number each, so that any that changes places is noticed."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

LISTS = Path(__file__).parents[1] / "conformance"
RESNETS = {"18": (2, 2, 2, 2), "34": (3, 4, 6, 3)}
STATISTICS = {"running_mean", "running_var", "num_batches_tracked"}


def number(name: str) -> int:
    """What the tensor of that name is filled with; float32 holds it exactly."""
    return zlib.crc32(name.encode()) % 2**24


def filled(name: str, shape: Any, dtype: str = "float32") -> Tensor:
    """Without the memory of its shape."""
    return torch.tensor(number(name), dtype=getattr(torch, dtype)).expand(tuple(shape))


def of_list(name: str) -> dict[str, Tensor]:
    """A released file, by its list of names and shapes; copies equal."""
    content = json.loads(gzip.decompress((LISTS / f"{name}_state_dict.json.gz").read_bytes()))
    first = {copy: own for own, copies in content.get("aliases", {}).items() for copy in copies}
    return {key: filled(first.get(key, key), *about) for key, about in content["tensors"].items()}


def slic() -> dict[str, Tensor]:
    with np.load(LISTS / "slic_r3d18.npz", allow_pickle=False) as values:
        listed = zip(values["keys"].tolist(), values["shapes"].tolist(), strict=True)
        return {
            name: filled(name, json.loads(shape), "int64" if name.endswith("_tracked") else "float32")
            for name, shape in listed
        }


def predictive(size: str, channels: int = 3, statistics: bool = False, classes: int = 0) -> dict[str, Tensor]:
    """A file of DPC, or with statistics of CoCon, as specs/cocon.md section 1.5 lists its names; or a classifier."""
    shapes: dict[str, tuple[int, ...]] = {"backbone.conv1.weight": (64, channels, 1, 7, 7)}
    norms = {"backbone.bn1": 64}
    width = 64
    for layer, (blocks, planes) in enumerate(zip(RESNETS[size], (64, 128, 256, 256), strict=True), start=1):
        frames = 1 if layer < 3 else 3
        for block in range(blocks):
            name = f"backbone.layer{layer}.{block}"
            shapes[f"{name}.conv1.weight"] = (planes, width, frames, 3, 3)
            shapes[f"{name}.conv2.weight"] = (planes, planes, frames, 3, 3)
            norms |= {f"{name}.bn1": planes, f"{name}.bn2": planes}
            if layer > 1 and block == 0:
                shapes[f"{name}.downsample.0.weight"] = (planes, width, 1, 1, 1)
                norms[f"{name}.downsample.1"] = planes
            width = planes
    for gate in ("reset", "update", "out"):
        for cell in ("ConvGRUCell_00", "cell_list.0"):
            shapes |= {f"agg.{cell}.{gate}_gate.weight": (256, 512, 1, 1), f"agg.{cell}.{gate}_gate.bias": (256,)}
    if classes:
        norms["final_bn"] = 256
        shapes |= {"final_fc.1.weight": (classes, 256), "final_fc.1.bias": (classes,)}
    else:
        for place in (0, 2):
            shapes |= {f"network_pred.{place}.weight": (256, 256, 1, 1), f"network_pred.{place}.bias": (256,)}
    for name, side in norms.items():
        shapes |= {f"{name}.{part}": (side,) for part in ("weight", "bias")}
        if statistics or name == "final_bn":
            shapes |= {f"{name}.{part}": () if part.endswith("tracked") else (side,) for part in sorted(STATISTICS)}
    return {
        name: filled(
            name.replace("cell_list.0", "ConvGRUCell_00"), shape, "int64" if name.endswith("_tracked") else "float32"
        )
        for name, shape in shapes.items()
    }


def probe(state: Mapping[str, Tensor], prefix: str, features: int) -> dict[str, Tensor]:
    """What a linear probe of one of a file's backbones, of CoCLR or ViCC, is stored as."""
    made = {name.replace(prefix, "backbone."): tensor for name, tensor in state.items() if name.startswith(prefix)}
    names = ("weight", "bias", "running_mean", "running_var")
    made |= {f"final_bn.{name}": filled(f"final_bn.{name}", (features,)) for name in names}
    made["final_bn.num_batches_tracked"] = filled("final_bn.num_batches_tracked", (), "int64")
    return made | {"final_fc.0.weight": torch.zeros(101, features), "final_fc.0.bias": torch.zeros(101)}
