"""`python -m pipeline`: videos -> store."""

import sys
from collections.abc import Callable

from pipeline.commands.starting import importing

with importing():
    from pipeline.commands import annotate, bring, console, export, extract, remove, stores
    from pipeline.commands import flow as flow_commands

COMMANDS: dict[str, Callable[..., int | None]] = {
    "manifest": stores.manifest,
    "synthetic": stores.make_synthetic,
    "extract": extract.with_view_options(extract.extract),
    "bring": bring.bring,
    "annotate": annotate.annotate,
    "status": stores.status,
    "verify": stores.verify,
    "remove": remove.remove,
    "preview": stores.preview,
    "export": export.export,
    "probe": stores.probe,
    "flow": flow_commands.flow,
    "bench-flow": flow_commands.bench_flow,
}

if __name__ == "__main__":
    sys.exit(console.main(COMMANDS, "Stage one: decode videos, compute optical flow, store both.", "pipeline"))
