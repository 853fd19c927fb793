"""costream from Python: open a store, take clips from it, load a trained network, compute features.

    import costream

    store = costream.open("stores/mine")
    frames, flow = store.frames("Walk/w_01"), store.flow("Walk/w_01")
    clips = costream.clips(store, streams=("rgb", "flow"), length=16, size=112)  # a torch Dataset
    network = costream.load("runs/mine", stream="rgb")                           # a torch Module
    found = costream.features(store, network)
    found.nearest("Walk/w_01")

Nothing heavy is imported before it is used: torch comes with `clips`, `load` and `features`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from costream.embedded import Features, features
    from costream.shown import Clips, clips
    from costream.trained import Network, load
    from pipeline.errors import Refusal, UsageError
    from pipeline.store import VideoStore
    from pipeline.store import open_store as open

__all__ = [
    "Clips",
    "Features",
    "Network",
    "Refusal",
    "UsageError",
    "VideoStore",
    "clips",
    "features",
    "load",
    "open",
]

PLACES = {
    "Clips": "costream.shown:Clips",
    "Features": "costream.embedded:Features",
    "Network": "costream.trained:Network",
    "Refusal": "pipeline.errors:Refusal",
    "UsageError": "pipeline.errors:UsageError",
    "VideoStore": "pipeline.store:VideoStore",
    "clips": "costream.shown:clips",
    "features": "costream.embedded:features",
    "load": "costream.trained:load",
    "open": "pipeline.store:open_store",
}


def __getattr__(name: str) -> Any:
    if name not in PLACES:
        raise AttributeError(f"costream has no {name!r}; it has {', '.join(__all__)}")
    module, _, attribute = PLACES[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return __all__
