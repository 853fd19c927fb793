"""Numbers of the papers, quoted as published, to stand beside ours and never among them.

All are for S3D, 32 frames of 128x128, split 1. Retrieval: test queries, training gallery. Where a number was read is
its `source`: "readme" and "issue N" are the CoCLR authors' repository, "mvcgc" the tables of the MVCGC paper, which
reprint the CoCLR paper's, "abstract" the quoted paper's own abstract. Numbers whose source could not be seen are left
out.
"""

from __future__ import annotations

from dataclasses import dataclass

UNSTATED = "not stated"


@dataclass(frozen=True)
class Quoted:
    """One published number: `value` is a fraction 0..1, `pretraining` and `data` name data sets, `metric` is "R@k" or
    "linear_top1"."""

    model: str
    method: str
    pretraining: str
    stream: str
    data: str
    metric: str
    value: float
    source: str
    note: str = ""


def _recalls(percent: dict[int, float]) -> dict[str, float]:
    return {f"R@{k}": value for k, value in percent.items()}


# (model, method, pre-trained on, stream, tested on, {metric: percent}, source, note)
_TABLE: list[tuple[str, str, str, str, str, dict[str, float], str, str]] = [
    ("InfoNCE", "infonce", "ucf101", "rgb", "ucf101", {"linear_top1": 46.8}, "readme", "500 epochs"),
    ("InfoNCE", "infonce", "ucf101", "rgb", "ucf101", _recalls({1: 33.1}), "readme, mvcgc", "500 epochs"),
    ("InfoNCE, 800 epochs", "infonce", "ucf101", "rgb", "ucf101", {"linear_top1": 52.3}, "readme, mvcgc", "800 epochs"),
    ("InfoNCE", "infonce", "ucf101", "flow", "ucf101", {"linear_top1": 66.8}, "mvcgc", ""),
    ("InfoNCE", "infonce", "ucf101", "flow", "ucf101", _recalls({1: 45.2}), "readme, mvcgc", ""),
    ("CoCLR", "coclr", "ucf101", "rgb", "ucf101", {"linear_top1": 70.2}, "issues 19 and 21, mvcgc", ""),
    (
        "CoCLR",
        "coclr",
        "ucf101",
        "rgb",
        "ucf101",
        _recalls({1: 53.3, 5: 69.4, 10: 76.6, 20: 82.0}),
        "mvcgc",
        "comparison table",
    ),
    ("CoCLR, released file", "coclr", "ucf101", "rgb", "ucf101", _recalls({1: 51.8}), "readme, mvcgc", ""),
    ("CoCLR, released file", "coclr", "ucf101", "flow", "ucf101", _recalls({1: 48.4}), "readme", ""),
    ("CoCLR", "coclr", "ucf101", "two-stream", "ucf101", {"linear_top1": 72.1}, "mvcgc", ""),
    ("CoCLR", "coclr", "ucf101", "two-stream", "ucf101", _recalls({1: 55.9, 5: 70.8, 10: 76.9, 20: 82.5}), "mvcgc", ""),
    ("CoCLR", "coclr", "ucf101", "rgb", "hmdb51", {"linear_top1": 39.1}, "mvcgc", ""),
    ("CoCLR", "coclr", "ucf101", "rgb", "hmdb51", _recalls({1: 23.2, 5: 43.2, 10: 53.5, 20: 65.5}), "mvcgc", ""),
    ("CoCLR", "coclr", "ucf101", "two-stream", "hmdb51", {"linear_top1": 40.2}, "mvcgc", ""),
    ("CoCLR", "coclr", "ucf101", "two-stream", "hmdb51", _recalls({1: 26.1, 5: 45.8, 10: 57.9, 20: 69.7}), "mvcgc", ""),
    ("CoCLR", "coclr", "kinetics400", "rgb", "ucf101", {"linear_top1": 74.5}, "issue 54, mvcgc", ""),
    ("CoCLR, released file", "coclr", "kinetics400", "rgb", "ucf101", _recalls({1: 45.6}), "readme", ""),
    ("CoCLR, released file", "coclr", "kinetics400", "flow", "ucf101", _recalls({1: 44.4}), "readme", ""),
    ("CoCLR", "coclr", "kinetics400", "two-stream", "ucf101", {"linear_top1": 77.8}, "mvcgc", ""),
    ("CoCLR", "coclr", "kinetics400", "rgb", "hmdb51", {"linear_top1": 46.1}, "mvcgc", ""),
    ("CoCLR", "coclr", "kinetics400", "two-stream", "hmdb51", {"linear_top1": 52.4}, "mvcgc", ""),
    ("MemDPC", "memdpc", "ucf101", UNSTATED, "ucf101", _recalls({1: 20.2}), "mvcgc", ""),
    ("IIC", "iic", "ucf101", "two-view", "ucf101", _recalls({1: 42.4}), "mvcgc", ""),
    ("Pace", "pace", "ucf101", UNSTATED, "ucf101", _recalls({1: 31.9}), "mvcgc", ""),
    ("PRP", "prp", "ucf101", UNSTATED, "ucf101", _recalls({1: 23.2}), "mvcgc", ""),
    ("VCP", "vcp", "ucf101", UNSTATED, "ucf101", _recalls({1: 18.6}), "mvcgc", ""),
    ("SpeedNet", "speednet", "ucf101", UNSTATED, "ucf101", _recalls({1: 13.0}), "mvcgc", ""),
    ("MVCGC", "mvcgc", "ucf101", "rgb", "ucf101", _recalls({1: 60.8}), "mvcgc", ""),
    ("MVCGC", "mvcgc", "ucf101", "two-view", "ucf101", _recalls({1: 66.1}), "mvcgc", ""),
    ("CPR on CoCLR", "cpr", "ucf101", UNSTATED, "ucf101", _recalls({1: 56.7}), "abstract", ""),
    ("CPR on CoCLR", "cpr", "ucf101", UNSTATED, "hmdb51", _recalls({1: 24.4}), "abstract", ""),
]
TABLE: tuple[Quoted, ...] = tuple(
    Quoted(model, method, pretraining, stream, data, metric, round(percent / 100, 4), source, note)
    for model, method, pretraining, stream, data, numbers, source, note in _TABLE
    for metric, percent in numbers.items()
)


def about(data: str) -> list[Quoted]:
    """The published numbers measured on `data` ("ucf101", "hmdb51"); empty for any other data set."""
    return [row for row in TABLE if row.data == data]


def counterpart(method: str, pretraining: str, stream: str, data: str, metric: str) -> float | None:
    """The first listed number of exactly this method, pre-training, stream, data set and metric, or None."""
    return next(
        (
            row.value
            for row in TABLE
            if (row.method, row.pretraining, row.stream, row.data, row.metric)
            == (method, pretraining, stream, data, metric)
        ),
        None,
    )
