"""What methods that contrast keys with a queue, or with the batch, are told alike."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, ClassVar

from pipeline.errors import UsageError
from train.methods.method import Method
from train.networks.network import Network
from train.networks.queue import check_length
from train.optim import OptimiserSettings
from train.settings import check_number

STREAM_CHANNELS = {"rgb": 3, "flow": 2}
OF_NETWORKS = ("backbone", "backbone_settings", "dim", "temporal_centring")  # what a recipe says of a network


def network(in_channels: int, dim: int, **settings: Any) -> Network:
    """A network as a recipe says it: `dim` is the length of the rows that losses compare."""
    return Network(in_channels=in_channels, head_settings={"dim": dim}, **settings)


class Contrastive(Method):
    """Settings of InfoNCE and its relatives, checked and kept in the checkpoint; networks and queues are the method's own.

    Args:
        backbone, backbone_settings, dim, temporal_centring: see `Network`.
        queue: number of keys K, a multiple of the batch over all ranks. Published: 2048 on UCF101, 16384 on Kinetics-400.
        temperature: divides the cosines.
        momentum: share that a key encoder keeps of itself at each optimiser step.
        optimiser: `OptimiserSettings`, or a mapping with its keys.
        channels: of each stream at the network's input, as the recipe's augmentation makes them; by default those of
            `STREAM_CHANNELS`.

    Raises:
        UsageError: a number out of range, or a queue of 0 in a method that is nothing without one.
    """

    in_batch: ClassVar[bool] = False  # whether `queue: 0` is a method too

    def __init__(
        self,
        backbone: str = "s3d",
        backbone_settings: dict[str, Any] | None = None,
        dim: int = 128,
        temporal_centring: bool = False,
        queue: int = 2048,
        temperature: float = 0.07,
        momentum: float = 0.999,
        optimiser: OptimiserSettings | dict[str, Any] | None = None,
        channels: dict[str, int] | None = None,
    ) -> None:
        super().__init__()
        check_number("method.dim", dim, whole=True, least=1)
        check_number("method.queue", queue, whole=True, least=0)
        if not queue and not self.in_batch:
            raise UsageError(
                "there are no in-batch negatives in this method", where="method.queue", remedy="at least 1"
            )
        check_number("method.temperature", temperature, above=0)
        check_number("method.momentum", momentum, least=0, most=1)
        self.optimiser_settings = OptimiserSettings.of(optimiser)
        self.save_hyperparameters(
            {
                "backbone": backbone,
                "backbone_settings": backbone_settings,
                "dim": dim,
                "temporal_centring": temporal_centring,
                "queue": queue,
                "temperature": temperature,
                "momentum": momentum,
                "optimiser": asdict(self.optimiser_settings),  # plain values in the checkpoint
                "channels": channels,
            }
        )

    def check_batch(self, global_batch: int) -> None:
        """Refuses a number of videos per step (over all ranks) that this method cannot work with.

        Raises:
            UsageError: the queue is not a multiple of it; or, with in-batch negatives, a single video.
        """
        if self.hparams["queue"]:
            check_length(self.hparams["queue"], global_batch)
        elif global_batch < 2:
            raise UsageError(
                "in-batch negatives need at least two videos in a batch",
                where=f"a batch of {global_batch} (over all ranks)",
                remedy="a larger batch, or a queue",
            )
