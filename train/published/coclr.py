"""CoCLR's files (specs/coclr.md section 1.4): InfoNCE, UberNCE, CoCLR, linear probe and fine-tuned networks, on S3D.

Every tensor of a backbone is stored twice, under its own name and within `block1` to `block5`. The head is made of 1x1x1
convolutions there and of linear layers here.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from train import backbones
from train.losses.nce import NOTHING
from train.published import Published, State, fit, refuse, take

ENCODERS = {"query": "encoder_q.", "key": "encoder_k.", "sampler": "sampler."}
HEAD = {"head.0": "2", "head.2": "4"}  # our name of a layer: its place in the published sequence
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


def recognises(state: State) -> bool:
    """Whether these are the tensors of one of CoCLR's files."""
    return "encoder_q.0.Conv_1a.conv1.weight" in state or "backbone.Conv_1a.conv1.weight" in state


def read(state: State, where: str) -> Published:
    """See `train.published.import_published`. Roles: query, key (not of probes), sampler (of CoCLR: the other stream's)."""
    prefixes = {role: f"{prefix}0." for role, prefix in ENCODERS.items() if take(state, prefix)}
    if not prefixes:
        prefixes = {"query": "backbone."}
    kind = "s3dg" if any(".gating_b" in name for name in state) else "s3d"
    wanted = _shapes(kind, state.get(f"{prefixes['query']}Conv_1a.conv1.weight"))
    used: set[str] = set()
    made = {}
    for role, prefix in prefixes.items():
        own = _without_copies(take(state, prefix), prefix, where)
        made[role] = fit(own, wanted, prefix, where)
        used.update(prefix + name for name in take(state, prefix) if name in wanted or _original(name) in wanted)
    heads = {role: _head(state, ENCODERS[role], used, where) for role in prefixes if prefixes[role] != "backbone."}
    if prefixes["query"] == "backbone.":
        heads = {"query": _classifier(state, used)}
    queue = _queue(state, used, where)
    return Published("coclr", kind, made, heads, queue=queue, extra=tuple(name for name in state if name not in used))


def write(published: Published) -> State:
    """The inverse of `read`: a state dict as CoCLR's own code saves it, copies included."""
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
        prefix = ENCODERS[role]
        state |= {f"{prefix}0.{name}": tensor for name, tensor in backbone.items()}
        for alias, module in BLOCKS.items():
            inside = take(backbone, f"{module}.")
            state |= {f"{prefix}0.{alias}.{name}": tensor for name, tensor in inside.items()}
        for ours, place in HEAD.items():
            weight, bias = (published.heads[role][f"{ours}.{kind}"] for kind in ("weight", "bias"))
            state |= {f"{prefix}{place}.weight": weight[:, :, None, None, None], f"{prefix}{place}.bias": bias}
    return state


def _shapes(kind: str, first: Tensor | None) -> Mapping[str, Tensor]:
    """The tensors of our backbone, without memory, for as many input channels as the file's first weight has."""
    with torch.device("meta"):
        return backbones.create(kind, in_channels=3 if first is None else first.shape[1]).state_dict()


def _original(name: str) -> str:
    """The tensor's own name: `block4.2.branch0.0.bn.bias` is one of Mixed_4c's."""
    for alias, module in BLOCKS.items():
        if name.startswith(f"{alias}."):
            return module + name.removeprefix(alias)
    return name


def _without_copies(found: State, prefix: str, where: str) -> State:
    copies = {name: _original(name) for name in found if _original(name) != name}
    refuse(
        [
            f"{prefix}{name} is not equal to {prefix}{original}"
            for name, original in copies.items()
            if original in found and not torch.equal(found[name], found[original])
        ],
        where,
    )
    kept = {name: tensor for name, tensor in found.items() if name not in copies}
    return {**{original: found[name] for name, original in copies.items()}, **kept}


def _head(state: State, prefix: str, used: set[str], where: str) -> State:
    """Linear weights (out, in) of convolutions (out, in, 1, 1, 1)."""
    made = {}
    for ours, place in HEAD.items():
        for kind in ("weight", "bias"):
            name = f"{prefix}{place}.{kind}"
            refuse([f"missing {name}"] if name not in state else [], where)
            made[f"{ours}.{kind}"] = state[name].flatten(1) if kind == "weight" else state[name]
            used.add(name)
    return made


def _classifier(state: State, used: set[str]) -> State:
    """Of a probe (`final_bn`, `final_fc.0`) or a fine-tuned network (`final_fc.1`, behind its dropout)."""
    found = {name: tensor for name, tensor in state.items() if name.startswith("final_")}
    used.update(found)
    return {
        name.replace("final_fc.0.", "final_fc.").replace("final_fc.1.", "final_fc."): t for name, t in found.items()
    }


def _partners(names: set[str]) -> tuple[str, ...]:
    """What a file that has these tensors of a queue must have."""
    both = bool(names & {"queue_second", "queue_vname"})
    return ("queue_ptr", "queue_second", "queue_vname", "queue_label") if both else ("queue_ptr",)


def _queue(state: State, used: set[str], where: str) -> State:
    """In the names of `train.queue.Queue`; `other` holds the second stream's features.

    CoCLR's `queue_label` only says which slots are filled; UberNCE's holds classes. InfoNCE's file says of neither.
    """
    if "queue" not in state:
        return {}
    length = state["queue"].shape[-1]
    names = {"queue", "queue_ptr", "queue_second", "queue_vname", "queue_label"} & state.keys()
    used.update(names)
    refuse(
        [f"missing {name}" for name in _partners(names) if name not in names]
        + [f"{name} has {state[name].shape[-1]} slots, queue has {length}"
           for name in sorted(names - {"queue_ptr"}) if state[name].shape[-1] != length],
        where,
    )  # fmt: skip
    made = {"features": state["queue"].T.contiguous(), "pointer": state["queue_ptr"].reshape(())}
    if "queue_vname" in state:
        made |= {"sources": state["queue_vname"], "other": state["queue_second"].T.contiguous()}
        made["filled"] = state["queue_label"] != NOTHING
    elif "queue_label" in state:
        made |= {"labels": state["queue_label"], "filled": state["queue_label"] != NOTHING}
    return made
