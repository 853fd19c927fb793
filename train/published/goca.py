"""GOCA's files: an RGB and a flow network, trained together, on R(2+1)D-18 or S3D. The streams may share a projection
head."""

from __future__ import annotations

from train.clips.spec import ClipSpec
from train.published import FLOW_AS_IMAGE, Published
from train.published.contents import Contents, State, with_copies
from train.published.networks import COPIES, backbone, batch_norm, feature_size, refuse_without, renamed

NETWORKS = {"rgb": "video_network.", "flow": "video_network_flow."}
HEADS = {"rgb": "projection_head", "flow": "projection_head_flow"}
WRAPPED = "module."  # DistributedDataParallel
POOLS = {1: "global", 4: "1x2x2"}  # by how many numbers the head takes of each feature
CLIPS = {
    "r2plus1d-18": ClipSpec(length=32, stride=2, size=(112, 112), crop=1.0, streams=FLOW_AS_IMAGE, pixels="published"),
    "s3d": ClipSpec(length=32, stride=2, size=(128, 128), crop=1.0, streams=FLOW_AS_IMAGE, pixels="published"),
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
    own = {role: HEADS[role] if contents.has(f"{HEADS[role]}.") else HEADS["rgb"] for role in roles}
    features, taken = feature_size(name), contents.side(f"{own[roles[0]]}.0.weight", axis=1)
    cells = next((cells for cells in POOLS if taken == cells * features), max(POOLS))
    found = {prefix: _head(contents, prefix, cells * features) for prefix in set(own.values())}
    heads = {role: found[own[role]] for role in roles}
    hidden, dim = len(heads[roles[0]]["head.0.bias"]), len(heads[roles[0]]["head.6.bias"])
    network = {"backbone": name, "pool": POOLS[cells], "head": "goca", "head_settings": {"dim": dim, "hidden": hidden}}
    prototypes = contents.take("", {"prototypes.weight": (contents.side("prototypes.weight"), dim)})[
        "prototypes.weight"
    ]
    return Published("goca", network, made, heads, prototypes=prototypes, extra=contents.left, clips=CLIPS[name])


def write(published: Published) -> State:
    """The inverse of `read`: a state dict as GOCA's own code saves it, copies and its prefix included."""
    refuse_without("goca", published.network)
    state: State = {}
    copies = COPIES.get(published.network["backbone"], {})
    shared = published.heads.get("rgb") is published.heads.get("flow")
    for role, own in published.backbones.items():
        state |= {f"{NETWORKS[role]}{name}": tensor for name, tensor in with_copies(own, copies).items()}
        state |= renamed(published.heads[role], {"head": HEADS["rgb" if shared else role]})
    assert published.prototypes is not None
    state["prototypes.weight"] = published.prototypes
    return {WRAPPED + name: tensor for name, tensor in state.items()}


def _head(contents: Contents, prefix: str, size: int) -> State:
    """Linear, batch norm, ReLU, twice; linear."""
    width = contents.side(f"{prefix}.0.weight", f"{prefix}.0.bias")
    dim = contents.side(f"{prefix}.6.weight", f"{prefix}.6.bias")
    wanted = {
        **{f"{prefix}.0.weight": (width, size), f"{prefix}.0.bias": (width,), **batch_norm(f"{prefix}.1", width)},
        **{f"{prefix}.3.weight": (width, width), f"{prefix}.3.bias": (width,), **batch_norm(f"{prefix}.4", width)},
        **{f"{prefix}.6.weight": (dim, width), f"{prefix}.6.bias": (dim,)},
    }
    return renamed(contents.take("", wanted), {prefix: "head"})
