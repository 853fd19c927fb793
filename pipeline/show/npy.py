"""A `.npy` file that grows on the disk, for arrays that are larger than memory or of unknown length."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import numpy as np


class GrowingArray:
    """Blocks are appended along the first axis; NumPy leaves room in the header for that axis to grow.

    All blocks have the dtype of the first one. The file is readable after `finish`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.shape: tuple[int, ...] = (0,)
        self.dtype = np.dtype(np.uint8)

    def add(self, block: np.ndarray) -> None:
        if self.shape == (0,):
            self.dtype = block.dtype.newbyteorder("<")
        self.shape = (self.shape[0] + len(block), *block.shape[1:])
        with open(self.path, "ab") as file:
            if not file.tell():
                self._write_header(file)
            file.write(np.ascontiguousarray(block, self.dtype).data)

    def finish(self) -> None:
        with open(self.path, "r+b") as file:
            self._write_header(file)

    def _write_header(self, file: BinaryIO) -> None:
        header = {"descr": self.dtype.str, "fortran_order": False, "shape": self.shape}
        np.lib.format.write_array_header_1_0(file, header)
