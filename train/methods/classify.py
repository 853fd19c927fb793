"""Classification by labels: linear probes, fine-tuning and training from scratch, which differ in settings alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from train.hardware.precision import at_least_float32
from train.methods.meters import Meter
from train.methods.method import Method, MethodSettings, Start
from train.networks.network import LAYERS, Network
from train.networks.settings import NetworkSettings
from train.optim import at_rate
from train.settings import cannot_be

if TYPE_CHECKING:
    from train.batches.batch import Batch

Rate = Annotated[float, Field(ge=0)]


class ClassifySettings(MethodSettings, NetworkSettings):
    """Of classification.

    Args:
        stream: The one that is classified.
        classes: Names, in the order of the logits; none: those of the store, in its order.
        frozen: Whether the head alone learns. All before it then stays in evaluation mode, batch norm included: a
            linear probe.
        rates: Part of the network ("backbone", "aggregation", "head") -> what the learning rate is multiplied by; 0:
            its weights stay as they are.
        head: The one that there is; `head_settings` say what stands before its linear layer.
        dim: The number of classes.
    """

    stream: str
    classes: list[str] = []
    frozen: bool = False
    rates: dict[str, Rate] = {}
    head: Literal["classifier"] = "classifier"
    dim: int = Field(default=1, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _count_classes(cls, given: Any) -> Any:
        named = given.get("classes") if isinstance(given, Mapping) else None
        return {**given, "dim": len(named)} if isinstance(named, list | tuple) and named else given

    @model_validator(mode="after")
    def _check_rates(self) -> ClassifySettings:
        if len(set(self.classes)) < len(self.classes):
            raise cannot_be("a class is named twice", "name each class once", "classes")
        parts = [LAYERS[layer] for layer in self.layers]
        for part in self.rates:
            if part not in parts:
                raise cannot_be(f"the network has no part {part!r}", f"its parts are {', '.join(parts)}", "rates")
        if self.frozen and self.rates:
            raise cannot_be("rates of a network that is frozen", "leave one of the two out", "rates")
        return self

    def of_classes(self, names: list[str]) -> Self:
        return self.changed(classes=names) if not self.classes and names else self

    @property
    def needs_labels(self) -> bool:
        return True

    @property
    def reads(self) -> dict[str, tuple[int, ...]]:
        return {self.stream: (0,)}

    @property
    def networks(self) -> dict[str, NetworkSettings]:
        return {self.stream: self}

    @property
    def starts(self) -> dict[str, Start]:
        """The classifier is always a fresh one, and what only pre-training has is left behind."""
        takes = ("backbone", "aggregation") if self.aggregation else ("backbone",)
        return {"network": Start(self.stream, self, takes, optional=(), leaves=("aggregation.predictor.",))}

    def check_batch(self, global_batch: int) -> None:
        """Any."""


class Classify(Method):
    """Cross-entropy of a classifier on one clip of each video.

    As published (docs/methods.md 7): CoCLR's and ViCC's probe is `frozen`, on unit rows and a batch norm; in their
    fine-tuning nine tenths of the features are dropped, and the backbone learns at a tenth of the rate.

    Values of a step: `loss`, and `class_top1`, the fraction of clips whose class has the largest logit.
    """

    Settings = ClassifySettings
    settings: ClassifySettings

    def __init__(self, settings: ClassifySettings, channels: Mapping[str, int]) -> None:
        super().__init__(settings, channels)
        self.network = settings.build(channels[settings.stream])
        for part in self.network.parts:
            self.network.parts[part].requires_grad_(self._rate(part) > 0)
        self.train(self.training)

    @property
    def networks(self) -> dict[str, Network]:
        return {self.settings.stream: self.network}

    @property
    def starting(self) -> dict[str, list[Mapping[str, nn.Module]]]:
        return {"network": [self.network.parts]}

    def train(self, mode: bool = True) -> Self:
        """What is frozen stays in evaluation mode."""
        super().train(mode)
        if self.settings.frozen:
            self.network.eval()
            self.network.head.train(mode)
        return self

    def meters(self, global_batch: int) -> dict[str, Meter]:
        guessing = 100 / self.settings.dim
        meaning = f"the share of clips that are told to be of their class; guessing gives {guessing:.3g} %"
        return {"class_top1": Meter("class right", meaning)}

    def logits(self, clips: Tensor) -> Tensor:
        """Of each class, (B, C) float32."""
        if not self.settings.frozen:
            return self.network(clips)
        with torch.no_grad():
            rows = self.network.embed(clips, self.network.layers[-2])
        return at_least_float32(self.network.head(rows))

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        logits = self.logits(batch.view(self.settings.stream, 0))
        right = logits.detach().argmax(dim=1) == batch.labels
        return {"loss": functional.cross_entropy(logits, batch.labels), "class_top1": right.float().mean()}

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The head's group comes first: its learning rate is the one that is logged."""
        learning = [(part, self._rate(part)) for part in reversed(self.network.parts) if self._rate(part)]
        groups = [
            at_rate(self.settings.optimiser, self.network.parts[part].parameters(), rate) for part, rate in learning
        ]
        return self.optimised(groups)

    def _rate(self, part: str) -> float:
        if self.settings.frozen:
            return float(part == "head")
        return self.settings.rates.get(part, 1.0)
