"""Checkpoints in the layouts of the papers: read, compared with their copies, refused by name, written back."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import train  # noqa: F401  (before torch)

# isort: split
import pytest
import torch
from torch import Tensor

from pipeline.errors import Refusal, UsageError
from train import backbones, published
from train.checkpoints import import_published
from train.networks.network import Network
from train.networks.queue import Queue
from train.published import coclr, vicc
from train.published.networks import BLOCKS

LISTS = Path(__file__).parents[1] / "conformance"
KINDS = ("infonce", "coclr")


def published_state(kind: str, seed: int = 0) -> dict[str, Tensor]:
    """Random tensors under every name of a released file, copies equal."""
    entries = json.loads(gzip.decompress((LISTS / f"coclr_{kind}_s3d_state_dict.json.gz").read_bytes()))["entries"]
    generator, state = torch.Generator().manual_seed(seed), {}
    for name, shape, kind_ in entries:
        dtype = getattr(torch, kind_)
        if ".0.block" in name:
            continue
        number = torch.randn(shape, generator=generator)
        state[name] = number if dtype.is_floating_point else (5 * number).to(dtype)
    for name, *_ in entries:
        original = name
        for alias, module in BLOCKS.items():
            original = original.replace(f".0.{alias}.", f".0.{module}.")
        state[name] = state[original]
    state["queue_ptr"] = torch.tensor([64])
    if "queue_label" in state:
        state["queue_label"] = torch.where(torch.arange(len(state["queue_label"])) < 64, 1, -1)
    return state


@pytest.fixture(scope="module")
def states() -> dict[str, dict[str, Tensor]]:
    return {kind: published_state(kind) for kind in KINDS}


@pytest.fixture(params=KINDS)
def state(request: Any, states: dict[str, dict[str, Tensor]]) -> dict[str, Tensor]:
    return dict(states[request.param])


@pytest.fixture
def infonce(states: dict[str, dict[str, Tensor]]) -> dict[str, Tensor]:
    return dict(states["infonce"])


@pytest.mark.remedy("name it: {}; its first tensors are {}")
def test_a_layout_that_could_be_two_is_named(states: dict[str, dict[str, Tensor]], monkeypatch: Any) -> None:
    monkeypatch.setattr(vicc, "recognises", lambda state: True)
    with pytest.raises(Refusal, match=r"the layout of the checkpoint cannot be told \(coclr, vicc\)"):
        import_published(states["infonce"])
    assert import_published(states["infonce"], "coclr").layout == "coclr"


def test_a_released_file_fills_our_networks_and_queue(state: dict[str, Tensor]) -> None:
    found = import_published(state)
    roles = {"query", "key", "sampler"} if "queue_second" in state else {"query", "key"}
    assert found.layout == "coclr" and found.network["backbone"] == "s3d" and found.extra == ()
    assert found.backbones.keys() == found.heads.keys() == roles
    for role in roles:
        network = Network("s3d", 3)
        network.backbone.load_state_dict(found.backbones[role])
        network.load_state_dict({**network.state_dict(), **found.heads[role]})
        prefix = coclr.ENCODERS[role]
        assert torch.equal(
            network.backbone.Mixed_4c.branch1[1].conv2.weight, state[f"{prefix}0.Mixed_4c.branch1.1.conv2.weight"]
        )
        assert torch.equal(network.head[2].weight, state[f"{prefix}4.weight"][:, :, 0, 0, 0])
    assert torch.equal(found.queue["features"], state["queue"].T) and found.queue["pointer"] == 64
    queue = Queue(2048, 128)
    mine = {name: tensor for name, tensor in found.queue.items() if name != "other"}
    queue.load_state_dict({**queue.state_dict(), **mine})
    if "queue_second" in state:
        assert torch.equal(found.queue["other"], state["queue_second"].T)
        assert torch.equal(queue.sources, state["queue_vname"]) and queue.filled.sum() == 64 and not queue.full


def test_what_was_read_is_written_back_tensor_for_tensor(state: dict[str, Tensor]) -> None:
    back = coclr.write(import_published(state))
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in state.items())


def test_the_head_computes_what_the_published_convolutions_compute(infonce: dict[str, Tensor]) -> None:
    network = Network("s3d", 3)
    network.load_state_dict({**network.state_dict(), **import_published(infonce).heads["query"]})
    pooled = torch.randn(2, 1024, 1, 1, 1, generator=torch.Generator().manual_seed(1))
    first = torch.nn.functional.conv3d(pooled, infonce["encoder_q.2.weight"], infonce["encoder_q.2.bias"]).relu()
    wanted = torch.nn.functional.conv3d(first, infonce["encoder_q.4.weight"], infonce["encoder_q.4.bias"])
    # Sums of a thousand numbers of size one: float32 keeps four digits of those that cancel.
    torch.testing.assert_close(network.head(pooled.flatten(1)), wanted.flatten(1), rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("how", ["file", "loaded file", "bare", "module."])
def test_files_loaded_files_and_bare_states_are_read(infonce: dict[str, Tensor], tmp_path: Path, how: str) -> None:
    whole = {"epoch": 300, "state_dict": infonce, "best_acc": 0.5, "optimizer": {"state": {}}, "iteration": 1}
    torch.save(whole, tmp_path / "a.pth.tar")
    given: Any = {
        "file": tmp_path / "a.pth.tar",
        "loaded file": whole,
        "bare": infonce,
        "module.": {f"module.{name}": tensor for name, tensor in infonce.items()},
    }[how]
    found = import_published(given, "coclr")
    assert torch.equal(found.heads["key"]["head.0.bias"], infonce["encoder_k.2.bias"]) and found.extra == ()


def test_files_without_copies_are_read(infonce: dict[str, Tensor]) -> None:
    alone = {name: tensor for name, tensor in infonce.items() if ".0.block" not in name}
    assert len(alone) == len(infonce) - 2 * 462
    found, whole = import_published(alone), import_published(infonce)
    assert all(torch.equal(found.backbones["key"][name], tensor) for name, tensor in whole.backbones["key"].items())


@pytest.mark.parametrize("kind", ["probe", "fine-tuned"])
def test_probes_and_fine_tuned_networks_are_read(infonce: dict[str, Tensor], kind: str) -> None:
    state = {
        name.replace("encoder_q.0.", "backbone."): t for name, t in infonce.items() if name.startswith("encoder_q.0.")
    }
    place = "0" if kind == "probe" else "1"
    state |= {f"final_fc.{place}.weight": torch.randn(101, 1024), f"final_fc.{place}.bias": torch.randn(101)}
    if kind == "probe":
        state |= {f"final_bn.{name}": torch.randn(1024) for name in ("weight", "bias", "running_mean", "running_var")}
        state["final_bn.num_batches_tracked"] = torch.tensor(7)
    found = import_published(state)
    assert found.backbones.keys() == {"query"} and found.queue == {} and found.extra == ()
    network = Network(in_channels=3, **found.network)
    network.load_state_dict(found.state("query"))
    assert torch.equal(network.head.linear.weight, state[f"final_fc.{place}.weight"])
    kinds = [type(layer).__name__ for layer in network.head]
    assert kinds == (["UnitRows", "BatchNorm1d", "Linear"] if kind == "probe" else ["Dropout", "Linear"])


def test_labels_of_ubernce_come_with_the_queue(infonce: dict[str, Tensor]) -> None:
    infonce["queue_label"] = torch.cat([torch.arange(100), torch.full((1948,), -1)])
    found = import_published(infonce)
    assert torch.equal(found.queue["labels"], infonce["queue_label"]) and found.queue["filled"].sum() == 100


def test_networks_with_gates_and_two_channels_are_read(infonce: dict[str, Tensor]) -> None:
    with torch.device("meta"):
        gated = backbones.create("s3dg", in_channels=2).state_dict()
    made = {f"backbone.{name}": torch.zeros(tensor.shape, dtype=tensor.dtype) for name, tensor in gated.items()}
    found = import_published(made)
    assert found.network["backbone"] == "s3dg" and found.backbones["query"]["Conv_1a.conv1.weight"].shape[1] == 2


def on_r50(infonce: dict[str, Tensor]) -> dict[str, Tensor]:
    """A released file of InfoNCE with random tensors of the code's ResNet-50 in place of S3D."""
    with torch.device("meta"):
        listed = Network("resnet2d3d-50", 3).state_dict()
    state = {name: infonce[name] for name in ("queue", "queue_ptr")}
    for prefix in ("encoder_q.", "encoder_k."):
        for name, tensor in listed.items():
            place = name.replace("backbone.", "0.").replace("head.0.", "2.").replace("head.2.", "4.")
            shape = (*tensor.shape, 1, 1, 1) if name.startswith("head.") and tensor.ndim == 2 else tensor.shape
            state[prefix + place] = torch.empty(shape, dtype=tensor.dtype)
    return state


