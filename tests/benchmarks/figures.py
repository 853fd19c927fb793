"""How every benchmark writes its figures: with its settings and the machine that they were taken on."""

from __future__ import annotations

import argparse
import json
import os
import platform
from pathlib import Path
from typing import Any


def journal_lines(store: Path) -> list[dict[str, Any]]:
    """What was spent on each video of a store that one run made."""
    (file,) = (store / "journal").iterdir()
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()[1:]]


def write_figures(arguments: argparse.Namespace, **figures: Any) -> None:
    """Write the figures to `arguments.json`, if that is asked for."""
    if not arguments.json:
        return
    import torch  # here, because spawned workers import the benchmark's modules again and would start seconds later

    settings = {key: str(value) if isinstance(value, Path) else value for key, value in vars(arguments).items()}
    machine = {
        "processor": platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
    }
    content = {"settings": settings, "machine": machine, **figures}
    arguments.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    print(f"wrote {arguments.json}")
