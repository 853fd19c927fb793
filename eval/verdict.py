"""What an evaluation comes to, in a sentence a stream and measure: trained against untrained, with its error."""

from __future__ import annotations

import math
from collections.abc import Sequence

from eval import streams
from eval.results import Record

MEASURES = {"R@1": "R@1", "linear_top1": "the linear probe"}
PROTOCOL = "clean"
CLEAR = 2.0  # standard errors


def verdicts(records: Sequence[Record], tested: int) -> list[str]:
    """Of each stream that has both networks, by the protocol `clean`: the last stage's gain over the untrained network
    in points, with its standard error as of two independent samples, and whether it is clear of it.

    tested: test videos with a label.
    """
    found = []
    for stream in streams.in_order(record.stream for record in records):
        for metric, name in MEASURES.items():
            chosen = [r for r in records if (r.stream, r.metric, r.protocol) == (stream, metric, PROTOCOL)]
            trained = [record for record in chosen if record.network == "trained"]
            if not trained or not tested:
                continue
            last = trained[-1]
            before = [record for record in chosen if record.network == "untrained" and record.stage == last.stage]
            if before:
                found.append(f"{streams.in_words(stream)}: {_compared(last.value, before[-1].value, name, tested)}")
    return found


def _compared(trained: float, untrained: float, name: str, tested: int) -> str:
    error = math.sqrt((trained * (1 - trained) + untrained * (1 - untrained)) / tested)
    gain = trained - untrained
    clear = abs(gain) > CLEAR * error
    what = "gains" if clear and gain > 0 else "loses" if clear else "no clear difference,"
    against = f"({100 * trained:.1f} % against {100 * untrained:.1f} % untrained)"
    return f"{what} {100 * gain:+.1f} ± {100 * error:.1f} points of {name} {against}"