def test_files_on_the_resnet_of_the_code_are_read_and_written_back(infonce: dict[str, Tensor]) -> None:
    state = on_r50(infonce)
    found = import_published(state)
    assert found.layout == "coclr" and found.extra == ()
    assert found.network == {"backbone": "resnet2d3d-50", "head": "coclr", "head_settings": {"dim": 128}}
    with torch.device("meta"):
        network = Network(in_channels=found.channels("query"), **found.network)
    for role in ("query", "key"):
        network.load_state_dict(found.state(role), strict=True, assign=True)
    back = published.published_state(found)
    assert back.keys() == state.keys() and all(
        back[name].data_ptr() == state[name].data_ptr() for name in back if name != "queue"
    )
    probe = {
        name.replace("encoder_q.0.", "backbone."): t for name, t in state.items() if name.startswith("encoder_q.0.")
    }
    probe |= {"final_fc.1.weight": torch.zeros(101, 2048), "final_fc.1.bias": torch.zeros(101)}
    again = import_published(probe)
    assert again.layout == "coclr" and again.network["backbone"] == "resnet2d3d-50"
    with pytest.raises(Refusal, match=r"missing encoder_q\.0\.layer3\.5\.conv3\.weight"):
        import_published(
            {name: tensor for name, tensor in state.items() if name != "encoder_q.0.layer3.5.conv3.weight"}
        )


