"""Values that released code gave on fixed inputs, kept beside the tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

FOLDER = Path(__file__).parent


def arrays(name: str) -> dict[str, np.ndarray]:
    """All arrays of a file, by their names in it."""
    with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as values:
        return {key: values[key] for key in values.files}


def tensors(name: str) -> dict[str, Tensor]:
    """The same as tensors."""
    return {key: torch.from_numpy(array) for key, array in arrays(name).items()}
