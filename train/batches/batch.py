"""A batch as methods see it: of each stream, clip by clip, what the networks are given."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import torch
from torch import Tensor

from train.hardware.collectives import world_size
from train.reader.affine import normalise


@dataclass
class Part:
    """Those of a batch's rows whose clips are made from one view. rows: their places in the batch, int64 (b,).

    clips: uint8 (b, P, T, h, w); float32 where bytes are not even steps. affine: float32 (b, K, D, P + 1), from bytes
    to network input (see `train.augment.Pixels`).
    """

    rows: Tensor
    clips: Tensor
    affine: Tensor


@dataclass
class Batch:
    """Clips of B samples: of each stream those that the method reads, by their numbers within a sample.

    parts: stream -> number -> what its B rows are made of. labels: class index, int64 (B,), -1 without. sources: number
    of the recording, int64 (B,). index: of the video in the training set, int64 (B,). groups: number of its group
    there, int64 (B,), -1 without. mixed: streams that may show several views.
    """

    parts: dict[str, dict[int, list[Part]]]
    labels: Tensor
    sources: Tensor
    index: Tensor
    groups: Tensor
    mixed: Collection[str] = field(default=(), kw_only=True)

    def pin_memory(self) -> Batch:
        """The same batch with what is on the CPU in page-locked memory, from where a GPU fetches it while others
        compute."""
        return self.mapped(lambda tensor: tensor if tensor.is_cuda else tensor.pin_memory())

    def views(self, stream: str) -> list[Tensor]:
        """The clips of a stream as network input, each float32 (B, D, T, h, w)."""
        return [self.view(stream, number) for number in self.parts[stream]]

    def view(self, stream: str, number: int) -> Tensor:
        """One of them, by its number within a sample."""
        parts = self.parts[stream][number]
        made = [normalise(part.clips, part.affine) for part in parts]
        if len(parts) == 1:
            return made[0]
        whole = torch.empty((len(self.index), *made[0].shape[1:]), dtype=made[0].dtype, device=made[0].device)
        for part, clips in zip(parts, made, strict=True):
            whole[part.rows] = clips
        return whole

    def to_send(self, stream: str, number: int) -> tuple[Tensor, ...]:
        """Of which `train.reader.affine.network_input` makes `view`, in a quarter of its bytes: clips with their pixels
        interleaved, (B, T, h, w, P), and their maps. All ranks have them of one shape and in one order: a map for every
        frame, and of a stream that may show several views what `view` gives."""
        if stream in self.mixed or world_size() == 1:
            return (self.view(stream, number),)
        [part] = self.parts[stream][number]
        return part.clips.movedim(1, -1), part.affine.expand(-1, part.clips.shape[2], -1, -1)

    def mapped(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """The same with every tensor changed."""
        parts = {
            stream: {
                number: [Part(change(part.rows), change(part.clips), change(part.affine)) for part in made]
                for number, made in by_number.items()
            }
            for stream, by_number in self.parts.items()
        }
        columns = (change(tensor) for tensor in (self.labels, self.sources, self.index, self.groups))
        return Batch(parts, *columns, mixed=self.mixed)
