"""SLIC's files (specs/slic.md section 1): pre-trained networks and classifiers, on R3D-18.

The projection head (`fc1`, `bn_proj`, `fc2`) has batch norm, for which `train.networks.network.Network` has no place: it is kept under
its own names. A bare trunk, as Hara's 3D-ResNets are, is read too and its `fc` named among what is left over; those were
mostly trained with a pooling behind the stem, which SLIC's network does not have.
"""

from __future__ import annotations

from train.clip_spec import ClipSpec, StreamSettings
from train.published import Published
from train.published.contents import Contents, State
from train.published.networks import backbone, batch_norm, refuse_classifier

CLIPS = ClipSpec(
    length=16, stride=1, size=(128, 128), crop=1.0, streams={"flow": StreamSettings(input="u", mirror="plain")}
)


def recognises(state: State) -> bool:
    """Whether these are the tensors of one of SLIC's files."""
    return "conv1.weight" in state and "layer1.0.conv1.weight" in state


def read(state: State, where: str) -> Published:
    """See `train.published.import_published`. Role: query."""
    contents = Contents(state, where)
    made = backbone(contents, "", "r3d-18")
    return Published("slic", "r3d-18", {"query": made}, {"query": _head(contents)}, extra=contents.left, clips=CLIPS)


def write(published: Published) -> State:
    """The inverse of `read`: a state dict as SLIC's own code saves it. Raises Refusal for a classifier."""
    head = published.heads["query"]
    refuse_classifier(head, "fc1.weight")
    return published.backbones["query"] | head


def _head(contents: Contents) -> State:
    """Linear, batch norm, ReLU, linear; or the classifier in its place; or nothing."""
    if contents.has("linear."):
        return {f"linear.{name}": tensor for name, tensor in contents.below("linear.").items()}
    if not contents.has("fc1."):
        return {}
    size, width = contents.side("layer4.0.conv1.weight"), contents.side("fc1.weight", "fc1.bias")
    dim = contents.side("fc2.weight", "fc2.bias")
    wanted = {
        **{"fc1.weight": (width, size), "fc1.bias": (width,), **batch_norm("bn_proj", width)},
        **{"fc2.weight": (dim, width), "fc2.bias": (dim,)},
    }
    return contents.take("", wanted)
