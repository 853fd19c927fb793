"""What the progress line shows of a method."""

from __future__ import annotations

from dataclasses import dataclass

from train.clustering.watching import AGREEMENT


@dataclass(frozen=True)
class Meter:
    """A fraction that the progress line shows as a percentage.

    Args:
        label: what it is called there.
        meaning: what it is the share of, and what guessing would give; completes "<label> is ...".
        places: where a rank among the own key and those of a queue is counted: the first so many. Until the queue is
            filled, guessing gives more.
    """

    label: str
    meaning: str
    places: int = 0

    def guessing(self, queued: int) -> float:
        """The share that guessing gives with so many keys in the queue; the other ones are random, and told apart."""
        return min(1.0, self.places / (1 + queued))


def own_key(candidates: int) -> dict[str, Meter]:
    """Of `contrast_top1` and `contrast_top5`, where a query's own key is one of so many candidates."""
    meaning = (
        "the share of clips that rank the other clip of their own video {place} among {candidates} candidates;"
        " guessing gives {guessing:.3g} %"
    )
    first = meaning.format(place="first", candidates=candidates, guessing=100 / candidates)
    fifth = meaning.format(place="in the first five", candidates=candidates, guessing=min(100, 500 / candidates))
    return {
        "contrast_top1": Meter(f"own clip first of {candidates}", first, places=1),
        "contrast_top5": Meter("in the first 5", fifth, places=5),
    }


def positive(kind: str) -> dict[str, Meter]:
    """Of `positive_top1`. kind: which keys are positives beside the own one."""
    meaning = (
        f"the share of clips that rank a positive first: the other clip of their own video, or {kind} in the queue"
    )
    return {"positive_top1": Meter("a positive first", meaning)}


def agreement(one: str, other: str, prototypes: int) -> dict[str, Meter]:
    """Of `stream_agreement`, where clips of two streams are assigned to so many prototypes."""
    meaning = f"the share of clips whose largest prototype is the same in {one} and {other}"
    return {AGREEMENT: Meter("streams agree", f"{meaning}; guessing gives {100 / prototypes:.3g} %")}
