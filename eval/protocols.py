"""Protocols of retrieval and probes, as data: what a video's feature is made of."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Protocol:
    """What a video's feature is made of. Test videos always give all their sliding windows.

    gallery_windows: training videos give all their windows as well; else one random clip, drawn from the seed.
    jitter: probability of the colour jitter, drawn once per video.
    """

    name: str
    gallery_windows: bool
    jitter: float


# "coclr" is what the published retrieval numbers were made with, colour jitter at test time included (CoCLR's code);
# "clean" treats both sides alike and alters no pixel.
PROTOCOLS = {p.name: p for p in (Protocol("clean", True, 0.0), Protocol("coclr", False, 0.3))}

IN_WORDS = {
    "clean": "All windows of every video on both sides, no pixel altered.",
    "coclr": "As the CoCLR paper's code does it: training videos give one random clip, and colours are jittered in 3 of 10"
    " videos, test videos included.",
}