@pytest.mark.remedy("give the file as it was published; nothing was loaded")
def test_unequal_copies_missing_and_misshapen_tensors_are_refused_by_their_names(infonce: dict[str, Tensor]) -> None:
    copy = "encoder_k.0.block4.2.branch0.0.bn.bias"
    with pytest.raises(Refusal, match=rf"(?s){copy} is not equal to encoder_k.0.Mixed_4c.branch0.0.bn.bias"):
        import_published({**infonce, copy: infonce[copy] + 1})
    gone = {
        name: tensor
        for name, tensor in infonce.items()
        if not name.endswith(("Mixed_5c.branch3.1.bn.bias", "block5.2.branch3.1.bn.bias"))
    }
    with pytest.raises(Refusal, match=r"missing encoder_q\.0\.Mixed_5c\.branch3\.1\.bn\.bias"):
        import_published(gone)
    with pytest.raises(Refusal, match=r"encoder_q\.0\.Conv_2b\.bn\.bias is \(3,\), not \(64,\)"):
        import_published({**infonce, **{f"encoder_q.0.{n}.bn.bias": torch.zeros(3) for n in ("Conv_2b", "block2.1")}})
    for name in ("encoder_k.4.weight", "queue_ptr"):
        with pytest.raises(Refusal, match=f"missing {name}"):
            import_published({key: tensor for key, tensor in infonce.items() if key != name})
    with pytest.raises(Refusal, match="queue_label has 5 slots, queue has 2048"):
        import_published({**infonce, "queue_label": torch.zeros(5)})
    import_published(infonce)


def test_tensors_that_belong_nowhere_are_named(infonce: dict[str, Tensor]) -> None:
    assert import_published({**infonce, "temperature": torch.ones(1)}).extra == ("temperature",)


def test_files_that_run_code_or_are_none_are_refused(tmp_path: Path) -> None:
    class Code:
        def __reduce__(self) -> Any:
            return (print, ("run",))

    torch.save({"state_dict": Code()}, tmp_path / "code.pth")
    with pytest.raises(Refusal, match="might run code"):
        import_published(tmp_path / "code.pth")
    (tmp_path / "broken.pth").write_bytes(b"PK\x03\x04" + bytes(50))
    with pytest.raises(Refusal, match=r"broken\.pth"):
        import_published(tmp_path / "broken.pth")
    with pytest.raises(Refusal, match=r"(?s)there is no checkpoint.*nowhere\.pth"):
        import_published(tmp_path / "nowhere.pth")
    with pytest.raises(Refusal, match="no state dict"):
        import_published({"state_dict": [1, 2]})
    with pytest.raises(Refusal, match=r"(?s)cannot be told.*first tensors are a"):
        import_published({"a": torch.zeros(1)})
    with pytest.raises(UsageError, match=r'(?s)"coclrs".*"coclr"'):
        import_published({"a": torch.zeros(1)}, "coclrs")
