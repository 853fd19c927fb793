"""An anchor, a positive of its video or of another one of its group, and the anchor once more: SLIC's sampling."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from train.clips.spec import ClipSpec, StreamSettings
from train.clips.streams import Clip, Stream
from train.sampling.groups import Groups
from train.sampling.sampling import Sample, Sampling

Short = Literal["pad", "drop"]


class Cluster(Sampling):
    """Clip 0 is the anchor, the first frames of its video. Clip 1 is the positive, clip 2 the anchor's frames again.

    The positive is of the same video with probability `same_video`, otherwise of another one of the anchor's group, all
    equally likely; where there are no groups yet, or nobody else is in the group, of the same video. It starts after
    the frames of an anchor. Positive and second anchor show, each with probability `replaced`, another view in a
    stream's place. Source: SLIC (arXiv 2206.12534), released code.

    Args:
        same_video: Published: .2 on UCF101, .5 on Kinetics.
        replaced: Probability that a clip shows something else in the place of the streams of `replacements`.
        replacements: Stream -> what may be shown in its place, of which one is drawn. Published:
            `{rgb: [{view: flow, input: u, mirror: plain}]}`.
        short: What becomes of videos in which two clips do not follow each other: "pad" lets the positive begin
            earlier, and repeats the first frame in front where not even one clip fits; "drop" leaves them out of
            training (published).
    """

    name: Literal["cluster"] = "cluster"
    same_video: float = Field(default=0.2, ge=0, le=1)
    replaced: float = Field(default=0.25, ge=0, le=1)
    replacements: dict[str, Annotated[list[StreamSettings], Field(min_length=1)]] = {}
    short: Short = "pad"

    fates: ClassVar[dict[str, str]] = {
        "pad": (
            "their positive clip overlaps with the anchor, and the first frame is repeated where a clip does not fit"
        ),
        "drop": "they are left out",
    }
    clips: ClassVar[int | None] = 3

    def others(self, spec: ClipSpec) -> dict[str, list[Stream]]:
        return {name: [spec.stream(name, other) for other in given] for name, given in self.replacements.items()}

    def least(self, spec: ClipSpec) -> int:
        return 2 * spec.span

    def draw(self, spec: ClipSpec, sample: Sample, rng: np.random.Generator) -> list[Clip]:
        same, of_group, place = rng.random(3).tolist()
        shown = [self._shown(spec, rng) for _ in range(2)]
        video = positive = sample.video
        if same >= self.same_video and sample.groups is not None:
            positive = _another(video, sample.groups, of_group)
        anchor = _from(0, sample.total, spec)
        total = int(sample.frames[positive])
        last = total - spec.span
        first = min(spec.span, max(last, 0))
        later = _from(first + int(place * (max(last, 0) - first + 1)), total, spec)
        return [Clip(video, anchor), Clip(positive, later, shown[0]), Clip(video, anchor, shown[1])]

    def _shown(self, spec: ClipSpec, rng: np.random.Generator) -> dict[str, Stream]:
        replaced, which = rng.random(2).tolist()
        if replaced >= self.replaced:
            return {}
        return {name: others[int(which * len(others))] for name, others in self.others(spec).items()}


def _another(video: int, groups: Groups, place: float) -> int:
    """One of the other videos of the group, or the video itself where it is alone."""
    members = groups.members(video)
    if len(members) < 2:
        return video
    chosen = int(place * (len(members) - 1))
    return int(members[chosen + (chosen >= np.searchsorted(members, video))])


def _from(start: int, total: int, spec: ClipSpec) -> np.ndarray:
    """A clip from frame `start`; where none fits, the whole video with its first frame repeated in front."""
    seen = np.arange(start, total, spec.stride)[: spec.length]
    return np.concatenate([np.zeros(spec.length - len(seen), np.int64), seen])
