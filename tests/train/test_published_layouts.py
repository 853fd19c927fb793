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
from train import recipe
from train.checkpoints import import_published
from train.networks.network import Network
from train.published import LAYOUTS, published_state

R21D, S3D, GOCA = "vicc_single_r21d", "vicc_cross_s3d", "goca_r2plus1d_18_custom_sharedhead"
GRU = {"aggregation.gru": "agg.ConvGRUCell_00", "aggregation.predictor": "network_pred"}
STATELESS = {"backbone_settings": {"running_statistics": False}}


# file -> layout, our backbone and its settings, and the published names of the parts of each role's network
READ: dict[str, tuple[str, str, dict[str, Any], dict[str, dict[str, str]]]] = {
    S3D: (
        "vicc",
        "s3d",
        {},
        {
            "query": {"backbone": "encoder_q.0", "head.0": "encoder_q.2", "head.2": "encoder_q.4"},
            "other": {"backbone": "second.0", "head.0": "second.2", "head.2": "second.4"},
        },
    ),
    R21D: (
        "vicc",
        "r2plus1d-10",
        {},
        {"query": {"backbone": "encoder_q.0", "head.0": "encoder_q.2", "head.2": "encoder_q.4"}},
    ),
    GOCA: (
        "goca",
        "r2plus1d-18",
        {},
        {
            "rgb": {"backbone": "module.video_network", "head": "module.projection_head"},
            "flow": {"backbone": "module.video_network_flow", "head": "module.projection_head"},
        },
    ),
    "slic": ("slic", "r3d-18", {}, {"query": {"backbone": "", "head.0": "fc1", "head.1": "bn_proj", "head.3": "fc2"}}),
    "dpc-18": ("dpc", "resnet2d3d-18", STATELESS, {"query": {"backbone": "backbone", **GRU}}),
    "dpc-34": ("dpc", "resnet2d3d-34", STATELESS, {"query": {"backbone": "backbone", **GRU}}),
    "cocon": ("cocon", "resnet2d3d-18", {"backbone_settings": {}}, {"query": {"backbone": "backbone", **GRU}}),
}
every_file = pytest.mark.parametrize("file", READ)


@pytest.fixture(scope="module")
def states() -> dict[str, dict[str, Tensor]]:
    made = {name: layouts.of_list(name) for name in (R21D, S3D, GOCA)}
    made |= {"slic": layouts.slic(), "dpc-18": layouts.predictive("18"), "dpc-34": layouts.predictive("34")}
    return made | {"cocon": layouts.predictive("18", channels=2, statistics=True)}


def assert_fills(found: Mapping[str, Tensor], module: torch.nn.Module, names: Mapping[str, str]) -> None:
    """Strictly, every tensor from the place of its name."""
    module.load_state_dict(dict(found), strict=True, assign=True)
    for name, tensor in module.state_dict().items():
        [(ours, published)] = [pair for pair in names.items() if name.startswith(f"{pair[0]}.")]
        assert (tensor == layouts.number((published + name.removeprefix(ours)).removeprefix("."))).all(), name


def test_the_lists_are_as_long_as_the_specification_says(states: dict[str, dict[str, Tensor]]) -> None:
    assert {file: len(states[file]) for file in ("slic", "dpc-18", "cocon")} == {
        "slic": 129,
        "dpc-18": 76,
        "cocon": 136,
    }


@every_file
def test_every_role_fills_our_network(states: dict[str, dict[str, Tensor]], file: str) -> None:
    layout, name, settings, roles = READ[file]
    found = import_published(states[file])
    assert (found.layout, found.network["backbone"], found.extra) == (layout, name, ())
    assert {key: value for key, value in found.network.items() if key == "backbone_settings"} == settings
    assert found.backbones.keys() == found.heads.keys() == roles.keys() and found.queue == {}
    for role, names in roles.items():
        with torch.device("meta"):
            network = Network(in_channels=found.channels(role), **found.network)
        assert network.in_channels == (2 if file == "cocon" else 3)
        assert_fills(found.state(role), network, names)


@every_file
def test_what_was_read_is_written_back_tensor_for_tensor(states: dict[str, dict[str, Tensor]], file: str) -> None:
    state = states[file]
    if file in ("dpc-18", "dpc-34", "cocon"):  # made on GPUs, where the network is wrapped
        state = {f"module.{name}": tensor for name, tensor in state.items()}
    back = published_state(import_published(state))
    assert back.keys() == state.keys()
    assert all(back[name].shape == t.shape and torch.equal(back[name], t) for name, t in state.items())


def test_networks_are_of_the_form_that_the_papers_compare_videos_by(states: dict[str, dict[str, Tensor]]) -> None:
    def compared(file: str) -> tuple[str, int, tuple[str, ...]]:
        found = import_published(states[file])
        with torch.device("meta"):
            network = Network(in_channels=3, **found.network)
        return found.layer, network.size(found.layer), network.layers

    assert compared(S3D) == ("backbone", 1024, ("backbone", "head"))
    assert compared(R21D) == ("backbone", 512, ("backbone", "head"))
    assert compared(GOCA) == ("backbone", 2048, ("backbone", "head"))  # the pool of 1x2x2
    assert compared("slic") == ("head", 128, ("backbone", "head"))
    assert compared("dpc-18") == compared("cocon") == ("backbone", 256, ("backbone", "context"))
    between = {file: import_published(states[file]).network["aggregation_settings"] for file in ("dpc-34", "cocon")}
    assert between == {"dpc-34": {"between": "relu"}, "cocon": {"between": "unit"}}


