"""Memory of batches, taken again once nobody holds the batch: fresh memory costs a page fault for every 4 kB."""

from __future__ import annotations

import math
import weakref
from collections import deque

import numpy as np
import torch

KEPT = 8  # free blocks; more than the views and streams of a batch would only hold memory of batches of another size


class BatchMemory:
    """Tensors on the CPU, uninitialised. A block comes back when the last tensor or array that shows a part of it is
    gone.

    pinned: page-locked, for copies to a GPU that run beside its work; torch itself keeps and reuses such memory.
    """

    def __init__(self, pinned: bool = False) -> None:
        self.pinned = pinned
        self._free: deque[np.ndarray] = deque(maxlen=KEPT)  # its methods are atomic: blocks come back in any thread

    def tensor(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        if self.pinned:
            return torch.empty(shape, dtype=dtype, pin_memory=True)
        block = self._block(math.prod(shape) * dtype.itemsize)
        # The tensor holds this view of the block and nobody else does: its end is the tensor's.
        lent = block.view(torch.empty(0, dtype=dtype).numpy().dtype).reshape(shape)
        weakref.finalize(lent, self._free.append, block).atexit = False
        return torch.from_numpy(lent)

    def _block(self, size: int) -> np.ndarray:
        for _ in range(len(self._free)):
            try:
                block = self._free.popleft()
            except IndexError:  # another thread took the last one
                break
            if block.size == size:
                return block
            self._free.append(block)
        return np.empty(size, np.uint8)
