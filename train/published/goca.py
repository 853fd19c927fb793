"""GOCA's files (specs/goca.md section 1): an RGB and a flow network, trained together, on R(2+1)D-18 or S3D.

The projection head has batch norm and three layers, for which `train.networks.network.Network` has no place: it is kept under its
own names. Where both streams share one, both roles have it.
"""

from __future__ import annotations

from train.clip_spec import ClipSpec
from train.published import FLOW_AS_IMAGE, Published
from train.published.contents import Contents, State, with_copies
from train.published.networks import COPIES, backbone, batch_norm

NETWORKS = {"rgb": "video_network.", "flow": "video_network_flow."}
HEADS = {"rgb": "projection_head.", "flow": "projection_head_flow."}
WRAPPED = "module."  # DistributedDataParallel
CLIPS = {
    "r2plus1d-18": ClipSpec(length=32, stride=2, size=(112, 112), crop=1.0, streams=FLOW_AS_IMAGE),
    "s3d": ClipSpec(length=32, stride=2, size=(128, 128), crop=1.0, streams=FLOW_AS_IMAGE),
}


def recognises(state: State) -> bool:
    """Whether these are the tensors of one of GOCA's files."""
    return any(name.startswith(tuple(NETWORKS.values())) for name in state)


def read(state: State, where: str) -> Published:
    """See `train.published.import_published`. Roles: rgb, flow, or one of them."""
    contents = Contents(state, where)
    on_s3d = any(f"{prefix}Conv_1a.conv1.weight" in state for prefix in NETWORKS.values())
    name = "s3d" if on_s3d else "r2plus1d-18"
    roles = [role for role, prefix in NETWORKS.items() if contents.has(prefix)] or ["rgb"]
    made = {role: backbone(contents, NETWORKS[role], name) for role in roles}
    heads = {role: _head(contents, role) for role in roles}
    dim = next(tensor for key, tensor in heads[roles[0]].items() if key.endswith(".6.bias")).shape[0]
    wanted = {"prototypes.weight": (contents.side("prototypes.weight"), dim)}
    prototypes = contents.take("", wanted)["prototypes.weight"]
    return Published("goca", name, made, heads, prototypes, extra=contents.left, clips=CLIPS[name])


def write(published: Published) -> State:
    """The inverse of `read`: a state dict as GOCA's own code saves it, copies and its prefix included."""
    state: State = {}
    for role, own in published.backbones.items():
        copied = with_copies(own, COPIES.get(published.backbone, {}))
        state |= {f"{NETWORKS[role]}{name}": tensor for name, tensor in copied.items()} | published.heads[role]
    assert published.prototypes is not None
    state["prototypes.weight"] = published.prototypes
    return {WRAPPED + name: tensor for name, tensor in state.items()}


def _head(contents: Contents, role: str) -> State:
    """Linear, batch norm, ReLU, twice; linear."""
    prefix = HEADS[role] if contents.has(HEADS[role]) else HEADS["rgb"]
    size, width = contents.side(f"{prefix}0.weight", axis=1), contents.side(f"{prefix}0.weight", f"{prefix}0.bias")
    dim = contents.side(f"{prefix}6.weight", f"{prefix}6.bias")
    wanted = {
        **{"0.weight": (width, size), "0.bias": (width,), **batch_norm("1", width)},
        **{"3.weight": (width, width), "3.bias": (width,), **batch_norm("4", width)},
        **{"6.weight": (dim, width), "6.bias": (dim,)},
    }
    return {prefix + name: tensor for name, tensor in contents.take(prefix, wanted).items()}
