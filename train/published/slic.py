"""SLIC's files: pre-trained networks and classifiers, on R3D-18.

A bare trunk, as Hara's 3D-ResNets are, is read too and its `fc` named among what is left over; those were mostly
trained with a pooling behind the stem, which SLIC's network does not have.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from train.clips.colour import Statistics
from train.clips.spec import ClipSpec, StreamSettings
from train.published import Published
from train.published.contents import Contents, State
from train.published.networks import backbone, batch_norm, classifier, feature_size, refuse_without, renamed

BACKBONE = "r3d-18"
HEAD = {"fc1": "head.0", "bn_proj": "head.1", "fc2": "head.3"}
CLIPS = ClipSpec(
    length=16,
    stride=1,
    size=(128, 128),
    crop=1.0,
    streams={"flow": StreamSettings(input="u", mirror="plain")},
    pixels="published",
)


def statistics(pretraining: str) -> Statistics:
    """By which pixels are normalised for a pre-trained network, after the data set; for classifiers ImageNet's are."""
    return "kinetics" if "kinetics" in pretraining.lower() else "imagenet"


def is_own(network: Mapping[str, Any]) -> bool:
    """Whether a network of those settings has the form that is written here."""
    return network["backbone"] == BACKBONE and network["head"] == "slic" and network["pool"] == "global"


def recognises(state: State) -> bool:
    """Whether these are the tensors of one of SLIC's files."""
    return "conv1.weight" in state and "layer1.0.conv1.weight" in state


def read(state: State, where: str) -> Published:
    """See `train.published.import_published`. Role: query. Videos are compared by what the projection head gives."""
    contents = Contents(state, where)
    made = backbone(contents, "", BACKBONE)
    head, network = _head(contents)
    layer = "head" if network["head"] == "slic" else "backbone"
    network |= {"backbone": BACKBONE}
    return Published("slic", network, {"query": made}, {"query": head}, layer, extra=contents.left, clips=CLIPS)


def write(published: Published) -> State:
    """The inverse of `read`: a state dict as SLIC's own code saves it. Raises Refusal for a classifier."""
    refuse_without("slic", published.network)
    return published.backbones["query"] | renamed(published.heads["query"], {ours: own for own, ours in HEAD.items()})


def _head(contents: Contents) -> tuple[State, dict[str, Any]]:
    """Linear, batch norm, ReLU, linear; or the classifier in its place; or nothing. And what it is made with."""
    features = feature_size(BACKBONE)
    if contents.has("linear."):  # behind a dropout, unless it was set to 0
        made, settings = classifier(contents, features, "linear.1" if contents.has("linear.1.") else "linear")
        return made, {"head": "classifier", "head_settings": settings}
    if not contents.has("fc1."):
        return {}, {"head": "none"}
    width, dim = contents.side("fc1.weight", "fc1.bias"), contents.side("fc2.weight", "fc2.bias")
    wanted = {
        **{"fc1.weight": (width, features), "fc1.bias": (width,), **batch_norm("bn_proj", width)},
        **{"fc2.weight": (dim, width), "fc2.bias": (dim,)},
    }
    made = renamed(contents.take("", wanted), HEAD)
    return made, {"head": "slic", "head_settings": {"dim": dim, "hidden": width}}
