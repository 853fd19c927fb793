"""The CoCLR family against values that the released code gave on fixed inputs."""

from __future__ import annotations

import copy
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader

from tests.conformance.reference import tensors
from train import backbones
from train.backbones import BACKBONES, Backbone
from train.losses.nce import (
    contrast_logits,
    cotraining_positives,
    info_nce,
    label_positives,
    multi_positive_nce,
    own_key_accuracy,
    positive_accuracy,
)
from train.methods.infonce import InfoNCE, InfoNCESettings
from train.networks.queue import Queue


def test_infonce_loss_gradient_accuracy_and_queue() -> None:
    values = tensors("coclr_infonce")
    raw = values["q_raw"].requires_grad_()
    query, key = functional.normalize(raw, dim=1), functional.normalize(values["k_raw"], dim=1)
    stored, temperature = values["queue_before"].T, values["T"].item()

    logits = contrast_logits(query, key, stored, temperature)
    torch.testing.assert_close(logits, values["logits"], rtol=0, atol=2e-5)
    rows = [info_nce(query[i : i + 1], key[i : i + 1], stored, temperature) for i in range(len(query))]
    torch.testing.assert_close(torch.stack(rows), values["loss_rows"], rtol=0, atol=2e-5)
    loss = info_nce(query, key, stored, temperature)
    loss.backward()
    torch.testing.assert_close(loss.detach(), values["loss"], rtol=0, atol=2e-5)
    torch.testing.assert_close(raw.grad, values["grad_q_raw"], rtol=0, atol=1e-4)
    assert own_key_accuracy(logits, 1) == values["top1"]
    assert own_key_accuracy(logits, 5) == values["top5"]

    queue = queue_before(values)
    queue.enqueue(key)
    torch.testing.assert_close(queue.features, values["queue_after"].T)
    assert queue.pointer == values["ptr_after"][0]


def queue_before(values: dict[str, Any], features: str = "queue_before") -> Queue:
    queue = Queue(*values[features].T.shape)
    queue.features.copy_(values[features].T)
    queue.pointer.copy_(values["ptr_before"])
    return queue


def test_ubernce_positives_loss_gradient_and_accuracy() -> None:
    values = tensors("coclr_ubernce")
    raw = values["q_raw"].requires_grad_()
    query, key = functional.normalize(raw, dim=1), functional.normalize(values["k_raw"], dim=1)
    logits = contrast_logits(query, key, values["queue_before"].T, values["T"].item())
    torch.testing.assert_close(logits, values["logits"], rtol=0, atol=2e-5)
    positives = label_positives(values["k_label"], values["queue_label_before"])
    assert torch.equal(positives, values["mask"])
    rows = [multi_positive_nce(logits[i : i + 1], positives[i : i + 1], "mean_of_logs") for i in range(len(query))]
    torch.testing.assert_close(torch.stack(rows), values["loss_rows"], rtol=0, atol=2e-5)
    loss = multi_positive_nce(logits, positives, "mean_of_logs")
    loss.backward(retain_graph=True)
    torch.testing.assert_close(loss.detach(), values["loss"], rtol=0, atol=2e-5)
    torch.testing.assert_close(raw.grad, values["grad_q_raw"], rtol=0, atol=1e-4)
    torch.testing.assert_close(multi_positive_nce(logits, positives).detach(), values["loss_logsum"], rtol=0, atol=2e-5)
    assert own_key_accuracy(logits, 1) == values["top1"] and own_key_accuracy(logits, 5) == values["top5"]
    queue = queue_before(values)
    queue.labels.copy_(values["queue_label_before"])
    queue.enqueue(key, labels=values["k_label"])
    torch.testing.assert_close(queue.features, values["queue_after"].T)
    assert torch.equal(queue.labels, values["queue_label_after"]) and queue.pointer == values["ptr_after"][0]


