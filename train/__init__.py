"""Stage two: store -> checkpoint."""

import contextlib
import sys

from pipeline.commands.starting import loading

# `python -m train`, or eval, imports its package before the program begins; who imports it otherwise is told nothing.
with loading() if sys.argv[:1] == ["-m"] else contextlib.nullcontext():
    from pipeline import environment

    environment.repair_torchvision()
