"""Ways in which a file of ours can say what it cannot: JSON with each value replaced, and bytes that are no JSON."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

VALUES = (None, True, -1, 0, 2**70, 1e308, -0.5, float("nan"), "", "x", "../../x", "\ud800", [], [-1], {}, {"x": [[]]})
DEEP = b"[" * 100_000
RAW: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda whole: b"",
    "one byte": lambda whole: b"{",
    "cut": lambda whole: whole[: len(whole) // 2],
    "no UTF-8": lambda whole: whole.replace(b"e", b"\xff", 1),
    "zeros": lambda whole: bytes(len(whole)),
    "as a plain folder": lambda whole: b"x" * 76,
    "nested": lambda whole: DEEP,
    "nested less": lambda whole: b'{"attributes": ' + b"[" * 900 + b"]" * 900 + b"}",
    "null": lambda whole: b"null\n",
    "a number": lambda whole: b"7\n",
    "a list": lambda whole: b"[]\n",
    "a key twice": lambda whole: whole.replace(b"{", b'{"digest": 1, "digest": 2,', 1),
    "no number": lambda whole: b'{"digest": NaN, "attributes": Infinity}',
    "far too long a number": lambda whole: b'{"digest": 1' + b"0" * 5000 + b"}",
}
# One of each sort: short, of other bytes, too deep, and what a parser would take for another thing.
SOME = ("cut", "zeros", "nested", "a key twice")


def places(content: Any, above: tuple = ()) -> Iterator[tuple]:
    """Of every value in JSON: the keys that lead to it."""
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in items:
        yield (*above, key)
        yield from places(value, (*above, key))


def mutated(content: dict[str, Any], share: float, seed: int = 0) -> Iterator[tuple[str, dict[str, Any]]]:
    """(What was done, the content with one value gone or replaced), of all ways a share that the seed draws."""
    drawn = random.Random(seed)
    for place in list(places(content)):
        for value in ("gone", *VALUES):
            if drawn.random() >= share:
                continue
            changed = copy.deepcopy(content)
            inside = changed
            for key in place[:-1]:
                inside = inside[key]
            if value == "gone":
                del inside[place[-1]]
            else:
                inside[place[-1]] = value
            yield f"{'.'.join(map(str, place))}: {value!r}", changed


def written(content: Any) -> bytes:
    """As JSON, even where that has no such value."""
    return json.dumps(content, indent=2, sort_keys=True).encode()
