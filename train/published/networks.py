"""Backbones and heads that files of several layouts hold."""

from __future__ import annotations

import functools
from collections.abc import Mapping

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
STATISTICS = ("running_mean", "running_var")


def backbone(contents: Contents, prefix: str, name: str, **settings: bool) -> State:
    """State dict of our backbone of that name and settings, for as many input channels as the file's has."""
    first = next(iter(_shapes(_outline(name, 3, **settings))))
    channels = contents.side(prefix + first, axis=1) or 3
    return contents.take(prefix, _shapes(_outline(name, channels, **settings)), COPIES.get(name))


def encoders(contents: Contents, prefixes: Mapping[str, str], name: str) -> tuple[dict[str, State], dict[str, State]]:
    """Backbones and heads by role, of networks stored as sequences: 0 the backbone, 2 and 4 the head's convolutions.

    prefixes: role -> prefix; the query's must be there, the others may. A linear probe or a fine-tuned network, which has
    its backbone below `backbone.`, is the query, with its classifier as the head.
    """
    if contents.has(PROBED):
        return {"query": backbone(contents, PROBED, name)}, {"query": classifier(contents)}
    found = {role: prefix for role, prefix in prefixes.items() if role == "query" or contents.has(prefix)}
    made = {role: backbone(contents, f"{prefix}0.", name) for role, prefix in found.items()}
    return made, {role: _head(contents, prefix, _outline(name, 3).feature_size) for role, prefix in found.items()}


def sequence(prefix: str, name: str, backbone: State, head: State) -> State:
    """The inverse of `encoders` for one role: copies included, the head's linear layers as convolutions."""
    refuse_classifier(head, "head.0.weight")
    state = {f"{prefix}0.{key}": tensor for key, tensor in with_copies(backbone, COPIES.get(name, {})).items()}
    for ours, place in HEAD.items():
        weight, bias = (head[f"{ours}.{kind}"] for kind in ("weight", "bias"))
        state |= {f"{prefix}{place}.weight": weight[:, :, None, None, None], f"{prefix}{place}.bias": bias}
    return state


def classifier(contents: Contents) -> State:
    """Of a probe (`final_bn`, `final_fc.0`) or a fine-tuned network (`final_fc.1`, behind its dropout)."""
    renamed = {"final_fc.0.": "final_fc.", "final_fc.1.": "final_fc."}
    made = {}
    for name, tensor in contents.below("final_").items():
        whole = f"final_{name}"
        place = next((place for place in renamed if whole.startswith(place)), "")
        made[whole.replace(place, renamed[place]) if place else whole] = tensor
    return made


def refuse_classifier(head: State, needed: str) -> None:
    """Raises Refusal for a head that has no tensor `needed`, which files in the published layouts begin with."""
    if needed not in head:
        raise Refusal(
            "only pre-trained networks are written, not ones with a classifier in place of the head",
            where=f"the head has {', '.join(list(head)[:4]) or 'nothing'}",
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
