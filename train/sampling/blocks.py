"""One run through a video, of consecutive blocks of which later ones are predicted: the sampling of DPC and CoCon."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from pipeline.errors import UsageError
from train.clips import predictive_blocks
from train.clips.spec import ClipSpec
from train.clips.streams import Clip
from train.sampling.sampling import Sample, Sampling

Short = Literal["spread", "drop"]
COVERED = 0.9  # of a short video, as in `predictive_blocks`


class Blocks(Sampling):
    """One clip of `clips.length` frames, which are `blocks` blocks of equal length: see
    `train.clips.predictive_blocks`.

    Every start from which the blocks fit is equally likely. Evaluation: windows of as many blocks, `hop` blocks apart.
    Source: CoCon (arXiv 2104.14764), released code, which never draws the last start.

    Args:
        blocks: Of a clip, whose length is a multiple of it.
        hop: Blocks from one window of evaluation to the next (published: 4 on UCF101, 6 on HMDB51).
        short: What becomes of videos with no more frames than a clip spans: "spread" lets frames lie closer, a fraction
            of the stride apart, as CoCon does; "drop" leaves them out of training, as DPC does.
    """

    name: Literal["blocks"] = "blocks"
    blocks: int = Field(default=8, ge=1)
    hop: int = Field(default=4, ge=1)
    short: Short = "spread"

    fates: ClassVar[dict[str, str]] = {
        "spread": "their frames lie closer than the stride says",
        "drop": "they are left out",
    }
    clips: ClassVar[int | None] = 1

    def least(self, spec: ClipSpec) -> int:
        return spec.span + 1

    def check(self, spec: ClipSpec, count: int) -> None:
        super().check(spec, count)
        if spec.length % self.blocks:
            raise UsageError(
                f"a clip of {spec.length} frames is not {self.blocks} blocks of equal length",
                where="sampling.blocks",
                remedy="a clips.length that is a multiple of it",
            )

    def draw(self, spec: ClipSpec, sample: Sample, rng: np.random.Generator) -> list[Clip]:
        start = rng.integers(self._last(spec, sample.total) + 1)
        return [Clip(sample.video, self._clip(spec, sample.total, int(start)))]

    def windows(self, spec: ClipSpec, frames: int) -> np.ndarray:
        distance = self.hop * spec.length // self.blocks * spec.stride
        last = self._last(spec, frames) if frames > spec.span else 0
        return np.stack([self._clip(spec, frames, start) for start in range(0, last + 1, distance)])

    def _last(self, spec: ClipSpec, frames: int) -> int:
        """The last start that is drawn."""
        return frames - spec.span if frames > spec.span else frames - int(COVERED * (frames - 1)) - 1

    def _clip(self, spec: ClipSpec, frames: int, start: int) -> np.ndarray:
        return predictive_blocks(frames, self.blocks, spec.length // self.blocks, spec.stride, start).ravel()
