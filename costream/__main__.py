"""`costream COMMAND`: all commands of the pipeline, of training and of evaluation behind one name."""

from __future__ import annotations

import importlib
import sys
from typing import NamedTuple

DESCRIPTION = "costream: videos -> store of frames and optical flow -> self-supervised pre-training -> evaluation"


class Place(NamedTuple):
    """Where a command is. package: whose `__main__` has it. name: there. does: what the list of commands says of it."""

    package: str
    name: str
    does: str


COMMANDS = {
    "extract": Place("pipeline", "extract", "videos into a store of frames and optical flow"),
    "bring": Place("pipeline", "bring", "frames and flow that others extracted into a store"),
    "manifest": Place("pipeline", "manifest", "list the videos of a data set, with labels and splits"),
    "annotate": Place("pipeline", "annotate", "labels and splits of a manifest for a store"),
    "status": Place("pipeline", "status", "what is in a store, what was refused and why"),
    "verify": Place("pipeline", "verify", "check every byte of a store"),
    "remove": Place("pipeline", "remove", "take videos out of a store"),
    "preview": Place("pipeline", "preview", "contact sheets of a store"),
    "export": Place("pipeline", "export", "one stored video as MP4, NumPy array or JPEGs"),
    "flow": Place("pipeline", "flow", "optical flow of two pictures or of a video"),
    "bench-flow": Place("pipeline", "bench-flow", "time the estimators of flow"),
    "probe-video": Place("pipeline", "probe", "decode a video as extraction does, and tell what it holds"),
    "synthetic": Place("pipeline", "synthetic", "make the embedded data set"),
    "pretrain": Place("train", "pretrain", "train on a store without labels; continues where it stopped"),
    "finetune": Place("train", "finetune", "train a run's networks further, on labels"),
    "probe": Place("train", "probe", "train a linear classifier on a run's networks"),
    "preview-clips": Place("train", "preview", "what a network will see, as film strips"),
    "verify-run": Place("train", "verify", "check every byte of a run"),
    "import": Place("train", "import", "make a run of files that the papers' authors published"),
    "export-network": Place("train", "export", "write a run's backbone for other code"),
    "evaluate": Place("eval", "evaluate", "retrieval, probes and report of a run"),
    "report": Place("eval", "report", "write a report again, or one of several runs"),
    "compare": Place("eval", "compare", "evaluated runs side by side"),
    "features": Place("eval", "features", "features of a folder of new videos"),
    "search": Place("eval", "search", "the videos of a store that are most like a video file"),
    "duplicates": Place("eval", "duplicates", "pairs of videos that are nearly the same"),
    "fuse": Place("eval", "fuse", "class probabilities of several runs as one"),
    "tables": Place("eval", "tables", "every table of the five papers, and what stands in its place here"),
}


def main() -> int:
    """Of the command that is asked for only what it needs is imported, so that the list is there at once."""
    asked = sys.argv[1] if len(sys.argv) > 1 else ""
    if asked in ("", "-h", "--help"):
        print(listing())
        return 0 if asked else 2
    from pipeline.commands import starting
    from pipeline.errors import UsageError, refuse_unknown

    if asked not in COMMANDS:
        try:
            refuse_unknown("command", asked, COMMANDS)
        except UsageError as error:
            print(f"costream: {error}", file=sys.stderr)
            return error.exit_code
    place = COMMANDS[asked]
    with starting.loading() if place.package != "pipeline" else starting.importing():
        function = importlib.import_module(f"{place.package}.__main__").COMMANDS[place.name]
    from pipeline.commands import console

    return console.main({asked: function}, DESCRIPTION, "costream")


def listing() -> str:
    """All commands, a line each."""
    width = max(map(len, COMMANDS))
    lines = (f"  {name:{width}}  {place.does}" for name, place in COMMANDS.items())
    return "\n".join([DESCRIPTION, "", *lines, "", "`costream COMMAND --help` tells its options."])


if __name__ == "__main__":
    sys.exit(main())