@pytest.mark.parametrize("state", ["full", "notfull"])
def test_cotraining_positives_loss_gradient_and_accuracy(state: str) -> None:
    values = tensors(f"coclr_cotrain_{state}")
    streams = ("flow", "rgb") if values["reverse"] else ("rgb", "flow")
    clip = {
        (stream, number): functional.normalize(values[f"{stream}_clip{number}"], dim=1)
        for stream in streams
        for number in (1, 2)
    }
    raw = values[f"{streams[0]}_clip1"].requires_grad_()
    query = functional.normalize(raw, dim=1)
    logits = contrast_logits(query, clip[streams[0], 2], values["queue_before"].T, values["T"].item())
    torch.testing.assert_close(logits, values["logits"], rtol=0, atol=2e-5)
    positives = cotraining_positives(
        clip[streams[1], 2],
        values["queue_second_before"].T,
        values["k_vsource"],
        values["queue_vname_before"],
        top_k=int(values["topk"]),
        mine=bool(values["queue_is_full"]),
    )
    assert torch.equal(positives, values["mask"])
    for drop_self, name in ((False, "all"), (True, "noself")):
        rows = [
            multi_positive_nce(logits[i : i + 1], positives[i : i + 1], drop_self=drop_self) for i in range(len(query))
        ]
        torch.testing.assert_close(torch.stack(rows), values[f"loss_rows_{name}"], rtol=0, atol=2e-5)
        loss = multi_positive_nce(logits, positives, drop_self=drop_self)
        torch.testing.assert_close(loss.detach(), values[f"loss_{name}"], rtol=0, atol=2e-5)
        (gradient,) = torch.autograd.grad(loss, raw, retain_graph=True)
        torch.testing.assert_close(gradient, values[f"grad_query_{name}"], rtol=0, atol=1e-4)
    main, other = queue_before(values), queue_before(values, "queue_second_before")
    main.sources.copy_(values["queue_vname_before"])
    main.filled.copy_(values["queue_label_before"] != -1)
    assert main.full == values["queue_is_full"]
    main.enqueue(clip[streams[0], 2], sources=values["k_vsource"])
    other.enqueue(clip[streams[1], 2])
    torch.testing.assert_close(main.features, values["queue_after"].T)
    torch.testing.assert_close(other.features, values["queue_second_after"].T)
    assert torch.equal(main.sources, values["queue_vname_after"])
    assert torch.equal(main.filled, values["queue_label_after"] != -1) and main.pointer == values["ptr_after"][0]
    for k in (1, 5):
        assert positive_accuracy(logits, positives, k) == values[f"top{k}"]
        assert own_key_accuracy(logits, k) == values[f"self_top{k}"]


@pytest.fixture(scope="module")
def s3d() -> Backbone:
    """S3D with weights that follow from each tensor's name."""
    network = backbones.create("s3d")
    network.load_state_dict({name: by_rule(name, tensor) for name, tensor in network.state_dict().items()})
    return network


def by_rule(name: str, tensor: Tensor) -> Tensor:
    if name.endswith("num_batches_tracked"):
        return torch.zeros_like(tensor)
    x = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(tuple(tensor.shape))
    if name.endswith("running_mean") or name.endswith("bias"):
        x = 0.1 * x
    elif name.endswith("running_var"):
        x = 1 + 0.1 * np.abs(x)
    elif x.ndim >= 2:
        x = x * np.sqrt(2 / np.prod(x.shape[1:]))
    else:
        x = 1 + 0.1 * x
    return torch.from_numpy(x).float()


