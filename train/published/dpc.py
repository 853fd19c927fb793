"""DPC's files, which CoCon's resemble: pre-trained networks and classifiers, on 2D3D-ResNets, with a ConvGRU over
blocks.

Batch norm keeps no running statistics, so that there are none to load. One network was published again with statistics;
its file differs from CoCon's in nothing, so that its layout must be named.
"""

from __future__ import annotations

from train.clips.spec import ClipSpec, StreamSettings
from train.networks.aggregations.gru import Between
from train.published import CROP, Published
from train.published.contents import Contents, Shapes, State, with_copies
from train.published.networks import PROBED, backbone, classifier, refuse_without, renamed

CELL = "agg.ConvGRUCell_00"
COPIES = {"agg.cell_list.0": CELL}
NAMES = {CELL: "aggregation.gru", "network_pred": "aggregation.predictor"}
SIZE = 256  # of features, hidden state and predictions
DROPPED = 0.5  # share of the context that fine-tuning zeroes
WRITTEN = ("resnet2d3d-18", "resnet2d3d-34")
WRAPPED = "module."  # DataParallel
OF_PEOPLE = StreamSettings(mirror="never", size=(64, 64), crop=1.0)
STREAMS = {
    "flow": StreamSettings(input="signed", mirror="never"),
    "segmentation": OF_PEOPLE,
    "pose": OF_PEOPLE,
}


def recognises(state: State) -> bool:
    """Whether these are the tensors of one of DPC's files, without running statistics."""
    return aggregates(state) and not has_statistics(state)


def aggregates(state: State) -> bool:
    """Whether there is a 2D3D-ResNet with a ConvGRU behind it."""
    return f"{PROBED}conv1.weight" in state and any(name.startswith("agg.") for name in state)


def has_statistics(state: State) -> bool:
    """Whether the backbone's batch norm has running statistics."""
    return f"{PROBED}bn1.running_mean" in state


def read(state: State, where: str) -> Published:
    """See `train.published.import_published`. Role: query."""
    return read_as("dpc", state, where, has_statistics(state), "relu", "relu")


def read_as(
    layout: str, state: State, where: str, running_statistics: bool, pre_trained: Between, classifying: Between
) -> Published:
    """DPC's and CoCon's files alike. Of the published networks the larger ones saw larger images.

    pre_trained, classifying: what networks of each kind do between backbone and ConvGRU.
    """
    contents = Contents(state, where)
    name, side = ("resnet2d3d-34", 224) if contents.has(f"{PROBED}layer1.2.") else ("resnet2d3d-18", 128)
    settings = {} if running_statistics else {"running_statistics": False}
    made = backbone(contents, PROBED, name, **settings)
    head = contents.take("", _aggregator(), COPIES)
    network = {"backbone": name, "backbone_settings": settings, "head": "none", "aggregation": "gru"}
    if contents.has("final_"):
        logits, made_with = classifier(contents, SIZE, "final_fc.1")
        network |= {"head": "classifier", "head_settings": {**made_with, "dropout": DROPPED}}
        network["aggregation_settings"] = {"between": classifying, "predicts": False}
        head = renamed(head, NAMES) | logits
    else:
        network["aggregation_settings"] = {"between": pre_trained}
        head = renamed(head | contents.take("", _predictor()), NAMES)
    clips = ClipSpec(length=5, stride=3, size=(side, side), crop=CROP, streams=STREAMS, pixels="published")
    return Published(layout, network, {"query": made}, {"query": head}, extra=contents.left, clips=clips)


def write(published: Published) -> State:
    """The inverse of `read`: a state dict as DPC's own code saves it, copies and its prefix included.

    Raises Refusal for a classifier.
    """
    refuse_without("none", published.network)
    head = renamed(published.heads["query"], {ours: own for own, ours in NAMES.items()})
    state = {f"{PROBED}{name}": tensor for name, tensor in published.backbones["query"].items()}
    return {WRAPPED + name: tensor for name, tensor in (state | with_copies(head, COPIES)).items()}


def _aggregator() -> Shapes:
    """Gates of a ConvGRU with kernels 1x1: weight columns are [input; hidden]."""
    shapes: dict[str, tuple[int, ...]] = {}
    for gate in ("reset", "update", "out"):
        shapes |= {f"{CELL}.{gate}_gate.weight": (SIZE, 2 * SIZE, 1, 1), f"{CELL}.{gate}_gate.bias": (SIZE,)}
    return shapes


def _predictor() -> Shapes:
    shapes: dict[str, tuple[int, ...]] = {}
    for place in (0, 2):
        shapes |= {f"network_pred.{place}.weight": (SIZE, SIZE, 1, 1), f"network_pred.{place}.bias": (SIZE,)}
    return shapes
