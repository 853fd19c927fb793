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

from tests.conformance.reference import arrays, tensors
from train.backbones import BACKBONES, Backbone
from train.checkpoints import import_published
from train.networks.network import Network


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


def test_slics_network_and_its_stages(values: dict[str, Any]) -> None:
    shapes = {name: tuple(json.loads(shape)) for name, shape in zip(values["keys"], values["shapes"], strict=True)}
    published = import_published({name: wave(str(name), shape) for name, shape in shapes.items()})
    with torch.device("meta"):
        network = Network(in_channels=3, **published.network)
    network.load_state_dict(published.state("query"), assign=True)
    assert sum(parameter.numel() for parameter in network.parameters()) == values["n_params"]
    grids: list[str] = []
    for stage in ("bn1", "layer1", "layer2", "layer3", "layer4"):
        network.backbone.get_submodule(stage).register_forward_hook(
            lambda _, __, out: grids.append(str(tuple(out.shape)))
        )
    clips = torch.from_numpy(values["x"])
    with torch.no_grad():
        pooled, rows = (network.eval().embed(clips, layer) for layer in network.layers)
        trained = network.train()(clips)
    assert grids[:5] == values["stage_shapes"].tolist()
    # Batch norm over a grid of four amplifies rounding: in float64 the rows of train mode are as far from the
    # reference.
    for found, wanted in ((pooled, "pooled512"), (rows, "head128"), (trained, "head128_train")):
        torch.testing.assert_close(found, torch.from_numpy(values[wanted]), rtol=1e-3, atol=5e-4)


class Given(Backbone):
    """Clips are feature maps already."""

    smallest_clip = (1, 1, 1)

    def __init__(self, in_channels: int = 3) -> None:
        super().__init__()
        self.feature_size = in_channels
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, clips: Tensor) -> Tensor:
        return clips


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(BACKBONES.entries, "given", f"{__name__}:Given")
    return "given"


def test_a_linear_probe_and_a_fine_tuned_network(given: str) -> None:
    values = tensors("coclr_linear")
    settings = {"dim": 4, "unit_input": True, "batch_norm": True}
    probe = Network(given, 12, head="classifier", head_settings=settings).eval()
    names = {"linear": "final_fc.0", "batch_norm": "final_bn"}
    state = {
        name: values[f"probe/init/{names[name.split('.')[0]]}.{name.split('.')[1]}"] for name in probe.head.state_dict()
    }
    probe.head.load_state_dict(state)
    with torch.no_grad():
        torch.testing.assert_close(
            functional.normalize(probe.embed(values["x"], "backbone")), values["probe/eval_feature"]
        )
        torch.testing.assert_close(probe(values["x"]), values["probe/eval_logit"], rtol=0, atol=2e-5)
        torch.testing.assert_close(probe.train()(values["x"]), values["probe/trainbn_logit"], rtol=0, atol=2e-5)
    torch.testing.assert_close(probe.head.batch_norm.running_mean, values["probe/bn_mean_after"])
    torch.testing.assert_close(probe.head.batch_norm.running_var, values["probe/bn_var_after"])
    tuned = Network(given, 12, head="classifier", head_settings={"dim": 4, "dropout": 0.9}).eval()
    tuned.head.linear.load_state_dict({part: values[f"finetune/init/final_fc.1.{part}"] for part in ("weight", "bias")})
    with torch.no_grad():
        torch.testing.assert_close(tuned.embed(values["x"], "backbone"), values["finetune/eval_feature"])
        torch.testing.assert_close(tuned(values["x"]), values["finetune/eval_logit"], rtol=0, atol=2e-5)


def test_the_context_of_blocks(given: str) -> None:
    """The released ConvGRU, whose sequence of maps stands for a clip of four blocks of a frame."""
    values = tensors("dpc_convgru")
    settings = {"block_length": 1, "hidden": 6, "between": "plain"}
    network = Network(given, 6, head="none", aggregation="gru", aggregation_settings=settings).eval()
    gates = {name: tensor for name, tensor in values.items() if name.startswith("w_ConvGRUCell_00.")}
    network.aggregation.gru.load_state_dict({name.removeprefix("w_ConvGRUCell_00."): t for name, t in gates.items()})
    with torch.no_grad():
        context = network.embed(values["seq"].transpose(1, 2), "context")
    torch.testing.assert_close(context, values["last"][:, 0].mean(dim=(2, 3)), rtol=0, atol=2e-5)
