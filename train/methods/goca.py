"""GOCA: two streams are clustered online, and what one stream finds guides the clusters of the other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from pipeline.errors import UsageError
from train.clustering.classes import class_agreement
from train.clustering.prototypes import MOST_APART, FixedPrototypes, Prototypes, separation
from train.clustering.sinkhorn import MOST_ITERATIONS, assign
from train.clustering.watching import Watch
from train.hardware.collectives import gather_rows, own_slice, world_size
from train.losses.prototypes import swapped_prediction
from train.methods.meters import Meter, agreement
from train.methods.method import Method, Start
from train.methods.several_networks import SeveralNetworksSettings
from train.networks.network import Network
from train.networks.queue import Queue, check_length
from train.settings import cannot_be

if TYPE_CHECKING:
    from train.batches.batch import Batch

Coupling = Literal["prior", "none", "average", "mix"]
Views = Sequence[Tensor]  # rows (B, D), of the clips of a sample in turn; those that are assigned come first


class GOCASettings(SeveralNetworksSettings):
    """Of GOCA. Where the paper's released script has other values than its program, both are named.

    Args:
        streams: Names of the two, or of a single one.
        shared_head: The streams have one projection head (the script); False: one each (the program).
        clips: Of a sample, all of which predict; the first `assigned` of them are assigned. With `sampling: multiscale`
            these are the long ones.
        coupling: How the streams are coupled, beside head and prototypes: "prior", the assignment of each is the prior
            of the other one's; "none"; "average", the mean of both streams' rows is what is assigned and predicts;
            "mix", all clips of both streams are views of one video. The last two are the paper's ablations.
        prior_epsilon, prior_sign, prior_cycles: Weight of the prior (.01, script .03); 1 pulls towards it, -1 pushes
            away, as released; how often assignments guide each other (docs/methods.md 4.5).
        prior_start: Epoch, from 0, in which the prior begins to count.
        prototypes: How many, of both streams.
        prototype_kind: "fixed", placed apart before the first step; or "learned".
        separation: Weight of the learned prototypes' separation in the loss. The released 1 is 2 here, because its
            program halves the rest of the loss.
        epsilon, iterations: Of the assignment (.05, script .02).
        temperature: Of the prediction.
        queue: Videos of earlier batches that are assigned together with the batch, once there are so many: a multiple
            of the batch over all ranks; 0: none, as released.
    """

    streams: Annotated[tuple[str, ...], Field(strict=False, min_length=1, max_length=2)]
    backbone: str = "r2plus1d-18"
    pool: str = "1x2x2"
    head: str = "goca"
    dim: int = Field(default=128, ge=2)
    shared_head: bool = True
    clips: int = Field(default=6, ge=2, le=200)
    assigned: int = Field(default=2, ge=1)
    coupling: Coupling = "prior"
    prior_epsilon: float = Field(default=0.01, gt=0)
    prior_sign: Literal[1, -1] = 1
    prior_cycles: int = Field(default=1, ge=1)
    prior_start: int = Field(default=0, ge=0)
    prototypes: int = Field(default=1000, ge=2, le=MOST_APART)
    prototype_kind: Literal["fixed", "learned"] = "fixed"
    separation: float = Field(default=0.0, ge=0)
    epsilon: float = Field(default=0.05, gt=0)
    iterations: int = Field(default=3, ge=1, le=MOST_ITERATIONS)
    temperature: float = Field(default=0.1, gt=0)
    queue: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _fit_together(self) -> GOCASettings:
        if len(set(self.streams)) < len(self.streams):
            raise cannot_be(f"{self.streams[0]!r} is one stream", "two streams of other names, or one", "streams")
        if len(self.streams) == 1 and self.coupling != "none":
            raise cannot_be(f"coupling {self.coupling} of a single stream", "none, or another stream", "coupling")
        if self.assigned > self.clips:
            raise cannot_be(f"{self.assigned} of {self.clips} clips", f"at most {self.clips}", "assigned")
        if self.separation and self.prototype_kind == "fixed":
            raise cannot_be("fixed prototypes do not move", "0, or prototype_kind: learned", "separation")
        first, last = (self.networks[stream] for stream in (self.streams[0], self.streams[-1]))
        if self.shared_head and (other := first.unlike(last, "head")):
            raise cannot_be(
                f"one head for two networks: {other}", "shared_head: false, or like networks", "shared_head"
            )
        return self

    @property
    def reads(self) -> dict[str, tuple[int, ...]]:
        return {stream: tuple(range(self.clips)) for stream in self.streams}

    @property
    def gives(self) -> Mapping[str, tuple[int, ...]]:
        return {"prototypes": (self.prototypes, self.dim)}

    @property
    def starts(self) -> dict[str, Start]:
        """Of parts that the streams share, those of the first one."""
        made = {}
        for stream, network in self.networks.items():
            first = stream == self.streams[0]
            head = ("head",) if first or not self.shared_head else ()
            optional = head + (("prototypes",) if first else ())
            made[stream] = Start(stream, network, ("backbone", *optional), optional, shapes=self.gives)
        return made

    def check_batch(self, global_batch: int) -> None:
        """Refuses, by UsageError, a batch of which the queue is no multiple; and a single video without a queue."""
        if self.queue:
            check_length(self.queue, global_batch)
        elif global_batch < 2:
            raise UsageError(
                "one video alone is not assigned: all prototypes would get the same of it",
                where=f"a batch of {global_batch} (over all ranks)",
                remedy="a larger batch, or a queue",
            )


class GOCA(Method):
    """Coskun et al. 2022: the assignment of a stream's clips to prototypes is the prior of the other stream's.

    Of every video each stream sees the same clips, long ones and short ones. The long ones are assigned to prototypes
    that all streams share; then once more, guided by what the other stream found for the same clip. Every other clip of
    the stream is to predict that guided assignment, and is trained to. Prototypes do not follow, by default: they are
    placed apart from each other before the first step.

    All ranks' clips are assigned together, by every rank, so that nothing depends on their number.

    Values of a step: `loss`; `guidance_kl`, KL(guided assignment || initial one), in nats; those of `Watch`; for each
    stream `<stream>_assigned_right` (see `class_agreement`; told where there are labels, which nothing is trained on).
    """

    Settings = GOCASettings
    settings: GOCASettings

    def __init__(self, settings: GOCASettings, channels: Mapping[str, int]) -> None:
        super().__init__(settings, channels)
        self.encoders = nn.ModuleList(network.build(channels[stream]) for stream, network in settings.networks.items())
        if settings.shared_head:
            for encoder in self.encoders:
                encoder.head = self.encoders[0].head
        kind = FixedPrototypes if settings.prototype_kind == "fixed" else Prototypes
        self.prototypes = kind(settings.prototypes, settings.dim)
        self.watch = Watch(settings.prototypes, len(self.assigned_streams))
        if settings.queue:
            self.queue = Queue(settings.queue, len(self.assigned_streams) * settings.assigned * settings.dim)

    @property
    def networks(self) -> dict[str, Network]:
        return dict(zip(self.settings.streams, self.encoders, strict=True))  # type: ignore[arg-type]

    @property
    def parts(self) -> dict[str, nn.Module]:
        return {"prototypes": self.prototypes}

    @property
    def starting(self) -> dict[str, list[Mapping[str, nn.Module]]]:
        return {stream: [{**network.parts, **self.parts}] for stream, network in self.networks.items()}

    @property
    def assigned_streams(self) -> tuple[str, ...]:
        """What is assigned: the streams, or the mean of both."""
        streams = self.settings.streams
        return ("+".join(streams),) if self.settings.coupling == "average" else streams

    def meters(self, global_batch: int) -> dict[str, Meter]:
        if len(self.assigned_streams) == 1:
            return {}
        one, two = self.assigned_streams
        return agreement(one, two, self.settings.prototypes)

    def setup(self, stage: str) -> None:
        """Fixed prototypes are placed once, by the first rank, unless a checkpoint or an earlier stage brought them."""
        if isinstance(self.prototypes, FixedPrototypes) and not self.prototypes.placed:
            if self.trainer.is_global_zero:
                self.prototypes.place(torch.initial_seed() % 2**63)
            self.prototypes.weight.copy_(self.trainer.strategy.broadcast(self.prototypes.weight))

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        clips = {stream: batch.views(stream) for stream in self.settings.streams}
        self.settings.check_batch(len(batch.labels) * world_size())
        return self.compare([rows_of(self.networks[stream], views) for stream, views in clips.items()], batch.labels)

    def compare(self, rows: Sequence[Views], labels: Tensor) -> dict[str, Tensor]:
        """Values of a step, from the rows (B, D) of each stream's clips in turn, and the videos' labels (B,)."""
        settings, groups = self.settings, coupled(rows, self.settings)
        count = len(groups[0]) * settings.assigned // settings.clips
        own = torch.stack([torch.stack(list(views[:count]), dim=1) for views in groups], dim=1).detach()
        initial, guided = self._assigned(gather_rows(own))
        mine = own_slice(guided.shape[2])
        scores = [self.prototypes(torch.cat(list(views))).chunk(len(views)) for views in groups]
        losses = [
            swapped_prediction(views, dict(enumerate(log_q[:, mine].exp())), settings.temperature)
            for views, log_q in zip(scores, guided, strict=True)
        ]
        loss = torch.stack(losses).mean()
        if settings.separation:
            loss = loss + settings.separation * separation(self.prototypes.weight)
        if settings.queue and self.training and torch.is_grad_enabled():
            self.queue.enqueue(own.flatten(1))
        of_assigned, log_q = [clip for views in scores for clip in views[:count]], guided.flatten(0, 1)
        return {
            "loss": loss,
            "guidance_kl": (guided.exp() * (guided - initial)).sum(dim=3).mean(),
            **self.watch(self.prototypes.weight, of_assigned[:: settings.assigned], list(log_q[:: settings.assigned])),
            **self._right(log_q.split(settings.assigned), gather_rows(labels)),
        }

    def _right(self, log_q: Sequence[Tensor], labels: Tensor) -> dict[str, Tensor]:
        """Of each stream, the mean over its assigned clips."""
        return {
            f"{stream}_assigned_right": torch.stack([class_agreement(clip, labels) for clip in clips]).mean()
            for stream, clips in zip(self.assigned_streams, log_q, strict=True)
        }

    @torch.no_grad()
    def _assigned(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Initial and guided assignment, log (groups, clips, B, K), of the rows (B, groups, clips, D) of all ranks."""
        settings, known = self.settings, rows
        if settings.queue and self.queue.full:
            known = torch.cat([self.queue.features.view(-1, *rows.shape[1:]), rows])
        scores = self.prototypes(known.flatten(0, 2)).unflatten(0, known.shape[:3]).permute(1, 2, 0, 3)
        clips = list(scores.flatten(0, 1))  # of each (B, K)

        def balanced(priors: Iterable[Tensor | None], weight: float) -> Tensor:
            epsilon, iterations, sign = settings.epsilon, settings.iterations, settings.prior_sign
            pairs = zip(clips, priors, strict=True)
            found = [assign(clip, epsilon, iterations, prior, weight, sign) for clip, prior in pairs]
            return torch.stack(found).unflatten(0, scores.shape[:2])

        initial = guided = balanced([None] * len(clips), 0.0)
        if settings.coupling == "prior" and self.current_epoch >= settings.prior_start:
            for _ in range(settings.prior_cycles):
                guided = balanced(guided.flip(0).flatten(0, 1), settings.prior_epsilon)
        return initial[:, :, -len(rows) :], guided[:, :, -len(rows) :]

    def configure_optimizers(self) -> OptimizerLRScheduler:
        return self.optimised(self.parameters())


def rows_of(network: Network, clips: Sequence[Tensor]) -> list[Tensor]:
    """Rows (B, D) of each of the clips (B, C, T, H, W). Those of one size go through the network together."""
    rows: dict[int, Tensor] = {}
    for size in dict.fromkeys(clip.shape for clip in clips):
        alike = [number for number, clip in enumerate(clips) if clip.shape == size]
        rows |= zip(alike, network(torch.cat([clips[number] for number in alike])).chunk(len(alike)), strict=True)
    return [rows[number] for number in range(len(clips))]


def coupled(rows: Sequence[Views], settings: GOCASettings) -> list[Views]:
    """The rows that predict each other, group by group, those that are assigned first."""
    if settings.coupling == "average":
        return [[functional.normalize(sum(of_clip) / len(rows), dim=1) for of_clip in zip(*rows, strict=True)]]
    if settings.coupling == "mix":
        first = settings.assigned
        return [[row for views in rows for row in views[:first]] + [row for views in rows for row in views[first:]]]
    return list(rows)
