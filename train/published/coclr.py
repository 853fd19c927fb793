"""CoCLR's files: InfoNCE, UberNCE, CoCLR, linear probe and fine-tuned networks, on S3D and on the ResNet that its code
calls r50.

The head is made of 1x1x1 convolutions there and of linear layers here. ViCC's files on S3D differ by their prototypes;
its probes and fine-tuned networks on S3D do not differ, and are read as these.
"""

from __future__ import annotations

import torch

from train.losses.nce import NOTHING
from train.published import Published
from train.published.contents import Contents, State, refuse
from train.published.networks import PROBED, refuse_without, sequence, sequences

# A weight that no other backbone has -> our name of the backbone. Gates make s3dg of s3d.
BACKBONES = {"Conv_1a.conv1.weight": "s3d", "layer1.0.conv3.weight": "resnet2d3d-50"}
WRITTEN = ("s3d", "s3dg", "resnet2d3d-50")
ENCODERS = {"query": "encoder_q.", "key": "encoder_k.", "sampler": "sampler."}
PREFIXES = ("encoder_q.0.", PROBED)


def recognises(state: State) -> bool:
    """Whether these are the tensors of one of CoCLR's files."""
    others = "prototypes.weight" in state or any(name.startswith("agg.") for name in state)
    return any(prefix + first in state for prefix in PREFIXES for first in BACKBONES) and not others


def read(state: State, where: str) -> Published:
    """See `train.published.import_published`. Roles: query, key (not of probes), sampler (of CoCLR: the other
    stream's)."""
    contents = Contents(state, where)
    found = [name for first, name in BACKBONES.items() if any(prefix + first in state for prefix in PREFIXES)]
    name = "s3dg" if any(".gating_b" in name for name in state) else next(iter(found), "s3d")
    made, heads, network = sequences(contents, ENCODERS, name)
    queue = _queue(contents)
    return Published("coclr", network, made, heads, queue=queue, extra=contents.left)


def write(published: Published) -> State:
    """The inverse of `read`: a state dict as CoCLR's own code saves it, copies included. Raises Refusal for a probe."""
    refuse_without("coclr", published.network)
    state: State = {}
    queue = published.queue
    if queue:
        state |= {"queue": queue["features"].T.contiguous(), "queue_ptr": queue["pointer"].reshape(1)}
        if "other" in queue:
            flags = torch.where(queue["filled"], 1, NOTHING)
            state |= {
                "queue_second": queue["other"].T.contiguous(),
                "queue_vname": queue["sources"],
                "queue_label": flags,
            }
        elif "labels" in queue:
            state["queue_label"] = queue["labels"]
    for role, backbone in published.backbones.items():
        state |= sequence(ENCODERS[role], published.network["backbone"], backbone, published.heads[role])
    return state


def _partners(names: set[str]) -> tuple[str, ...]:
    """What a file that has these tensors of a queue must have."""
    both = bool(names & {"queue_second", "queue_vname"})
    return ("queue_ptr", "queue_second", "queue_vname", "queue_label") if both else ("queue_ptr",)


def _queue(contents: Contents) -> State:
    """In the names of `train.networks.queue.Queue`; `other` holds the second stream's features.

    CoCLR's `queue_label` only says which slots are filled; UberNCE's holds classes. InfoNCE's file says of neither.
    """
    state = contents.state
    if "queue" not in state:
        return {}
    length = state["queue"].shape[-1]
    names = {"queue", "queue_ptr", "queue_second", "queue_vname", "queue_label"} & state.keys()
    refuse(
        [f"missing {name}" for name in _partners(names) if name not in names]
        + [f"{name} has {state[name].shape[-1]} slots, queue has {length}"
           for name in sorted(names - {"queue_ptr"}) if state[name].shape[-1] != length],
        contents.where,
    )  # fmt: skip
    state = contents.take("", {name: tuple(state[name].shape) for name in names})
    made = {"features": state["queue"].T.contiguous(), "pointer": state["queue_ptr"].reshape(())}
    if "queue_vname" in state:
        made |= {"sources": state["queue_vname"], "other": state["queue_second"].T.contiguous()}
        made["filled"] = state["queue_label"] != NOTHING
    elif "queue_label" in state:
        made |= {"labels": state["queue_label"], "filled": state["queue_label"] != NOTHING}
    return made