# Batch norm over as few as 16 values amplifies rounding: in train mode the float32 reference is itself 6e-4 away from
# the same network in float64, another float32 run 1e-3. So float64 stands in for the exact result.
@pytest.mark.parametrize(
    ("mode", "dtype", "tolerance"),
    [("eval", torch.float32, 5e-5), ("eval", torch.float64, 2e-5), ("train", torch.float64, 1e-3)],
)
def test_s3d_stages_and_output(s3d: Backbone, mode: str, dtype: torch.dtype, tolerance: float) -> None:
    values = tensors("coclr_backbone_s3d")
    shape = tuple(values["input_shape"].tolist())
    clips = torch.from_numpy(np.random.RandomState(values["input_seed"].item()).standard_normal(shape)).float()
    network = copy.deepcopy(s3d).to(dtype).train(mode == "train")
    stages: dict[str, Tensor] = {}
    last = {"block1": "Conv_1a", "block2": "Conv_2c", "block3": "Mixed_3c", "block4": "Mixed_4f", "block5": "Mixed_5c"}
    for block, layer in last.items():
        network.get_submodule(layer).register_forward_hook(lambda _, __, out, block=block: stages.update({block: out}))
    with torch.no_grad():
        features = network(clips.to(dtype))

    torch.testing.assert_close(features.float(), values[f"{mode}/out"], rtol=0, atol=tolerance)
    assert len(stages) == 5
    for block, out in stages.items():
        assert list(out.shape) == values[f"{mode}/{block}/shape"].tolist()
        summary = torch.stack([out.double().mean(), out.double().std()])
        torch.testing.assert_close(summary, values[f"{mode}/{block}/mean_std"], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(
            out.flatten()[:64].float(), values[f"{mode}/{block}/first64"], rtol=0, atol=tolerance
        )
    if mode == "train":
        for name in ("running_mean", "running_var"):
            moved = network.get_buffer(f"Conv_1a.bn1.{name}").float()
            torch.testing.assert_close(moved, values[f"after_train/Conv_1a.bn1.{name}"])


class Tiny(Backbone):
    """The network of the reference run: one convolution over space, batch norm, ReLU."""

    smallest_clip = (1, 3, 3)

    def __init__(self, in_channels: int = 3) -> None:
        super().__init__()
        self.feature_size = 6
        self.conv = nn.Conv3d(in_channels, 6, (1, 3, 3), padding=(0, 1, 1), bias=False)
        self.bn = nn.BatchNorm3d(6)

    def forward(self, clips: Tensor) -> Tensor:
        return functional.relu(self.bn(self.conv(clips)))


class Views:
    def __init__(self, first: Tensor, second: Tensor) -> None:
        self.clips = [first, second]

    def view(self, stream: str, number: int) -> Tensor:
        return self.clips[number]

    def to_send(self, stream: str, number: int) -> tuple[Tensor, ...]:
        return (self.view(stream, number),)


def ours(values: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The part of the reference under `prefix`, in our names and shapes."""
    parts = {"0": "backbone", "2": "head.0", "4": "head.2"}
    state = {}
    for name, tensor in values.items():
        if not name.startswith(f"{prefix}/"):
            continue
        role, *rest = name.removeprefix(f"{prefix}/").split(".")
        if role == "queue":
            state["pair.queue.features"] = tensor.T
        elif role == "queue_ptr":
            state["pair.queue.pointer"] = tensor[0]
        else:
            encoder = {"encoder_q": "pair.query", "encoder_k": "pair.key"}[role]
            flat = tensor.flatten(1) if rest[0] != "0" and tensor.ndim > 1 else tensor
            state[".".join([encoder, parts[rest[0]], *rest[1:]])] = flat
    return state


class CompareSteps(Callback):
    def __init__(self, values: dict[str, Tensor]) -> None:
        self.values, self.losses = values, []

    def on_train_batch_end(self, trainer: Trainer, method: LightningModule, outputs: Any, *args: Any) -> None:
        self.losses.append(outputs["loss"])
        state = method.state_dict()
        expected = ours(self.values, f"step{trainer.global_step - 1}")
        assert len(expected) == 7
        for name, tensor in expected.items():
            torch.testing.assert_close(
                state[name], tensor, rtol=1e-7, atol=1e-9, msg=lambda text, name=name: name + text
            )


@pytest.mark.filterwarnings("ignore:.*num_workers", "ignore:.*log_every_n_steps")
def test_six_training_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six steps of our method, under Lightning, from the reference's initial state, in float64."""
    values = tensors("coclr_train_infonce")
    monkeypatch.setitem(BACKBONES.entries, "tiny", f"{__name__}:Tiny")
    settings = InfoNCESettings(
        stream="rgb",
        backbone="tiny",
        dim=values["D"].item(),
        queue=values["K"].item(),
        momentum=values["m"].item(),
        temperature=values["T"].item(),
        optimiser={"name": "adam", "lr": values["lr"].item(), "weight_decay": values["wd"].item()},
    )
    method = InfoNCE(settings, {"rgb": 3}).double()
    missing, unexpected = method.load_state_dict(ours(values, "init"), strict=False)
    # What the queue knows of its slots beside the keys: the released InfoNCE keeps none of it.
    slots = ["pair.queue.labels", "pair.queue.sources", "pair.queue.filled"]
    assert missing == slots and not unexpected
    batches = [Views(step[0, :, 0], step[1, :, 0]) for step in values["x"]]  # clip 1, clip 2; stream 0 is RGB
    compare = CompareSteps(values)
    Trainer(
        accelerator="cpu",
        max_epochs=1,
        callbacks=[compare],
        default_root_dir=tmp_path,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(method, DataLoader(batches, batch_size=None))
    # Lightning logs in float32.
    torch.testing.assert_close(torch.stack(compare.losses).double(), values["loss"], rtol=1e-6, atol=1e-7)
    final = ours(values, "final")
    assert set(final) == set(method.state_dict()) - set(slots)
    for name, tensor in final.items():
        torch.testing.assert_close(method.state_dict()[name], tensor, rtol=1e-7, atol=1e-9)
