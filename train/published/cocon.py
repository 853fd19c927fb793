"""CoCon's files (specs/cocon.md section 1.5): as DPC's, one for each view, and with running statistics."""

from __future__ import annotations

from train.published import Published, dpc
from train.published.contents import State
from train.published.networks import PROBED

write = dpc.write


def recognises(state: State) -> bool:
    """Whether these are the tensors of one of CoCon's files; or of the one of DPC's that has running statistics."""
    return f"{PROBED}conv1.weight" in state and dpc.has_statistics(state)


def read(state: State, where: str) -> Published:
    """See `train.published.import_published`. Role: query, whichever view the file is of."""
    return dpc.read_as("cocon", state, where, running_statistics=True)
