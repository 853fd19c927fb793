"""ViCC: clips are assigned to prototypes, and each view of a video predicts the others' assignments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, Self

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from pydantic import Field, model_validator
from torch import Tensor, distributed, nn
from torch.optim import Optimizer

from pipeline import called
from pipeline.errors import UsageError
from train.clustering.prototypes import Prototypes
from train.clustering.sinkhorn import MOST_ITERATIONS, assign
from train.clustering.watching import Watch
from train.hardware.collectives import encode_shuffled, own_slice, world_size
from train.losses.prototypes import swapped_prediction
from train.methods.meters import Meter, agreement
from train.methods.method import Method, MethodSettings, Start
from train.networks.heads import HEADS, Head
from train.networks.network import Network
from train.networks.queue import Queue, check_length
from train.networks.settings import NetworkSettings, OtherStream
from train.reader.affine import network_input
from train.settings import cannot_be

if TYPE_CHECKING:
    from train.batches.batch import Batch

PROTOTYPES = "prototypes"  # the part that goes from stage to stage beside the network


class ViCCSettings(MethodSettings, NetworkSettings):
    """Of ViCC.

    Args:
        stream: The one that is trained.
        other: The other stream, of the cross stage; None: the single stage.
        prototypes: Their number K. Published: 300.
        shared_prototypes: Whether the other stream's views are scored with the trained stream's prototypes (published),
            or with a set of their own, which is trained with it.
        own_stream: Whether a view is predicted by the other view of its own stream, too (published), or in the cross
            stage by those of the other stream alone.
        gradient_views: Clips of the trained stream through which its network is trained: "both", the paper's formula,
            or "first", the released training: the second clip is encoded without gradient, shuffled over devices.
        freeze_epochs: Epochs at whose start the prototypes stay as they are. Published: 100 in the single stage.
        queue: Length of each view's queue of earlier rows, which are assigned together with the batch's; a multiple of
            the batch over all ranks; 0: none. Published: 1920.
        queue_epoch: From which, counted from 0, rows are queued; they count as soon as the queue is full.
        epsilon, iterations: Of the assignment: see `train.clustering.sinkhorn.assign`.
        temperature: Divides the cosines of a prediction.
    """

    stream: str
    other: OtherStream | None = None
    prototypes: int = Field(default=300, ge=2, le=10**6)
    shared_prototypes: bool = True
    own_stream: bool = True
    gradient_views: Literal["both", "first"] = "both"
    freeze_epochs: int = Field(default=0, ge=0)
    queue: int = Field(default=1920, ge=0)
    queue_epoch: int = Field(default=0, ge=0)
    epsilon: float = Field(default=0.05, gt=0)
    iterations: int = Field(default=3, ge=1, le=MOST_ITERATIONS)
    temperature: float = Field(default=0.1, gt=0)

    @model_validator(mode="after")
    def _fitting(self) -> ViCCSettings:
        if self.other is None and not (self.shared_prototypes and self.own_stream):
            key = "own_stream" if self.shared_prototypes else "shared_prototypes"
            raise cannot_be("a stage of one stream has nothing else", "true, or name the other stream (other)", key)
        if self.other is not None and self.other.stream == self.stream:
            raise cannot_be("the other stream is the one that is trained", "another stream", "other.stream")
        if not self.queue and self.queue_epoch:
            raise cannot_be("an epoch without a queue", "0, or a queue", "queue_epoch")
        for place, network in (("head", self), ("other.head", self.of_other)):
            head: type[Head] | None = HEADS.find(network.head) if network else None
            if head is not None and not head.unit:
                raise cannot_be(f"rows of a {head.__name__} are not unit rows", "a head that gives them: coclr", place)
        return self

    @property
    def of_other(self) -> NetworkSettings | None:
        """The other stream's network."""
        return self.other.of(self) if self.other else None

    @property
    def reads(self) -> dict[str, tuple[int, ...]]:
        return dict.fromkeys([self.stream, *([self.other.stream] if self.other else [])], (0, 1))

    @property
    def networks(self) -> dict[str, NetworkSettings]:
        return {self.stream: self}

    @property
    def gives(self) -> Mapping[str, tuple[int, ...]]:
        return {PROTOTYPES: (self.prototypes, self.dim)}

    @property
    def starts(self) -> dict[str, Start]:
        """Across streams nothing may be fresh: neither what is trained, nor what it is trained with."""
        takes = ("backbone", "head", PROTOTYPES)
        if self.other is None or self.of_other is None:
            return {"query": Start(self.stream, self, takes, ("head", PROTOTYPES), shapes=self.gives)}
        of_other = takes[:2] if self.shared_prototypes else takes
        return {
            "query": Start(self.stream, self, takes, optional=(), needed=True, shapes=self.gives),
            "other": Start(self.other.stream, self.of_other, of_other, optional=(), needed=True, shapes=self.gives),
        }

    def of_batch(self, batch: int) -> Self:
        """With a prototype for each clip at most."""
        return self.changed(prototypes=min(self.prototypes, batch + self.queue))

    def check_batch(self, global_batch: int) -> None:
        """Refuses a batch of which the queue is no multiple, and one that is, with its queue, no clip per prototype."""
        if self.queue:
            check_length(self.queue, global_batch)
        if global_batch + self.queue < self.prototypes:
            short, most = -(-(self.prototypes - global_batch) // global_batch) * global_batch, global_batch + self.queue
            raise UsageError(
                f"{self.prototypes} prototypes share {most} clips (a batch of {global_batch}"
                f" over all ranks, and a queue of {self.queue}):"
                " an assignment that uses each of them equally much says nothing",
                where="method.prototypes",
                remedy=f"at most {most} prototypes ({called.option('set', f'stages.*.settings.prototypes={most}')}),"
                f" queue {short} or longer, or a larger batch",
            )


class ViCC(Method):
    """Toering et al. 2022 (WACV, arXiv 2106.10137); docs/methods.md 4.5 and 4.6.

    Single stage: two clips of a video, in one stream. Cross stage: both in both streams; the other stream's network is
    frozen, and all four views are assigned to the prototypes of the trained stream. Each view's prediction is compared
    with the assignments of all others. A stage across streams starts from two earlier ones and takes over network and
    prototypes: `start: {query: <stage>, other: <stage of the other stream>}` in the recipe.

    Values of a step: `loss`; `predicted_top1` (fraction of clips whose second clip is nearest to the prototype that the
    first clip is assigned to); and those of `Watch`, of the first clip.
    """

    Settings = ViCCSettings
    settings: ViCCSettings

    def __init__(self, settings: ViCCSettings, channels: Mapping[str, int]) -> None:
        super().__init__(settings, channels)
        self.network = settings.build(channels[settings.stream])
        self.prototypes = Prototypes(settings.prototypes, settings.dim)
        views = 2
        if settings.other is not None and settings.of_other is not None:
            self.other = settings.of_other.build(channels[settings.other.stream]).frozen()
            views = 4
            if not settings.shared_prototypes:
                self.other_prototypes = Prototypes(settings.prototypes, settings.dim)
        self.queues = nn.ModuleList(Queue(settings.queue, settings.dim) for _ in range(views if settings.queue else 0))
        self.watch = Watch(settings.prototypes)

    @property
    def networks(self) -> dict[str, Network]:
        return {self.settings.stream: self.network}

    @property
    def parts(self) -> dict[str, nn.Module]:
        return {PROTOTYPES: self.prototypes}

    @property
    def starting(self) -> dict[str, list[Mapping[str, nn.Module]]]:
        found: dict[str, list[Mapping[str, nn.Module]]] = {"query": [{**self.network.parts, **self.parts}]}
        if self.settings.other is not None:
            found["other"] = [{**self.other.parts, PROTOTYPES: self._of_view[2]}]
        return found

    def meters(self, global_batch: int) -> dict[str, Meter]:
        count, other = self.settings.prototypes, self.settings.other
        found = {
            "predicted_top1": Meter(
                "assignment predicted",
                "the share of clips whose second clip is nearest to the prototype that the first one is assigned to;"
                f" guessing gives {100 / count:.3g} %",
            )
        }
        if other is not None:
            found |= agreement(self.settings.stream, other.stream, count)
        return found

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        rows = self._rows(batch)
        self.settings.check_batch(len(rows[0]) * world_size())
        scores = [prototypes(own) for prototypes, own in zip(self._of_view, rows, strict=True)]
        log_q = [self._assigned(view, own) for view, own in enumerate(scores)]
        self._remember(rows)
        matched = [log_q[0], log_q[3]] if self.settings.other else [log_q[0]]  # the first clip, in each stream
        return {
            "loss": self._loss(scores, [own.exp() for own in log_q]),
            "predicted_top1": (scores[1].argmax(dim=1) == log_q[0].argmax(dim=1)).float().mean(),
            **self.watch(self.prototypes.weight.detach(), scores[:1], matched),
        }

    def _rows(self, batch: Batch) -> list[Tensor]:
        """Of the views, each (B, D): both clips of the trained stream, and the second and the first of the other."""
        stream = self.settings.stream
        rows = [self.network(batch.view(stream, 0))]
        if self.settings.gradient_views == "both":
            rows.append(self.network(batch.view(stream, 1)))
        with torch.no_grad():
            if self.settings.gradient_views == "first":
                second = batch.to_send(stream, 1)
                rows.append(
                    encode_shuffled(lambda *of: self.network(network_input(*of)), *second, seed=self.global_step)
                )
            if self.settings.other is not None:
                rows += [self.other(batch.view(self.settings.other.stream, number)) for number in (1, 0)]
        return rows

    @property
    def _of_view(self) -> list[Prototypes]:
        """By which each view is scored."""
        if self.settings.other is None:
            return [self.prototypes] * 2
        return [self.prototypes] * 2 + [
            self.prototypes if self.settings.shared_prototypes else self.other_prototypes
        ] * 2

    @torch.no_grad()
    def _assigned(self, view: int, scores: Tensor) -> Tensor:
        """log Q (B, K) of a view, over the clips of all ranks and those that are queued, each of them scored by one
        rank."""
        queue, queued = self.queues[view] if self._queueing else None, None
        if isinstance(queue, Queue) and queue.full:
            queued = self._of_view[view](queue.features[own_slice(len(queue.features))])
        group = distributed.group.WORLD if world_size() > 1 else None
        return assign(scores, self.settings.epsilon, self.settings.iterations, group=group, queued=queued)

    @property
    def _queueing(self) -> bool:
        return bool(self.settings.queue) and self.current_epoch >= self.settings.queue_epoch

    def _remember(self, rows: list[Tensor]) -> None:
        if self._queueing and self.training and torch.is_grad_enabled():
            for queue, own in zip(self.queues, rows, strict=True):
                assert isinstance(queue, Queue)
                queue.enqueue(own.detach())

    def _loss(self, scores: list[Tensor], assignments: list[Tensor]) -> Tensor:
        temperature = self.settings.temperature
        if self.settings.own_stream:
            return swapped_prediction(scores, dict(enumerate(assignments)), temperature)
        pairs = [(own, other) for own in (0, 1) for other in (2, 3)]
        losses = [
            swapped_prediction([scores[own], scores[other]], {0: assignments[own], 1: assignments[other]}, temperature)
            for own, other in pairs
        ]
        return torch.stack(losses).mean()

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        if self.current_epoch < self.settings.freeze_epochs:
            for prototypes in set(self._of_view):
                prototypes.weight.grad = None

    def configure_optimizers(self) -> OptimizerLRScheduler:
        trained = [*self.network.parameters(), *(p for part in dict.fromkeys(self._of_view) for p in part.parameters())]
        return self.optimised(trained)
