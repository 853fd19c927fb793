"""Pre-training methods, one LightningModule each, chosen by name. A new one is one module and one line of METHODS.

What every method has is in `train.methods.method.Method`.
"""

from __future__ import annotations

from typing import Any

from train.methods.method import Method
from train.registry import Registry

METHODS = Registry(
    "method",
    {
        "cmc": "train.methods.cmc:CMC",
        "coclr": "train.methods.coclr:CoCLR",
        "infonce": "train.methods.infonce:InfoNCE",
        "ubernce": "train.methods.ubernce:UberNCE",
    },
)


def create(name: str, **settings: Any) -> Method:
    """A freshly initialised method.

    Raises:
        UsageError: unknown name or setting, with the nearest spelling and the known ones.
    """
    return METHODS.create(name, **settings)
