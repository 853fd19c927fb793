"""What a report tells of training: curves of every stage, what it cost, and where it came from."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from eval import charts
from eval.charts import Curve
from eval.report import sheets
from eval.report.sheets import Sheet
from eval.runs import Stage
from eval.table import Cell
from train.callbacks.checkpointing import BEST

NO_CURVES = ("step", "epoch", "data_time", "step_time", "loss")
# What methods note of the prototypes or clusters that they assign to while they train.
OF_CLUSTERS = {
    "assignment_entropy": "entropy of the assignments (1: they say nothing)",
    "largest_prototype": "share of the commonest prototype",
    "empty_prototypes": "share of prototypes without a clip",
    "stream_agreement": "streams that agree on the assignment",
    "prototype_cosine": "largest cosine of a prototype with another, mean",
    "guidance_kl": "KL(guided assignment, initial one), nats",
    "clusters": "clusters",
    "nmi": "NMI with the classes",
    "ami": "AMI with the classes",
    "ari": "ARI with the classes",
    "accuracy": "accuracy of the clusters",
    "purity": "purity of the clusters",
}
Log = list[dict[str, Any]]  # a line for each logged step
RIGHT = "_assigned_right"  # behind the name of a stream
IN_WORDS = {
    "knn_top1": "nearest neighbour right, held-out videos",
    "same_video_top1": "held-out videos that find themselves",
    "contrast_top1": "own clip ranked first",
    "contrast_top5": "own clip in the first five",
    "positive_top1": "a positive ranked first",
    "lr": "learning rate",
}


@dataclass(frozen=True)
class StageCurves:
    """Curves of a stage: its loss, others by what they show, and those of prototypes and clusters."""

    stage: str
    method: str
    streams: list[str]
    step: int
    finished: bool
    chosen: bool  # whether the checkpoint of `step` is the best one, and training went on
    waiting: float | None  # the share of the time
    loss: Curve
    others: dict[str, Curve]
    clusters: dict[str, Curve]


def curves(runs: Sequence[Sequence[Stage]]) -> list[StageCurves]:
    """Of every stage that has a log of its steps, of one run, or of several of one recipe."""
    stages: dict[str, list[tuple[Stage, Log]]] = {}
    for run in runs:
        for stage in run:
            if logged := [line for line in stage.metrics() if math.isfinite(line.get("loss", math.nan))]:
                stages.setdefault(stage.name, []).append((stage, logged))
    return [_of_stage(name, found) for name, found in stages.items()]


def _of_stage(name: str, found: Sequence[tuple[Stage, Log]]) -> StageCurves:
    facts, logs = [stage.metadata for stage, _ in found], [logged for _, logged in found]
    lines = [line for logged in logs for line in logged]
    names = dict.fromkeys(key for line in lines for key in line if key not in NO_CURVES)
    made = {key: curve for key in names if (curve := _curve(logs, key)) is not None}
    waiting, stepping = (sum(line.get(key, 0.0) for line in lines) for key in ("data_time", "step_time"))
    return StageCurves(
        name,
        facts[0]["method"],
        facts[0]["streams"],
        max(one["step"] for one in facts),
        all(one["finished"] for one in facts),
        any(stage.checkpoint.name == BEST for stage, _ in found),
        waiting / stepping if stepping else None,  # a step's time includes its waiting
        charts.curve(*(([line["step"] for line in log], [line["loss"] for line in log]) for log in logs)),
        {_words(key): curve for key, curve in made.items() if not _of_clusters(key)},
        {_of_clusters(key): made[key] for key in sorted(made, key=_place) if _of_clusters(key)},
    )


def _curve(logs: Sequence[Log], name: str) -> Curve | None:
    having = [[(line["step"], line[name]) for line in logged if _finite(line.get(name))] for logged in logs]
    drawn = [([step for step, _ in found], [value for _, value in found]) for found in having if len(found) > 1]
    return charts.curve(*drawn) if drawn else None


def _finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _of_clusters(name: str) -> str:
    """In words what a number says of prototypes or clusters; empty if it says nothing of them."""
    if name.endswith(RIGHT):
        return f"{name.removesuffix(RIGHT)}: nearest by its assignment has its class"
    return OF_CLUSTERS.get(name, "")


def _place(name: str) -> int:
    """Among the others of clusters."""
    return list(OF_CLUSTERS).index(name) if name in OF_CLUSTERS else len(OF_CLUSTERS)


def _words(name: str) -> str:
    return IN_WORDS.get(name, name.replace("_", " "))


def cost(stages: Sequence[Stage], recipe: dict[str, Any]) -> Sheet:
    """What each stage took on the machine that trained it, as far as its log tells."""
    batches = {stage["name"]: stage.get("batch") or recipe.get("batch") for stage in recipe["stages"]}
    rows: list[list[Cell]] = []
    for stage in stages:
        seconds, waited, before = 0.0, 0.0, 0
        for line in stage.metrics():
            steps = line["step"] - before
            before = line["step"]
            seconds += steps * line.get("step_time", 0.0)
            waited += steps * line.get("data_time", 0.0)
        batch = batches.get(stage.name)
        rate = f"{before * batch / seconds:,.1f}" if seconds and batch else None
        share = f"{100 * waited / seconds:.0f}" if seconds else None
        step = stage.metadata["step"]
        rows.append([stage.name, stage.metadata["method"], ", ".join(stage.metadata["streams"]), step, batch,
                     round(seconds, 1) or None, rate, share])  # fmt: skip
    head = ("stage", "method", "stream", "steps", "batch", "seconds", "videos/s", "waiting %")
    return sheets.plain("cost", "What training cost", head, rows)


def when(stages: Sequence[Stage]) -> str:
    """On which day training ended, by its last checkpoint, how long it took, by its log, and on what, where the
    checkpoints say it."""
    seconds = 0.0
    for stage in stages:
        before = 0
        for line in stage.metrics():
            seconds, before = seconds + (line["step"] - before) * line.get("step_time", 0.0), line["step"]
    day = time.strftime("%Y-%m-%d", time.localtime(max(stage.checkpoint.stat().st_mtime for stage in stages)))
    took = "" if not seconds else f"{seconds / 3600:.1f} h" if seconds > 5400 else f"{max(seconds / 60, 0.1):.1f} min"
    machines = list(dict.fromkeys(filter(None, (stage.metadata.get("hardware") for stage in stages))))
    on = f"on {'; '.join(machines)}" if machines else ""
    return ", ".join(filter(None, (f"trained until {day}", took and f"{took} of steps", on)))


def provenance(stages: Sequence[Stage], digests: Sequence[str]) -> Sheet:
    """Where each stage's checkpoint came from. digests: of the checkpoints."""
    rows: list[list[Cell]] = []
    imported = any("imported" in stage.metadata for stage in stages)
    for stage, digest in zip(stages, digests, strict=True):
        facts = stage.metadata
        annotated = facts.get("annotations") or {}
        rows.append([
            stage.name, digest[:16], str(facts["seed"]), str(facts.get("plans", "")) or None, facts["recipe_hash"],
            facts["store_settings_hash"] or None, facts["store_videos_hash"][:16] or None,
            f"{annotated['name']} {annotated['digest'][:16]}" if annotated.get("name") else None,
            *([facts.get("imported", "")[:16] or None] if imported else []),
        ])  # fmt: skip
    head = ["stage", "checkpoint", "seed", "plans", "recipe", "store settings", "videos", "annotations"]
    head += ["imported file"] if imported else []
    return sheets.plain("provenance", "Where the networks come from", head, rows)
