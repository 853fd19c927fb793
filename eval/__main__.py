"""`python -m eval`: checkpoint and store -> numbers and a report."""

import sys
from collections.abc import Callable

from pipeline.commands import console
from pipeline.commands.starting import loading

with loading():
    from eval import commands

COMMANDS: dict[str, Callable[..., int | None]] = {
    "evaluate": commands.evaluate,
    "fuse": commands.fuse,
    "report": commands.report,
    "compare": commands.compare,
    "features": commands.embed_folder,
    "search": commands.search,
    "duplicates": commands.duplicates,
    "tables": commands.tables,
}

if __name__ == "__main__":
    sys.exit(console.main(COMMANDS, "Stage three: what a run's networks learned, in numbers and pictures.", "eval"))
