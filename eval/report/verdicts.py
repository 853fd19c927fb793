"""Whether training helped: the last stage of each stream against its untrained network, by measure, with the error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from eval import streams
from eval.report import sheets
from eval.report.sheets import WORDS, Sheet
from eval.results import Record
from eval.table import Cell

MEASURES = ("R@1", "linear_top1")
SURE = 2.0  # standard errors


@dataclass(frozen=True)
class Verdict:
    """A measure of a stream, fractions. error: one standard error of the gain, as if both networks had been tested on
    videos of their own; they are the same, so that it is rather less. direction: 1 gained, -1 lost, 0 not to be told.
    """

    stream: str
    stage: str
    measure: str
    after: float
    before: float
    error: float
    direction: int

    @property
    def gain(self) -> float:
        return self.after - self.before


def verdicts(records: Sequence[Record], order: Sequence[str], tested: int) -> list[Verdict]:
    """Of the records of one protocol. order: of the stages. tested: how many test videos there are."""
    made = []
    for stream in streams.in_order(record.stream for record in records):
        for measure in MEASURES:
            found = [record for record in records if (record.stream, record.metric) == (stream, measure)]
            both = {
                network: {record.stage: record.value for record in found if record.network == network}
                for network in ("trained", "untrained")
            }
            stages = [stage for stage in both["trained"] if stage in both["untrained"]]
            if stages:
                last = max(stages, key=lambda stage: [order.index(name) for name in stage.split("+")])
                after, before = both["trained"][last], both["untrained"][last]
                error = math.hypot(standard_error(after, tested), standard_error(before, tested))
                direction = 0 if abs(after - before) <= SURE * error else int(math.copysign(1, after - before))
                made.append(Verdict(stream, last, measure, after, before, error, direction))
    return made


def standard_error(share: float, videos: int) -> float:
    """Of a share of so many videos."""
    return math.sqrt(share * (1 - share) / videos)


def headline(made: Sequence[Verdict], order: Sequence[str]) -> Verdict:
    """R@1 of the stage that was trained last; where it trained several streams, of the better one."""
    single = [verdict for verdict in made if verdict.measure == "R@1" and verdict.stage in order]
    return max(single, key=lambda verdict: (order.index(verdict.stage), verdict.after))


def disagreements(made: Sequence[Verdict]) -> list[str]:
    """Streams on which the measures say different things, each in a sentence."""
    said = []
    for stream in dict.fromkeys(verdict.stream for verdict in made):
        own = {verdict.measure: verdict for verdict in made if verdict.stream == stream}
        if len({verdict.direction for verdict in own.values()}) > 1:
            parts = (f"{WORDS.get(name, name)} {IN_WORDS[verdict.direction]}" for name, verdict in own.items())
            said.append(f"By {streams.in_words(stream)} the measures say different things: {', '.join(parts)}.")
    return said


def sentences(made: Sequence[Verdict]) -> list[str]:
    """One of each, for a terminal."""
    return [
        f"{verdict.stream}, {WORDS.get(verdict.measure, verdict.measure)}: {IN_WORDS[verdict.direction]},"
        f" {100 * verdict.gain:+.1f} ± {100 * verdict.error:.1f} points ({100 * verdict.before:.1f} % untrained,"
        f" {100 * verdict.after:.1f} % trained)"
        for verdict in made
    ]


IN_WORDS = {1: "gained", -1: "lost", 0: "shows no sure difference"}


def sheet(made: Sequence[Verdict]) -> Sheet:
    rows: list[list[Cell]] = [
        [
            verdict.stream,
            verdict.stage,
            WORDS.get(verdict.measure, verdict.measure),
            100 * verdict.before,
            100 * verdict.after,
            f"{100 * verdict.gain:+.1f} ± {100 * verdict.error:.1f}",
            IN_WORDS[verdict.direction],
        ]
        for verdict in made
    ]
    head = ("stream", "last stage", "measure", "before", "after", "gain, points", "verdict")
    return sheets.plain("verdicts", "What training changed", head, rows)
