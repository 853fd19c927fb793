"""Files of tensors, read without running what is in them."""

from __future__ import annotations

import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import torch

from pipeline.errors import Refusal
from pipeline.storage import sealed

# As a shell has it, with the file and the new one behind.
TENSORS_ALONE = (
    "python -c \"import sys, torch; whole = torch.load(sys.argv[1], map_location='cpu', weights_only=False);"
    " torch.save({'state_dict': whole.get('state_dict', whole)}, sys.argv[2])\" FILE NEW"
)


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
        if found := re.search(r"GLOBAL ([\w.]+)", str(error)):
            raise Refusal(
                f"the file holds a {found[1]}, which is neither a tensor nor a plain value, and to load such might run"
                " code",
                where=str(path),
                remedy=f"give another file; or, of one that you trust, its tensors alone: {TENSORS_ALONE}",
            ) from error
        with path.open("rb") as file:
            begins = file.read(16)
        raise Refusal(
            f"the file is no checkpoint: it begins with {begins!r}",
            where=str(path),
            remedy="download it again: a site may have sent a page in its place",
        ) from error
    except Exception as error:  # damaged bytes make torch raise nearly anything
        raise Refusal(
            f"the checkpoint cannot be read: {error}",
            where=str(path),
            remedy="use a copy, or delete it and train (or fetch) it again",
        ) from error
