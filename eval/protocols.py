"""Protocols as data: what a video's feature is made of, how features are compared, and how streams are put together.

A protocol is one entry of PROTOCOLS; nothing else knows their names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipeline.errors import UsageError
from train.augment.plans import Filter
from train.clips.spec import ClipSpec

Kind = Literal["sliding", "uniform", "centre", "random"]
Fusion = Literal["similarities", "features", "probabilities"]


@dataclass(frozen=True)
class Windows:
    """Which clips of a video are looked at.

    kind: "sliding", all those that the sampling of the run has for evaluation; "uniform", `count` at equal distances
        from the beginning to the end; "centre", the one in the middle; "random", `count` that are drawn as in training,
        from seed and video alone.
    count: of "uniform" and "random".
    """

    kind: Kind = "sliding"
    count: int = 1


@dataclass(frozen=True)
class Look:
    """How videos are looked at: a video's row is the mean over windows and crops of one layer of the network.

    Args:
        tested, gallery: Windows of test videos, and of training videos, among which neighbours are looked for.
        crops: 1, the centre; 3, along the longer side of the frame; 10, centre and corners, each mirrored, too.
        crop: Side of a crop as a fraction of the frame's short side; none: as the network's clips are cut.
        scaled: Height and width that frames are scaled to before they are cropped, of which only the shape matters;
            none: as they are stored.
        frames, stride, size: Of a clip, and its height and width; none: those that the network was trained on, which of
            a published network are the published ones.
        layer: "backbone", "context" or "head"; empty: the one by which the run compares videos.
        unit: Rows of clips are brought to length one before the mean is taken.
        jitter: Probability of CoCLR's colour jitter at test time, drawn once per video.
        pixels: "ours" or "published", see `train.clips.spec`; empty: as the network was trained on.
        filter: Of resizing, where pixels are made as published; none: bilinear without a smoothing filter.
    """

    tested: Windows = Windows()
    gallery: Windows = Windows()
    crops: Literal[1, 3, 10] = 1
    crop: float | None = None
    scaled: tuple[int, int] | None = None
    frames: int | None = None
    stride: int | None = None
    size: tuple[int, int] | None = None
    layer: str = ""
    unit: bool = True
    jitter: float = 0.0
    pixels: Literal["", "ours", "published"] = ""
    filter: Filter | None = "bicubic"

    @property
    def one_sided(self) -> bool:
        """Whether training videos are looked at otherwise than test videos."""
        return self.tested != self.gallery

    def clips(self, trained_on: ClipSpec) -> ClipSpec:
        """The clips that a network is shown which was trained on those."""
        own: dict[str, object] = {"length": self.frames, "stride": self.stride, "size": self.size, "crop": self.crop}
        own["pixels"] = self.pixels or None
        if self.crop is not None:
            own["streams"] = {name: one.changed(crop=None) for name, one in trained_on.streams.items()}
        return trained_on.changed(**{name: value for name, value in own.items() if value is not None})

    def layer_of(self, layers: tuple[str, ...], default: str) -> str:
        """The layer of a network that has `layers`. Raises UsageError for one that it lacks."""
        layer = self.layer or default
        if layer not in layers:
            raise UsageError(
                f"the network has no layer {layer!r}; it has {', '.join(layers)}", remedy="another of the protocols"
            )
        return layer


@dataclass(frozen=True)
class Protocol:
    """Data, so that the protocol of a paper is one entry.

    Args:
        name, words: By which it is asked for, and what it does, in a sentence or two for the report.
        features: How videos are looked at for retrieval, clusters and probes on features.
        classifier: The same for networks that end in a classifier: linear probe and fine-tuned network, end to end.
        centre: Retrieval subtracts each side's own mean.
        fusion: Of streams: "similarities" are summed, and class probabilities averaged; of "features" the mean is
            taken, which is then retrieved and probed as one stream's are; "probabilities" are averaged, and there is
            no retrieval by several streams.
        weights: (stream, weight) where a stream counts other than 1.
        methods: Of which a run is evaluated by it where no protocol is asked for.
    """

    name: str
    words: str
    features: Look = Look()
    classifier: Look = Look()
    centre: bool = True
    fusion: Fusion = "similarities"
    weights: tuple[tuple[str, float], ...] = ()
    methods: tuple[str, ...] = ()

    def weights_of(self, streams: list[str]) -> list[float]:
        """The weight of each of the streams."""
        return [dict(self.weights).get(stream, 1.0) for stream in streams]


TEN_CROPS = Look(crops=10, jitter=0.3, pixels="published")
RETRIEVED = Look(gallery=Windows("random"), layer="backbone", jitter=0.3, pixels="published")
TEN_CLIPS = Windows("uniform", 10)
THREE_CROPS = Look(
    TEN_CLIPS, TEN_CLIPS, crops=3, crop=1.0, layer="backbone", unit=False, pixels="published", filter=None
)
OF_BLOCKS = Look(layer="context", pixels="published", filter="bilinear")

PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol("clean", "All windows of every video on both sides, no pixel altered."),
        Protocol(
            "coclr",
            "As the CoCLR paper's code does it: training videos give one random clip, and colours are jittered in 3 of"
            " 10 videos, test videos included.",
            features=RETRIEVED,
            classifier=TEN_CROPS,
            methods=("infonce", "ubernce", "cmc", "coclr"),
        ),
        Protocol(
            "vicc",
            "ViCC's code evaluates as CoCLR's: training videos give one random clip, and colours are jittered in 3 of"
            " 10 videos, test videos included.",
            features=RETRIEVED,
            classifier=TEN_CROPS,
            methods=("vicc",),
        ),
        Protocol(
            "goca",
            "As the GOCA paper's code does it: ten clips at equal distances and three crops of every video on both"
            " sides, rows as the backbone gives them, not centred; streams are put together by the mean of their"
            " features. (The paper refers to Feichtenhofer et al. 2021, of whom the number of clips is; the code draws"
            " clips at random where ten do not fit, here they overlap.)",
            features=THREE_CROPS,
            classifier=THREE_CROPS,
            centre=False,
            fusion="features",
            methods=("goca",),
        ),
        Protocol(
            "slic",
            "As the SLIC paper's code does it: ten clips at equal distances of every video on both sides, frames of"
            " 128x171 of which the centre is cut, rows as the projection head gives them, not centred. Classifiers are"
            " tested on ten crops of all windows (in the paper's code on ten windows that are drawn).",
            features=Look(
                TEN_CLIPS,
                TEN_CLIPS,
                crop=1.0,
                scaled=(128, 171),
                layer="head",
                unit=False,
                pixels="published",
                filter="bilinear",
            ),
            classifier=TEN_CROPS,
            centre=False,
            methods=("slic",),
        ),
        Protocol(
            "cocon",
            "As the CoCon paper's code tests its classifiers: windows of blocks, the last state of the aggregation,"
            " streams weighted 2 (RGB, flow) and 1. The paper has no retrieval: ours compares the same rows, each side"
            " centred.",
            features=OF_BLOCKS,
            classifier=OF_BLOCKS,
            fusion="probabilities",
            weights=(("rgb", 2.0), ("flow", 2.0)),
            methods=("dpc", "cocon"),
        ),
    )
}
