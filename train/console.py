"""What a command says to a person: by one process only, however many train together."""

from __future__ import annotations

import sys

from lightning.pytorch.utilities import rank_zero_only
from rich.status import Status
from tqdm import tqdm

from pipeline.terminal import Terminal, visible

# Lightning starts the same command once for each further device.
LEADER = rank_zero_only.rank == 0  # type: ignore[attr-defined]
console = Terminal(quiet=not LEADER)


def preparing() -> Status:
    """A line that is there while the reader prepares itself: its first use on a machine compiles for some seconds."""
    return Terminal(stderr=True, quiet=not LEADER).status("preparing the reader; its first use compiles it")


def tell(text: str) -> None:
    """A line on standard error, above a progress bar where there is one."""
    if LEADER:
        tqdm.write(visible(text), file=sys.stderr)
