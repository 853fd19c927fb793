"""The policy of probes and fine-tuning, of CoCLR, ViCC and SLIC alike (docs/methods.md 7)."""

from __future__ import annotations

from dataclasses import dataclass

from train.augment.standard import RandomResized


@dataclass(frozen=True)
class Classify(RandomResized):
    """A window of at least a fifth of the frame, drawn again where it does not fit, mirror, and colour in three of ten
    clips.

    The released code cuts 224x224 from the frame first and scales that to the network's size, and mirrors all clips of
    a batch, or none. Published, for the clips: `streams: {flow: {input: image, mirror: plain}}`.
    """

    jitter: float = 0.3
    gray: float = 0.0
