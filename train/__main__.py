"""`python -m train`: store -> checkpoint."""

import sys
from collections.abc import Callable

from pipeline.commands import console
from pipeline.commands.starting import loading

with loading():
    from train import commands, file_commands

COMMANDS: dict[str, Callable[..., int | None]] = {
    "pretrain": commands.pretrain,
    "finetune": commands.finetune,
    "probe": commands.probe,
    "preview": commands.preview,
    "verify": file_commands.verify,
    "import": file_commands.import_files,
    "export": file_commands.export,
}

if __name__ == "__main__":
    sys.exit(console.main(COMMANDS, "Stage two: pre-training, probes and fine-tuning from a store.", "train"))
