"""How the representation does while it is trained: nearest neighbours of videos that are kept out of training."""

from __future__ import annotations

import numpy as np

from train.callbacks.metrics import Metrics
from train.callbacks.watching import WatchedClips, Watching
from train.embedding import rows_of
from train.methods.meters import Meter
from train.networks.network import Network
from train.reader import Executor
from train.recipe import NeighbourSettings
from train.training_set import TrainingSet

DOMAIN = 0x6E6E  # keeps these random numbers apart from those of other users of the same seed


class Neighbours(Watching):
    """`knn_top1`, or without labels `same_video_top1`; see `train.recipe.NeighbourSettings`.

    layer: of the networks, by whose rows videos are compared. Others as `Watching` has them.
    """

    def __init__(
        self,
        settings: NeighbourSettings,
        training_set: TrainingSet,
        clips: WatchedClips,
        seed: int,
        layer: str,
        metrics: Metrics,
    ) -> None:
        super().__init__(settings.every, training_set.held_out, clips, metrics)
        self.layer = layer
        drawn = np.random.default_rng((DOMAIN, seed, 1)).permutation(len(training_set))[: settings.gallery]
        self.gallery = training_set.videos.take(np.sort(drawn))
        self.labelled = all((np.asarray(part.labels) >= 0).all() for part in (self.held_out, self.gallery))
        name, meter = self._meter()
        alone = len(clips.streams) == 1
        self.meters = {name if alone else f"{name}_{stream}": meter for stream in clips.streams}
        self.names = tuple(self.meters)

    def _meter(self) -> tuple[str, Meter]:
        queries = len(self.held_out)
        if not self.labelled:
            meaning = (
                f"the share of {queries} videos held out of training whose last clip is most like their own first one;"
                f" guessing gives {100 / queries:.3g} %"
            )
            return "same_video_top1", Meter("finds itself", meaning)
        classes = np.asarray(self.gallery.labels)
        chances = [float((classes == label).mean()) for label in np.asarray(self.held_out.labels)]
        meaning = (
            f"the share of {queries} videos held out of training whose nearest of {len(classes)} training videos is of"
            f" their class; guessing gives {100 * sum(chances) / queries:.3g} %"
        )
        return "knn_top1", Meter("kNN", meaning)

    def look(self, network: Network, stream: str, reader: Executor) -> list[float]:
        """The fraction of the held-out videos that were right."""
        if self.labelled:
            queries, gallery = (self.clips.of(part, stream, 0.5) for part in (self.held_out, self.gallery))
            wanted, found = np.asarray(self.held_out.labels), np.asarray(self.gallery.labels)
        else:
            queries, gallery = (self.clips.of(self.held_out, stream, place) for place in (1.0, 0.0))
            wanted = found = np.arange(len(self.held_out))
        asked, known = (rows_of(network, clips, reader, self.layer) for clips in (queries, gallery))
        nearest = (asked @ known.T).argmax(dim=1).numpy(force=True)
        return [float((found[nearest] == wanted).mean())]
