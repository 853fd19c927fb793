"""What a machine with a GPU says of this project, in nine minutes: `make gpu-check`, or `python -m tests.gpu.check`.

Needs no set-up of ours and no network: it runs with what the machine has, and says which versions those are. Every
check is a process of its own with its own limit; none stops the others. Writes one JSON and one page (docs/gpu.md says
how to read it). Exit code 1 where something that must hold does not.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

TOP = Path(__file__).resolve().parents[2]
ALL_SECONDS = 540.0  # for all checks together
TINY_SECONDS = 600.0  # for each, on whatever CPU
SAID = 3000  # last characters that are kept of what a check printed


@dataclass(frozen=True)
class Check:
    """name: of a function in `module`. seconds: its limit. part: what it is a part of."""

    name: str
    module: str
    seconds: float
    parts: tuple[str, ...] = ("",)


# Cheapest verdicts first.
CHECKS = (
    Check("machine", "other_checks", 30, ("", "dali")),
    Check("agreement", "flow_checks", 75),
    Check("rates", "flow_checks", 60),
    Check("sizes", "flow_checks", 30),
    Check("streams", "flow_checks", 40),
    Check("profile", "flow_checks", 25),
    Check("dali_tests", "other_checks", 120, ("dali",)),
    Check("readers", "other_checks", 50, ("", "dali")),
    Check("steps", "other_checks", 70, ("", "dali")),
    Check("project_tests", "other_checks", 120),
    Check("raft", "other_checks", 45),
    Check("pictures", "other_checks", 20, ("", "dali")),
    Check("extraction", "other_checks", 100),
    Check("memcheck", "flow_checks", 40),
    Check("compiled", "other_checks", 90),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--references", type=Path, required=True, help="archive of `make gpu-references`")
    parser.add_argument("--out", type=Path, required=True, help="folder for gpu-check.json and gpu-check.md")
    parser.add_argument("--part", default="", choices=["", "dali"], help="dali: what concerns DALI alone")
    parser.add_argument("--wheels", type=Path, help="folder of wheels to use, as the machine has no network")
    parser.add_argument("--only", default="", help="names of checks, with commas; all by default")
    parser.add_argument("--tiny", action="store_true", help="tiny, on a CPU: goes through every line")
    parser.add_argument("--one", default="", help=argparse.SUPPRESS)  # in the process of a check
    arguments = parser.parse_args()
    if arguments.one:
        return _in_process(arguments)
    if not arguments.references.is_file():
        parser.error(f"{arguments.references} is not there; make it anywhere with `make gpu-references`")
    arguments.out.mkdir(parents=True, exist_ok=True)
    only = set(filter(None, arguments.only.split(",")))
    chosen = [check for check in CHECKS if arguments.part in check.parts and (not only or check.name in only)]
    with tempfile.TemporaryDirectory() as scratch:
        environment = _environment(arguments, Path(scratch))
        found = _all(chosen, arguments, Path(scratch), environment)
    _write(found, arguments.out)
    if any(row["right"] is False for row in found.values()):
        sys.exit(1)


def _all(
    chosen: list[Check], arguments: argparse.Namespace, scratch: Path, environment: dict[str, str]
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    began = time.monotonic()
    for check in chosen:
        left = ALL_SECONDS - (time.monotonic() - began)
        limit = TINY_SECONDS if arguments.tiny else min(check.seconds, left)
        found[check.name] = _run(check, limit, arguments, scratch, environment)
        _write(found, arguments.out)  # so that what is known is there, should the machine go
        row = found[check.name]
        print(f"{_mark(row['right'])} {check.name} ({row['seconds']:.0f} s): {row['words']}", flush=True)
    return found


def _run(
    check: Check, limit: float, arguments: argparse.Namespace, scratch: Path, environment: dict[str, str]
) -> dict[str, Any]:
    """What the check gave; a check that died, or ran over its limit, has failed."""
    if limit <= 0:
        return {"right": None, "words": "not run: no time was left", "figures": {}, "seconds": 0.0}
    folder = scratch / check.name
    folder.mkdir()
    tiny = ["--tiny"] if arguments.tiny else []
    command = [
        sys.executable,
        "-m",
        "tests.gpu.check",
        "--one",
        check.name,
        "--references",
        str(arguments.references.resolve()),
    ]
    began, log = time.monotonic(), folder / "log"
    with open(log, "w") as output:
        process = subprocess.Popen(
            [*command, "--out", str(folder), *tiny],
            cwd=TOP,
            env=environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            process.wait(limit)
            reason = f"it ended with {process.returncode} and no result"
        except subprocess.TimeoutExpired:
            reason = f"it was ended after its limit of {limit:.0f} s"
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    result = folder / "found.json"
    row = json.loads(result.read_text()) if result.exists() else {"right": False, "words": reason, "figures": {}}
    return {**row, "seconds": time.monotonic() - began, "said": log.read_text(errors="replace")[-SAID:]}


def _in_process(arguments: argparse.Namespace) -> None:
    """Run one check and write what it found."""
    sys.path.insert(0, str(TOP))
    check = next(check for check in CHECKS if check.name == arguments.one)
    import train  # noqa: F401  (mends torchvision before anything imports lightning)
    from tests.gpu.given import Found, Given

    given = Given(arguments.references, arguments.out, arguments.tiny)
    try:
        if arguments.tiny and check.module == "flow_checks":
            from tests.pipeline import interpreted

            interpreted.made_small()
        found = getattr(importlib.import_module(f"tests.gpu.{check.module}"), check.name)(given)
    except Exception as error:  # noqa: BLE001  whatever it is, it is a verdict
        traceback.print_exc()
        found = Found(False, f"{type(error).__name__}: {error}")
    (arguments.out / "found.json").write_text(json.dumps(asdict(found), default=float))


def _environment(arguments: argparse.Namespace, scratch: Path) -> dict[str, str]:
    """Of every check; in it, carried wheels come before what the machine has."""
    environment = dict(os.environ)
    paths = [str(TOP), *filter(None, [environment.get("PYTHONPATH")])]
    if arguments.wheels:
        packages = scratch / "packages"
        wheels = sorted(map(str, arguments.wheels.glob("*.whl")))
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-index",
            "--no-deps",
            "--target",
            str(packages),
        ]
        subprocess.run([*command, *wheels], check=True)
        paths.insert(1, str(packages))
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    if arguments.tiny:
        environment |= {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    else:
        environment["REQUIRE_GPU"] = "1"
    return environment


def _mark(right: bool | None) -> str:
    return {True: "holds ", False: "FAILS ", None: "figure"}[right]


def _write(found: dict[str, Any], out: Path) -> None:
    """The JSON and the page."""
    (out / "gpu-check.json").write_text(json.dumps(found, indent=1) + "\n")
    lines = ["# What this machine says", "", "| | check | seconds | |", "|---|---|---|---|"]
    for name, row in found.items():
        words = row["words"].replace("|", "\\|").replace("\n", " ")
        lines.append(f"| {_mark(row['right']).strip()} | {name} | {row['seconds']:.0f} | {words} |")
    for name, row in found.items():
        lines += ["", f"## {name}", "", "```", json.dumps(row["figures"], indent=1), "```"]
        if row["right"] is False:
            lines += ["", "```", row.get("said", "").strip(), "```"]
    (out / "gpu-check.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
