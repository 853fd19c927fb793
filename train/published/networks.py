"""Backbones and heads that files of several layouts hold."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import torch

from pipeline.errors import Refusal
from train import backbones
from train.backbones import Backbone
from train.published.contents import Contents, Shapes, State, with_copies

# Every tensor of S3D is stored twice, also within `block1` to `block5`.
BLOCKS = {
    "block1.0": "Conv_1a",
    "block2.1": "Conv_2b",
    "block2.2": "Conv_2c",
    "block3.1": "Mixed_3b",
    "block3.2": "Mixed_3c",
    **{f"block4.{place}": f"Mixed_4{letter}" for place, letter in enumerate("bcdef", start=1)},
    "block5.1": "Mixed_5b",
    "block5.2": "Mixed_5c",
}
COPIES: dict[str, dict[str, str]] = {"s3d": BLOCKS, "s3dg": BLOCKS}  # of our backbones
HEAD = {"head.0": "2", "head.2": "4"}  # our name of a layer: its place in a published sequence
PROBED = "backbone."  # where linear probes and fine-tuned networks have theirs
DROPPED = 0.9  # share of the features that CoCLR's and ViCC's fine-tuning zeroes
STATISTICS = ("running_mean", "running_var")


def backbone(contents: Contents, prefix: str, name: str, **settings: bool) -> State:
    """State dict of our backbone of that name and settings, for as many input channels as the file's has."""
    first = next(iter(_shapes(_outline(name, 3, **settings))))
    channels = contents.side(prefix + first, axis=1) or 3
    return contents.take(prefix, _shapes(_outline(name, channels, **settings)), COPIES.get(name))


def feature_size(name: str) -> int:
    """Features of our backbone of that name."""
    return _outline(name, 3).feature_size


def sequences(
    contents: Contents, prefixes: Mapping[str, str], name: str
) -> tuple[dict[str, State], dict[str, State], dict[str, Any]]:
    """Backbones and heads by role, of networks stored as sequences: 0 the backbone, 2 and 4 the head's convolutions;
    and what `Network` is made with.

    prefixes: role -> prefix; the query's must be there, the others may. A linear probe or a fine-tuned network, which
    has its backbone below `backbone.`, is the query, with its classifier as the head.
    """
    if contents.has(PROBED) and not contents.has("final_"):
        return {"query": backbone(contents, PROBED, name)}, {"query": {}}, {"backbone": name, "head": "none"}
    if contents.has(PROBED):
        probed = contents.has("final_fc.0.")
        head, settings = classifier(contents, feature_size(name), "final_fc.0" if probed else "final_fc.1")
        settings |= {"unit_input": True} if probed else {"dropout": DROPPED}
        made_with = {"backbone": name, "head": "classifier", "head_settings": settings}
        return {"query": backbone(contents, PROBED, name)}, {"query": head}, made_with
    found = {role: prefix for role, prefix in prefixes.items() if role == "query" or contents.has(prefix)}
    made = {role: backbone(contents, f"{prefix}0.", name) for role, prefix in found.items()}
    heads = {role: _head(contents, prefix, feature_size(name)) for role, prefix in found.items()}
    dim = len(heads["query"]["head.2.weight"])
    return made, heads, {"backbone": name, "head": "coclr", "head_settings": {"dim": dim}}


def sequence(prefix: str, name: str, backbone: State, head: State) -> State:
    """The inverse of `sequences` for one role: copies included, the head's linear layers as convolutions."""
    state = {f"{prefix}0.{key}": tensor for key, tensor in with_copies(backbone, COPIES.get(name, {})).items()}
    for ours, place in HEAD.items():
        weight, bias = (head[f"{ours}.{kind}"] for kind in ("weight", "bias"))
        state |= {f"{prefix}{place}.weight": weight[:, :, None, None, None], f"{prefix}{place}.bias": bias}
    return state


def classifier(contents: Contents, features: int, linear: str, norm: str = "final_bn") -> tuple[State, dict[str, Any]]:
    """Our classifier of those layers, of which the batch norm may be missing, and what it is made with."""
    names, classes = {linear: "head.linear"}, contents.side(f"{linear}.weight", f"{linear}.bias")
    wanted: dict[str, tuple[int, ...]] = {f"{linear}.weight": (classes, features), f"{linear}.bias": (classes,)}
    if contents.has(f"{norm}."):
        names[norm] = "head.batch_norm"
        wanted |= batch_norm(norm, features)
    settings = {"dim": classes} | ({"batch_norm": True} if norm in names else {})
    return renamed(contents.take("", wanted), names), settings


def renamed(state: State, names: Mapping[str, str]) -> State:
    """The same tensors with other names of modules: given name -> new name, neither of them within another one."""
    return {
        new + key.removeprefix(given): tensor
        for key, tensor in state.items()
        for given, new in names.items()
        if key.startswith(f"{given}.")
    }


def refuse_without(head: str, found: Mapping[str, Any]) -> None:
    """Raises Refusal for networks with another head than that, which files in the published layouts have."""
    if found.get("head") != head:
        raise Refusal(
            "only pre-trained networks are written, not ones with a classifier or nothing in place of the head",
            where=f"a network with head {found.get('head')}, not {head}",
            remedy="keep the file that it was read from",
        )


def batch_norm(name: str, width: int) -> Shapes:
    """Shapes of a batch norm's tensors."""
    sizes = {f"{name}.{part}": (width,) for part in ("weight", "bias", *STATISTICS)}
    return {**sizes, f"{name}.num_batches_tracked": ()}


def _head(contents: Contents, prefix: str, size: int) -> State:
    """Our head: linear weights (out, in) of convolutions (out, in, 1, 1, 1)."""
    dim = contents.side(f"{prefix}4.weight", f"{prefix}4.bias")
    wanted = {"2.weight": (size, size, 1, 1, 1), "2.bias": (size,), "4.weight": (dim, size, 1, 1, 1), "4.bias": (dim,)}
    found = contents.take(prefix, wanted)
    return {
        f"{ours}.{kind}": found[f"{place}.{kind}"].flatten(1) if kind == "weight" else found[f"{place}.{kind}"]
        for ours, place in HEAD.items()
        for kind in ("weight", "bias")
    }


@functools.cache
def _outline(name: str, channels: int, **settings: bool) -> Backbone:
    """Our backbone without memory."""
    with torch.device("meta"):
        return backbones.create(name, in_channels=channels, **settings)


def _shapes(network: Backbone) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
