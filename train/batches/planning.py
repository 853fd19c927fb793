"""Plans of training: which clips a sample has and what is done to them, from (seed, epoch, sample) alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline import called
from pipeline.errors import Refusal
from train.augment import ClipPlan, Draws, Policy
from train.clips.spec import ClipSpec
from train.clips.streams import StoreStreams, Stream
from train.sampling import Sample, Sampling
from train.training_set import TrainingSet

PLANS = 2  # raised whenever the same recipe draws other frames or pixels than before


@dataclass(frozen=True)
class Reading:
    """What a stage reads: of each stream the numbers of those clips of a sample that the method looks at.

    All clips of a sample are drawn, so that what is drawn for one does not depend on which are read. Raises UsageError
    where sampling, augmentation and method do not suit each other.
    """

    spec: ClipSpec
    sampling: Sampling
    policy: Policy
    clips: Mapping[str, Sequence[int]]
    seed: int = 0
    count: int = field(init=False)  # clips of a sample

    def __post_init__(self) -> None:
        asked = 1 + max(number for numbers in self.clips.values() for number in numbers)
        self.sampling.check(self.spec, asked)
        object.__setattr__(self, "count", self.sampling.clips or asked)
        self.policy.check_count(self.count)

    @property
    def streams(self) -> dict[str, Stream]:
        return {name: self.spec.stream(name) for name in self.clips}

    @property
    def views(self) -> list[str]:
        """That a store must have."""
        others = self.sampling.others(self.spec)
        shown = [stream for name in self.clips for stream in others.get(name, ())]
        return list(dict.fromkeys(stream.view for stream in (*self.streams.values(), *shown)))


class Planner:
    """Draws the clips of samples of a training set. store_settings: `VideoStore.settings`."""

    def __init__(self, reading: Reading, training_set: TrainingSet, store_settings: Mapping[str, Any]) -> None:
        self.reading, self.training_set = reading, training_set
        missing = [view for view in reading.views if view not in store_settings]
        if missing:
            views = ",".join(missing)
            raise Refusal(
                f"the store has no view {' and no view '.join(map(repr, missing))}",
                where=training_set.where,
                remedy=f"`{called.command('extract', videos='', store=training_set.where, views=views)}` adds that to"
                f" its videos, with the {called.option('dataset')} or {called.option('manifest')} of its extraction;"
                f" or train streams of what it has, {', '.join(sorted(store_settings))}",
            )
        self.streams = StoreStreams(reading.streams.values(), store_settings)

    def plans(self, sample: int, epoch: int) -> list[dict[str, ClipPlan]]:
        """By clip of a sample (see `train.order`) and by stream, as it is read in that epoch."""
        reading, training_set = self.reading, self.training_set
        videos, draws = training_set.videos, Draws(reading.seed, epoch, sample)
        drawn_from = Sample(self.video(sample), videos.frames, reading.count, training_set.groups)
        clips = reading.sampling.draw(reading.spec, drawn_from, draws.shared)
        made = reading.policy.sample(clips, self.streams, videos.frame_size, draws)
        plans = []
        for clip, pixels in made:
            video_id, streams = videos.id(clip.video), self.streams.of(clip)
            plans.append(
                {name: ClipPlan(video_id, clip.frames, streams[name].stream, drawn) for name, drawn in pixels.items()}
            )
        return plans

    def video(self, sample: int) -> int:
        """Number of a sample's video."""
        return sample % len(self.training_set)
