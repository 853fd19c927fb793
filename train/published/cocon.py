"""CoCon's files: as DPC's, one for each view, and with running statistics.

What is negative stays so between backbone and ConvGRU; in pre-training blocks and states are unit vectors there.
"""

from __future__ import annotations

from train.published import Published, dpc
from train.published.contents import State

write = dpc.write


def recognises(state: State) -> bool:
    """Whether these are the tensors of one of CoCon's files; or of the one of DPC's that has running statistics."""
    return dpc.aggregates(state) and dpc.has_statistics(state)


def read(state: State, where: str) -> Published:
    """See `train.published.import_published`. Role: query, whichever view the file is of."""
    return dpc.read_as("cocon", state, where, True, "unit", "plain")
