"""ViCC's files: single stage, cross stage, linear probe and fine-tuned networks, on S3D and
R(2+1)D.

Encoders are stored as CoCLR's are. Of the cross stage there is also the other stream's, frozen. The queues are in files
of their own, which are not read.
"""

from __future__ import annotations

from train.published import Published
from train.published.contents import Contents, State
from train.published.networks import PROBED, refuse_without, sequence, sequences

ENCODERS = {"query": "encoder_q.", "other": "second."}
WRITTEN = ("s3d", "r2plus1d-10")
FACTORISED = "conv1.spatial_conv.weight"  # the first weight of its R(2+1)D


def recognises(state: State) -> bool:
    """Whether these are the tensors of one of ViCC's files. What it probed or fine-tuned on S3D is taken for CoCLR's,
    whose names are the same."""
    factorised = any(f"{prefix}{FACTORISED}" in state for prefix in ("encoder_q.0.", PROBED))
    return factorised or ("prototypes.weight" in state and "encoder_q.0.Conv_1a.conv1.weight" in state)


def read(state: State, where: str) -> Published:
    """See `train.published.import_published`. Roles: query, other (of the cross stage)."""
    contents = Contents(state, where)
    factorised = any(name.endswith(f".{FACTORISED}") for name in state)
    name = "r2plus1d-10" if factorised else "s3d"
    made, heads, network = sequences(contents, ENCODERS, name)
    prototypes = None
    if not contents.has(PROBED):
        shape = (contents.side("prototypes.weight"), len(heads["query"]["head.2.weight"]))
        prototypes = contents.take("", {"prototypes.weight": shape})["prototypes.weight"]
    return Published("vicc", network, made, heads, prototypes=prototypes, extra=contents.left)


def write(published: Published) -> State:
    """The inverse of `read`: a state dict as ViCC's own code saves it, copies included. Raises Refusal for a probe."""
    refuse_without("coclr", published.network)
    state: State = {}
    for role, backbone in published.backbones.items():
        state |= sequence(ENCODERS[role], published.network["backbone"], backbone, published.heads[role])
    assert published.prototypes is not None
    return state | {"prototypes.weight": published.prototypes}
