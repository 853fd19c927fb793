"""Residual backbones against torchvision's, and against plain walks over their weights by name."""

from __future__ import annotations

import train  # noqa: F401  (before torchvision)

# isort: split
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import video

from train import backbones
from train.backbones.r2plus1d import middle
from train.backbones.residual import BasicBlock

CLIPS = (2, 3, 5, 24, 20)


def random_state(network: nn.Module) -> dict[str, Tensor]:
    """Weights and statistics that keep activations near one."""
    generator, state = torch.Generator().manual_seed(1), {}
    for name, tensor in network.state_dict().items():
        x = torch.randn(tensor.shape, generator=generator)
        if name.endswith("num_batches_tracked"):
            state[name] = torch.zeros((), dtype=torch.int64)
        elif tensor.ndim > 1:
            state[name] = x * (2 / tensor[0].numel()) ** 0.5
        elif name.endswith(("running_mean", "bias")):
            state[name] = 0.1 * x
        else:
            state[name] = 1 + 0.1 * x.abs()
    return state


def clips() -> Tensor:
    return torch.randn(CLIPS, generator=torch.Generator().manual_seed(2))


def torchvision_name(name: str) -> str:
    """Its name of a tensor of R3D-18, of those behind the stem."""
    places = {".conv1.": ".conv1.0.", ".bn1.": ".conv1.1.", ".conv2.": ".conv2.0.", ".bn2.": ".conv2.1."}
    for ours, theirs in places.items():
        name = name.replace(ours, theirs)
    return name


@pytest.mark.parametrize("name", ["r2plus1d-18", "r3d-18"])
def test_features_are_torchvisions(name: str) -> None:
    with torch.device("meta"):
        ours = backbones.create(name)
        theirs = video.r2plus1d_18() if name == "r2plus1d-18" else video.r3d_18()
    state = random_state(ours)
    ours.load_state_dict(state, assign=True)
    if name == "r3d-18":  # SLIC's stem sees more frames
        theirs.stem = nn.Sequential(ours.conv1, ours.bn1, nn.ReLU())
        layers = {torchvision_name(key): t for key, t in state.items() if key.startswith("layer")}
        state = layers | {key: t for key, t in theirs.state_dict().items() if key.startswith("stem.")}
    theirs.fc = nn.Identity()
    theirs.load_state_dict(state, assign=True)
    stages = [theirs.stem, theirs.layer1, theirs.layer2, theirs.layer3, theirs.layer4]
    with torch.no_grad():
        wanted = clips()
        for stage in stages:
            wanted = stage.eval()(wanted)
        found = ours.eval()(clips())
    torch.testing.assert_close(found, wanted)


