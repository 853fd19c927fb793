"""Files of tensors, read without running what is in them."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from pipeline.errors import Refusal
from pipeline.storage import sealed


def load(path: Path, remedy: str) -> Any:
    """What `torch.save` wrote, on the CPU.

    Raises Refusal for a file that is not there, for which `remedy` says what to do, is damaged, or would run code.
    Damage is found by the digest that our files carry, of others by the checksums that torch writes, and does not look
    at itself.
    """
    try:
        if not sealed.check(path) and zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                # Torch writes no comment: this one was the digest.
                if archive.comment or archive.testzip() is not None:
                    raise ValueError(sealed.CHANGED)
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise Refusal("there is no checkpoint", where=str(path), remedy=remedy) from error
    except pickle.UnpicklingError as error:
        raise Refusal(
            "the file is no checkpoint, or holds more than tensors and plain values and might run code",
            where=str(path),
            remedy="give another file; of one that you trust, load it elsewhere and save its state dict alone",
        ) from error
    except Exception as error:  # damaged bytes make torch raise nearly anything
        raise Refusal(
            f"the checkpoint cannot be read: {error}",
            where=str(path),
            remedy="use a copy, or delete it and train (or fetch) it again",
        ) from error
