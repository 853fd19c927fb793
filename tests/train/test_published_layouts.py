"""Files in the layouts of ViCC, GOCA, SLIC, DPC and CoCon: told apart, read, refused by name, written back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import train  # noqa: F401  (before torch)

# isort: split
import pytest
import torch
from torch import Tensor

from pipeline.errors import Refusal
from tests.train import layouts
from train import backbones, recipe
from train.checkpoints import import_published
from train.networks.network import Network
from train.published import LAYOUTS, published_state

R21D, S3D, GOCA = "vicc_single_r21d", "vicc_cross_s3d", "goca_r2plus1d_18_custom_sharedhead"
# file -> layout, our backbone, its settings, and the published name of each role's backbone
READ: dict[str, tuple[str, str, dict[str, bool], dict[str, str]]] = {
    S3D: ("vicc", "s3d", {}, {"query": "encoder_q.0.", "other": "second.0."}),
    R21D: ("vicc", "r2plus1d-10", {}, {"query": "encoder_q.0."}),
    GOCA: ("goca", "r2plus1d-18", {}, {"rgb": "module.video_network.", "flow": "module.video_network_flow."}),
    "slic": ("slic", "r3d-18", {}, {"query": ""}),
    "dpc-18": ("dpc", "resnet2d3d-18", {"running_statistics": False}, {"query": "backbone."}),
    "dpc-34": ("dpc", "resnet2d3d-34", {"running_statistics": False}, {"query": "backbone."}),
    "cocon": ("cocon", "resnet2d3d-18", {}, {"query": "backbone."}),
}
every_file = pytest.mark.parametrize("file", READ)


@pytest.fixture(scope="module")
def states() -> dict[str, dict[str, Tensor]]:
    made = {name: layouts.of_list(name) for name in (R21D, S3D, GOCA)}
    made |= {"slic": layouts.slic(), "dpc-18": layouts.predictive("18"), "dpc-34": layouts.predictive("34")}
    return made | {"cocon": layouts.predictive("18", channels=2, statistics=True)}


def assert_fills(found: Mapping[str, Tensor], module: torch.nn.Module, prefix: str) -> None:
    """Strictly, every tensor from the place of its name."""
    module.load_state_dict(dict(found), strict=True, assign=True)
    for name, tensor in module.state_dict().items():
        assert (tensor == layouts.number(prefix + name)).all(), name


def test_the_lists_are_as_long_as_the_specification_says(states: dict[str, dict[str, Tensor]]) -> None:
    assert {file: len(states[file]) for file in ("slic", "dpc-18", "cocon")} == {
        "slic": 129,
        "dpc-18": 76,
        "cocon": 136,
    }


@every_file
def test_every_role_fills_our_backbone(states: dict[str, dict[str, Tensor]], file: str) -> None:
    layout, name, settings, roles = READ[file]
    found = import_published(states[file])
    assert (found.layout, found.backbone, found.backbone_settings, found.extra) == (layout, name, settings, ())
    assert found.backbones.keys() == found.heads.keys() == roles.keys() and found.queue == {}
    for role, prefix in roles.items():
        with torch.device("meta"):
            network = backbones.create(name, in_channels=2 if file == "cocon" else 3, **settings)
        assert_fills(found.backbones[role], network, prefix)


@every_file
def test_what_was_read_is_written_back_tensor_for_tensor(states: dict[str, dict[str, Tensor]], file: str) -> None:
    state = states[file]
    if file in ("dpc-18", "dpc-34", "cocon"):  # made on GPUs, where the network is wrapped
        state = {f"module.{name}": tensor for name, tensor in state.items()}
    back = published_state(import_published(state))
    assert back.keys() == state.keys()
    assert all(back[name].shape == t.shape and torch.equal(back[name], t) for name, t in state.items())


def test_heads_of_vicc_are_ours(states: dict[str, dict[str, Tensor]]) -> None:
    with torch.device("meta"):
        network = Network("r2plus1d-10", 3)
    network.load_state_dict(import_published(states[R21D]).encoder("query"), strict=True, assign=True)
    places = {"0": "2", "2": "4"}  # of the layers, here and there
    for name, tensor in network.head.state_dict().items():
        assert (tensor == layouts.number(f"encoder_q.{places[name[0]]}{name[1:]}")).all()
    found = import_published(states[S3D])
    for role, prefix in (("query", "encoder_q"), ("other", "second")):
        assert found.has_our_head(role) and found.encoder(role)["head.0.weight"].shape == (1024, 1024)
        assert (found.heads[role]["head.2.bias"] == layouts.number(f"{prefix}.4.bias")).all()
    assert found.prototypes is not None and found.prototypes.shape == (300, 128)
    assert (found.prototypes == layouts.number("prototypes.weight")).all()


def test_heads_with_batch_norm_keep_their_names(states: dict[str, dict[str, Tensor]]) -> None:
    goca, slic = import_published(states[GOCA]), import_published(states["slic"])
    assert goca.heads["rgb"].keys() == goca.heads["flow"].keys() and len(goca.heads["rgb"]) == 6 + 2 * 5
    for name, tensor in goca.heads["flow"].items():
        assert name.startswith("projection_head.") and (tensor == layouts.number(f"module.{name}")).all()
    assert goca.prototypes is not None and goca.prototypes.shape == (1000, 128)
    norm = [f"bn_proj.{part}" for part in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")]
    assert set(slic.heads["query"]) == {"fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias", *norm}
    for found, role in ((goca, "rgb"), (goca, "flow"), (slic, "query")):
        assert not found.has_our_head(role) and not any(name.startswith("head.") for name in found.encoder(role))


def test_streams_of_goca_may_have_heads_of_their_own_or_be_alone(states: dict[str, dict[str, Tensor]]) -> None:
    state = states[GOCA]
    own = {
        name.replace("projection_head.", "projection_head_flow."): tensor + 1
        for name, tensor in state.items()
        if "projection_head." in name
    }
    found = import_published({**state, **own})
    assert found.extra == () and all(name.startswith("projection_head_flow.") for name in found.heads["flow"])
    assert published_state(found).keys() == (state | own).keys()
    alone = import_published({name: tensor for name, tensor in state.items() if "_flow." not in name})
    assert alone.backbones.keys() == {"rgb"} and alone.role("rgb") == "rgb"
    with pytest.raises(Refusal, match="no flow network"):
        alone.role("flow")
    assert found.role("flow") == "flow" and import_published(states["slic"]).role("flow") == "query"


def test_goca_on_s3d_is_read(states: dict[str, dict[str, Tensor]]) -> None:
    networks = {
        name.replace("encoder_q.0.", "module.video_network."): tensor
        for name, tensor in states[S3D].items()
        if name.startswith("encoder_q.0.")
    }
    rest = {name: t for name, t in states[GOCA].items() if "projection_head" in name or "prototypes" in name}
    found = import_published(networks | rest)
    assert (found.layout, found.backbone, found.extra, found.clips.size) == ("goca", "s3d", (), (128, 128))
    assert published_state(found).keys() == (networks | rest).keys()


def test_aggregator_and_predictor_keep_their_names(states: dict[str, dict[str, Tensor]]) -> None:
    for file in ("dpc-18", "cocon"):
        head = import_published(states[file]).heads["query"]
        assert len(head) == 6 + 4 and all(name.startswith(("agg.ConvGRUCell_00.", "network_pred.")) for name in head)
        assert all((tensor == layouts.number(name)).all() for name, tensor in head.items())


def test_probes_and_fine_tuned_networks_are_read_and_not_written(states: dict[str, dict[str, Tensor]]) -> None:
    probes = {
        "coclr": layouts.probe(states[S3D], "second.0.", 1024),  # CoCLR's and ViCC's are the same on S3D
        "vicc": layouts.probe(states[R21D], "encoder_q.0.", 512),
        "dpc": layouts.predictive("34", classes=101),
        "cocon": layouts.predictive("18", statistics=True, classes=51),
        "slic": {name: t for name, t in states["slic"].items() if not name.startswith(("fc", "bn_proj"))}
        | {"linear.1.weight": torch.zeros(101, 512), "linear.1.bias": torch.zeros(101)},
    }
    for layout, state in probes.items():
        found = import_published(state)
        assert found.layout == layout and found.extra == () and found.prototypes is None
        assert found.backbones.keys() == {"query"} and not found.has_our_head("query")
        assert any(name.startswith(("final_fc.", "linear.")) for name in found.heads["query"])
        with pytest.raises(Refusal, match="only pre-trained networks are written"):
            published_state(found)
    named = import_published(probes["coclr"], "vicc")
    assert named.layout == "vicc" and named.backbone == "s3d" and named.extra == ()


def test_a_network_of_dpc_with_statistics_is_read_by_naming_its_layout(states: dict[str, dict[str, Tensor]]) -> None:
    state = layouts.predictive("34", statistics=True)
    assert import_published(state).layout == "cocon"
    found = import_published(state, "dpc")
    assert found.layout == "dpc" and found.backbone_settings == {} and found.extra == ()
    with pytest.raises(Refusal, match=r"missing backbone\.bn1\.running_mean"):
        import_published(states["dpc-18"], "cocon")


def test_a_bare_trunk_is_read_and_its_classifier_named(states: dict[str, dict[str, Tensor]]) -> None:
    trunk = {name: t for name, t in states["slic"].items() if not name.startswith(("fc", "bn_proj"))}
    found = import_published(trunk | {"fc.weight": torch.zeros(400, 512), "fc.bias": torch.zeros(400)})
    assert found.layout == "slic" and found.heads == {"query": {}} and found.extra == ("fc.weight", "fc.bias")


CHANGES: list[tuple[str, str, Any, str]] = [  # file, tensor, its replacement, what is said
    (R21D, "prototypes.weight", None, r"missing prototypes\.weight"),
    (R21D, "prototypes.weight", (300, 64), r"prototypes\.weight is \(300, 64\), not \(300, 128\)"),
    (R21D, "encoder_q.0.conv3.block1.bn2.bias", None, r"missing encoder_q\.0\.conv3\.block1\.bn2\.bias"),
    (R21D, "encoder_q.2.weight", (512, 512), r"encoder_q\.2\.weight is \(512, 512\), not \(512, 512, 1, 1, 1\)"),
    (R21D, "encoder_q.4.weight", None, r"missing encoder_q\.4\.weight$"),
    (S3D, "second.0.block4.2.branch0.0.bn.bias", (160,), r"second\.0\.block4\.2\S+ is not equal to second\.0\.Mixed_4c"),
    (S3D, "second.4.bias", None, r"missing second\.4\.bias"),
    (GOCA, "module.video_network_flow.layer4.1.conv2.1.bias", None, r"missing video_network_flow\.layer4\.1\.conv2\.1\.bias"),
    (GOCA, "module.projection_head.4.running_var", None, r"missing projection_head\.4\.running_var"),
    (GOCA, "module.prototypes.weight", None, r"missing prototypes\.weight"),
    ("slic", "layer3.0.downsample.0.weight", (256, 128), r"layer3\.0\.downsample\.0\.weight is \(256, 128\)"),
    ("slic", "bn_proj.running_mean", None, r"missing bn_proj\.running_mean"),
    ("slic", "fc2.bias", (64,), r"fc2\.bias is \(64,\), not \(128,\)"),
    ("dpc-18", "agg.cell_list.0.out_gate.bias", (256,), r"agg\.cell_list\.0\.out_gate\.bias is not equal to agg\.ConvGRUCell_00"),
    ("dpc-34", "backbone.layer3.5.conv2.weight", None, r"missing backbone\.layer3\.5\.conv2\.weight"),
    ("cocon", "backbone.layer1.0.bn1.running_var", None, r"missing backbone\.layer1\.0\.bn1\.running_var"),
    ("cocon", "network_pred.2.weight", (256, 128, 1, 1), r"network_pred\.2\.weight is \(256, 128, 1, 1\)"),
]  # fmt: skip


@pytest.mark.parametrize(("file", "name", "replacement", "said"), CHANGES)
def test_damaged_files_are_refused_by_the_published_names(
    states: dict[str, dict[str, Tensor]], file: str, name: str, replacement: Any, said: str
) -> None:
    state = {key: tensor for key, tensor in states[file].items() if key != name}
    assert len(state) == len(states[file]) - 1
    if replacement is not None:
        state[name] = torch.zeros(replacement)
    with pytest.raises(Refusal, match=rf"(?m){said}"):
        import_published(state)


@every_file
def test_tensors_that_belong_nowhere_are_named(states: dict[str, dict[str, Tensor]], file: str) -> None:
    more = {"temperature": torch.ones(1), "encoder_q.0.other": torch.ones(1)}
    assert import_published(states[file] | more).extra == tuple(more)


def test_a_file_of_another_layout_is_refused(states: dict[str, dict[str, Tensor]]) -> None:
    for file in (R21D, GOCA, "slic", "dpc-18"):
        for layout in LAYOUTS:
            if layout != READ[file][0]:
                with pytest.raises(Refusal, match="missing"):
                    import_published(states[file], layout)
    # On S3D it has all that CoCLR's layout asks for; what is left over is named.
    named = import_published(states[S3D], "coclr")
    assert "prototypes.weight" in named.extra and "second.4.bias" in named.extra


def test_networks_are_shown_what_they_were_trained_on(states: dict[str, dict[str, Tensor]]) -> None:
    clips = {file: import_published(states[file]).clips for file in READ}
    assert clips[S3D] == clips[R21D] == recipe.load(recipe.find("ucf101", "infonce")).clips
    found = {file: (clips[file].length, clips[file].stride, clips[file].size[0]) for file in READ if file != S3D}
    assert found == {
        R21D: (32, 1, 128),
        GOCA: (32, 2, 112),
        "slic": (16, 1, 128),
        "dpc-18": (5, 3, 128),
        "dpc-34": (5, 3, 224),
        "cocon": (5, 3, 128),
    }
