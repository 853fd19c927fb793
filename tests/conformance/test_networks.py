"""Networks against values that the released code gave with weights that follow from each tensor's name."""

from __future__ import annotations

import json
import zlib
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.conformance.reference import arrays
from train import backbones
from train.checkpoints import import_published


def wave(name: str, shape: tuple[int, ...]) -> Tensor:
    """Value i is sin(.7 (i + 1) + crc32(name) mod 1000), scaled by what the tensor is."""
    if name.endswith("num_batches_tracked"):
        return torch.zeros((), dtype=torch.int64)
    angles = np.arange(1, np.prod(shape, dtype=int) + 1, dtype=np.float64)
    angles *= 0.7
    angles += zlib.crc32(name.encode()) % 1000
    w = np.sin(angles, out=angles).reshape(shape)
    if name.endswith("running_var") or (name.endswith("weight") and w.ndim == 1):
        w = 1 + 0.1 * w
    elif name.endswith(("running_mean", "bias")):
        w = 0.1 * w
    else:
        w *= np.sqrt(2 / np.prod(shape[1:])) * 1.41421356
    return torch.from_numpy(w.astype(np.float32))


@pytest.fixture(scope="module")
def values() -> dict[str, Any]:
    return arrays("slic_r3d18")


class R3DWithHead(nn.Module):
    """SLIC's network from a file of it: our backbone, global average, and the head as it is published."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        super().__init__()
        found = import_published(state)
        with torch.device("meta"):
            self.backbone = backbones.create(found.backbone)
            self.fc1, self.bn_proj, self.fc2 = nn.Linear(512, 2048), nn.BatchNorm1d(2048), nn.Linear(2048, 128)
        self.backbone.load_state_dict(found.backbones["query"], assign=True)
        head = {name: tensor for name, tensor in found.heads["query"].items()}
        assert not self.load_state_dict(head, strict=False, assign=True).unexpected_keys

    def forward(self, clips: Tensor) -> tuple[Tensor, Tensor]:
        pooled = self.backbone(clips).mean(dim=(2, 3, 4))
        return pooled, self.fc2(functional.relu(self.bn_proj(self.fc1(pooled))))


def test_slics_network_and_its_stages(values: dict[str, Any]) -> None:
    shapes = {name: tuple(json.loads(shape)) for name, shape in zip(values["keys"], values["shapes"], strict=True)}
    network = R3DWithHead({name: wave(str(name), shape) for name, shape in shapes.items()})
    assert sum(parameter.numel() for parameter in network.parameters()) == values["n_params"]
    grids: list[str] = []
    for stage in ("bn1", "layer1", "layer2", "layer3", "layer4"):
        network.backbone.get_submodule(stage).register_forward_hook(
            lambda _, __, out: grids.append(str(tuple(out.shape)))
        )
    clips = torch.from_numpy(values["x"])
    with torch.no_grad():
        pooled, rows = network.eval()(clips)
        _, trained = network.train()(clips)
    assert grids[:5] == values["stage_shapes"].tolist()
    # Batch norm over a grid of four amplifies rounding: in float64 the rows of train mode are as far from the reference.
    for found, wanted in ((pooled, "pooled512"), (rows, "head128"), (trained, "head128_train")):
        torch.testing.assert_close(found, torch.from_numpy(values[wanted]), rtol=1e-3, atol=5e-4)