def test_prototypes_are_kept(states: dict[str, dict[str, Tensor]]) -> None:
    for file, name, count in ((S3D, "prototypes.weight", 300), (GOCA, "module.prototypes.weight", 1000)):
        prototypes = import_published(states[file]).prototypes
        assert prototypes is not None and prototypes.shape == (count, 128)
        assert (prototypes == layouts.number(name)).all()


def test_streams_of_goca_may_have_heads_of_their_own_or_be_alone(states: dict[str, dict[str, Tensor]]) -> None:
    state = states[GOCA]
    own = {
        name.replace("projection_head.", "projection_head_flow."): tensor + 1
        for name, tensor in state.items()
        if "projection_head." in name
    }
    found = import_published({**state, **own})
    assert found.extra == () and torch.equal(found.heads["flow"]["head.3.bias"], found.heads["rgb"]["head.3.bias"] + 1)
    back = published_state(found)
    assert back.keys() == (state | own).keys() and all(torch.equal(back[name], tensor) for name, tensor in own.items())
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
    first = "module.projection_head.0.weight"
    for features, pool in ((1024, "global"), (4096, "1x2x2")):
        state = networks | rest | {first: torch.zeros(2048, 1).expand(2048, features)}
        found = import_published(state)
        assert (found.layout, found.extra, found.clips.size) == ("goca", (), (128, 128))
        assert (found.network["backbone"], found.network["pool"]) == ("s3d", pool)
        assert published_state(found).keys() == state.keys()
    with pytest.raises(Refusal, match=r"projection_head\.0\.weight is \(2048, 2048\)"):
        import_published(networks | rest)  # of no pool of this backbone


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
        assert found.backbones.keys() == {"query"} and found.network["head"] == "classifier"
        with torch.device("meta"):
            network = Network(in_channels=3, **found.network)
        network.load_state_dict(found.state("query"), strict=True, assign=True)
        assert network.layers[-1] == "head" and network.size("head") == (51 if layout == "cocon" else 101)
        with pytest.raises(Refusal, match="only pre-trained networks are written"):
            published_state(found)
    named = import_published(probes["coclr"], "vicc")
    assert named.layout == "vicc" and named.network["backbone"] == "s3d" and named.extra == ()


def test_a_network_of_dpc_with_statistics_is_read_by_naming_its_layout(states: dict[str, dict[str, Tensor]]) -> None:
    state = layouts.predictive("34", statistics=True)
    assert import_published(state).layout == "cocon"
    found = import_published(state, "dpc")
    assert found.layout == "dpc" and found.network["backbone_settings"] == {} and found.extra == ()
    with pytest.raises(Refusal, match=r"missing backbone\.bn1\.running_mean"):
        import_published(states["dpc-18"], "cocon")


def test_a_bare_trunk_is_read_and_its_classifier_named(states: dict[str, dict[str, Tensor]]) -> None:
    trunk = {name: t for name, t in states["slic"].items() if not name.startswith(("fc", "bn_proj"))}
    found = import_published(trunk | {"fc.weight": torch.zeros(400, 512), "fc.bias": torch.zeros(400)})
    assert found.layout == "slic" and found.heads == {"query": {}} and found.extra == ("fc.weight", "fc.bias")
    assert (found.network["head"], found.layer) == ("none", "backbone")
    with pytest.raises(Refusal, match="only pre-trained networks are written"):
        published_state(found)


CHANGES: list[tuple[str, str, Any, str]] = [  # file, tensor, its replacement, what is said
    (R21D, "prototypes.weight", None, r"missing prototypes\.weight"),
    (R21D, "prototypes.weight", (300, 64), r"prototypes\.weight is \(300, 64\), not \(300, 128\)"),
    (R21D, "encoder_q.0.conv3.block1.bn2.bias", None, r"missing encoder_q\.0\.conv3\.block1\.bn2\.bias"),
    (R21D, "encoder_q.2.weight", (512, 512), r"encoder_q\.2\.weight is \(512, 512\), not \(512, 512, 1, 1, 1\)"),
    (R21D, "encoder_q.4.weight", None, r"missing encoder_q\.4\.weight$"),
    (S3D, "second.0.block4.2.branch0.0.bn.bias", (160,),
     r"second\.0\.block4\.2\S+ is not equal to second\.0\.Mixed_4c"),
    (S3D, "second.4.bias", None, r"missing second\.4\.bias"),
    (GOCA, "module.video_network_flow.layer4.1.conv2.1.bias", None,
     r"missing video_network_flow\.layer4\.1\.conv2\.1\.bias"),
    (GOCA, "module.projection_head.4.running_var", None, r"missing projection_head\.4\.running_var"),
    (GOCA, "module.prototypes.weight", None, r"missing prototypes\.weight"),
    ("slic", "layer3.0.downsample.0.weight", (256, 128), r"layer3\.0\.downsample\.0\.weight is \(256, 128\)"),
    ("slic", "bn_proj.running_mean", None, r"missing bn_proj\.running_mean"),
    ("slic", "fc2.bias", (64,), r"fc2\.bias is \(64,\), not \(128,\)"),
    ("dpc-18", "agg.cell_list.0.out_gate.bias", (256,),
     r"agg\.cell_list\.0\.out_gate\.bias is not equal to agg\.ConvGRUCell_00"),
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
