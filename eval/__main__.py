"""`python -m eval`: checkpoint and store -> numbers and a report."""

import sys

from eval import commands
from pipeline import cli

COMMANDS = {"evaluate": commands.evaluate, "report": commands.report}

if __name__ == "__main__":
    sys.exit(cli.main(COMMANDS, "Stage three: retrieval, linear probe and the report of a run.", "eval"))