def norm(x: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    """Batch norm in evaluation mode, plainly."""
    mean, variance, weight, bias = (
        state[f"{name}.{part}"][:, None, None, None] for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / torch.sqrt(variance + 1e-5) * weight + bias


def convolved(x: Tensor, weight: Tensor, stride: tuple[int, int, int]) -> Tensor:
    return functional.conv3d(x, weight, stride=stride, padding=tuple(side // 2 for side in weight.shape[2:]))


def plain_2d3d(x: Tensor, state: dict[str, Tensor]) -> Tensor:
    """docs/methods.md 3.4."""
    x = norm(convolved(x, state["conv1.weight"], (1, 2, 2)), state, "bn1").relu()
    x = functional.max_pool3d(x, (1, 3, 3), (1, 2, 2), (0, 1, 1))
    blocks = sorted({tuple(name.split(".")[:2]) for name in state if name.startswith("layer")})
    for layer, place in blocks:
        first = {"layer1": (1, 1, 1), "layer2": (1, 2, 2)}.get(layer, (2, 2, 2))
        stride, name = first if place == "0" else (1, 1, 1), f"{layer}.{place}"
        inside = norm(convolved(x, state[f"{name}.conv1.weight"], stride), state, f"{name}.bn1").relu()
        inside = norm(convolved(inside, state[f"{name}.conv2.weight"], (1, 1, 1)), state, f"{name}.bn2")
        if f"{name}.downsample.0.weight" in state:
            x = norm(convolved(x, state[f"{name}.downsample.0.weight"], stride), state, f"{name}.downsample.1")
        x = inside + x
        if (layer, place) != blocks[-1]:
            x = x.relu()
    return x


def plain_r21d(x: Tensor, state: dict[str, Tensor]) -> Tensor:
    """docs/methods.md 3.2."""

    def factorised(x: Tensor, name: str, stride: tuple[int, int, int]) -> Tensor:
        x = convolved(x, state[f"{name}.spatial_conv.weight"], (1, *stride[1:]))
        return convolved(norm(x, state, f"{name}.bn").relu(), state[f"{name}.temporal_conv.weight"], (stride[0], 1, 1))

    x = norm(factorised(x, "conv1", (1, 2, 2)), state, "bn1").relu()
    for stage in range(2, 6):
        name, stride = f"conv{stage}.block1", (1, 1, 1) if stage == 2 else (2, 2, 2)
        inside = norm(factorised(x, f"{name}.conv1", stride), state, f"{name}.bn1").relu()
        inside = norm(factorised(inside, f"{name}.conv2", (1, 1, 1)), state, f"{name}.bn2")
        if stage > 2:
            x = norm(factorised(x, f"{name}.downsampleconv", stride), state, f"{name}.downsamplebn")
        x = (inside + x).relu()
    return x


@pytest.mark.parametrize("name", ["resnet2d3d-18", "resnet2d3d-34", "r2plus1d-10"])
def test_features_are_those_of_a_plain_walk(name: str) -> None:
    network = backbones.create(name, width=0.25).eval()
    state = random_state(network)
    network.load_state_dict(state)
    with torch.no_grad():
        found = network(clips())
        wanted = plain_r21d(clips(), state) if name == "r2plus1d-10" else plain_2d3d(clips(), state)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    assert (found < 0).any() == (name != "r2plus1d-10")  # DPC's last block has no ReLU


@pytest.mark.parametrize("size", ["18", "34"])
def test_without_running_statistics_a_clip_depends_on_the_clips_beside_it(size: str) -> None:
    kept, none = (
        backbones.create(f"resnet2d3d-{size}", width=0.125, running_statistics=kept) for kept in (True, False)
    )
    assert {name for name in kept.state_dict() if "running_" not in name and "tracked" not in name} == set(
        none.state_dict()
    )
    for network, depends in ((kept, False), (none, True)):
        with torch.no_grad():
            together, alone = network.eval()(clips())[:1], network(clips()[:1])
        assert torch.allclose(together, alone, atol=1e-5) != depends


@pytest.mark.parametrize("name", ["r2plus1d-10", "r2plus1d-18", "r3d-18", "resnet2d3d-18", "resnet2d3d-34", "small"])
def test_initialisation_is_kaimings(name: str) -> None:
    torch.manual_seed(0)
    network = backbones.create(name, width=0.25)
    scaled = [
        (layer.weight * (layer.out_channels * layer.weight[0, 0].numel() / 2) ** 0.5).flatten()
        for layer in network.modules()
        if isinstance(layer, nn.Conv3d)
    ]
    assert torch.cat(scaled).std().item() == pytest.approx(1, rel=1e-2)
    assert min(weights.std().item() for weights in scaled) > 0.9 and all(len(weights) > 50 for weights in scaled)
    for layer in network.modules():
        assert not isinstance(layer, nn.Conv3d) or layer.bias is None
        assert not isinstance(layer, nn.BatchNorm3d) or ((layer.weight == 1).all() and (layer.bias == 0).all())


@pytest.mark.parametrize(
    ("sides", "channels"),
    [((3, 64, (3, 7, 7)), 83), ((64, 64, (3, 3, 3)), 144), ((64, 128, (1, 1, 1)), 42), ((256, 512, (3, 3, 3)), 921)],
)
def test_both_halves_have_as_many_weights_as_the_whole(
    sides: tuple[int, int, tuple[int, int, int]], channels: int
) -> None:
    inputs, outputs, (frames, height, width) = sides
    assert middle(*sides) == channels
    whole = inputs * outputs * frames * height * width
    halves = [count * (inputs * height * width + outputs * frames) for count in (channels, channels + 1)]
    assert halves[0] <= whole < halves[1]


def test_a_shortcut_is_plain_where_nothing_changes() -> None:
    same, wider, smaller = (
        BasicBlock(8, out, (3, 3, 3), stride) for out, stride in ((8, (1, 1, 1)), (16, (1, 1, 1)), (8, (1, 2, 2)))
    )
    assert isinstance(same.downsample, nn.Identity)
    assert isinstance(wider.downsample, nn.Sequential) and isinstance(smaller.downsample, nn.Sequential)
