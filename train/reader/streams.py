"""Streams of a GPU that clips pass through on their way from a reader to a network."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor


class CopyStream:
    """The stream of a GPU on which clips are copied out of DALI's memory, while it is `entered`; nothing without one.

    Not the one that networks are trained on: there a copy would come, and be waited for, after all that is queued. The
    thread that reads waits for the copies alone, so that whoever gets a batch need not; who uses it on another stream
    tells torch so (`used_here`).
    """

    def __init__(self, device: int | None) -> None:
        self.stream = None if device is None else torch.cuda.Stream(device)

    def entered(self) -> AbstractContextManager[Any]:
        return nullcontext() if self.stream is None else torch.cuda.stream(self.stream)

    def copied(self, items: Tensor) -> Tensor:
        """The items: on a GPU in torch's own memory."""
        return items if self.stream is None else items.clone()

    def wait(self) -> None:
        """For all that was done on it, without keeping a core busy and without the interpreter's lock."""
        if self.stream is not None:
            done = torch.cuda.Event(blocking=True)
            done.record(self.stream)
            done.synchronize()


def used_here(tensor: Tensor) -> Tensor:
    """The same tensor; torch is told that, if on a GPU, it is used on the current stream, too, which may not be the one
    that it was made on. Otherwise its memory would be given to the next batch as soon as nobody holds it, while work
    that reads it is still queued."""
    if tensor.is_cuda:
        tensor.record_stream(torch.cuda.current_stream(tensor.device))
    return tensor
