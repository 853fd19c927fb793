"""`python -m train`: store -> checkpoint."""

import sys
from collections.abc import Callable

from pipeline.commands import console
from train import commands

COMMANDS: dict[str, Callable[..., int | None]] = {
    "pretrain": commands.pretrain,
    "preview": commands.preview,
    "verify": commands.verify,
    "import": commands.import_files,
    "export": commands.export,
}

if __name__ == "__main__":
    sys.exit(console.main(COMMANDS, "Stage two: self-supervised pre-training from a store.", "train"))
