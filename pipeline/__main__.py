"""`python -m pipeline`: videos -> store."""

import sys
from collections.abc import Callable

from pipeline import cli, commands, existing_commands, export_commands, extract_commands, flow_commands

COMMANDS: dict[str, Callable[..., int | None]] = {
    "manifest": commands.manifest,
    "synthetic": commands.make_synthetic,
    "extract": extract_commands.extract,
    "bring": existing_commands.bring,
    "status": commands.status,
    "verify": commands.verify,
    "preview": commands.preview,
    "export": export_commands.export,
    "probe": commands.probe,
    "flow": flow_commands.flow,
    "bench-flow": flow_commands.bench_flow,
}

if __name__ == "__main__":
    sys.exit(cli.main(COMMANDS, "Stage one: decode videos, compute optical flow, store both.", "pipeline"))
