"""What one network, or several streams together, say about the test videos."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from eval import bank as banking
from eval import fusion, linear, retrieval
from eval.bank import FeatureBank
from eval.features import GALLERY
from eval.protocols import Protocol
from eval.splits import TESTED
from pipeline.errors import Refusal


@dataclass(frozen=True)
class Measured:
    """What one network says about the test videos: ranks (Q,) of the first training video of the same class, and
    classes (Q,) that the nearest ones vote for, none where streams are put together in class probabilities alone; and
    probabilities (Q, C) of the classes. What labels do not suffice for is none."""

    ranks: np.ndarray | None
    voted: np.ndarray | None
    probabilities: np.ndarray | None
    wanted: np.ndarray
    have: np.ndarray


def measure(bank: FeatureBank, centre: bool, kept: Path, lacking: Collection[str] = ()) -> Measured:
    """Retrieval and linear probe of one bank, test videos against training videos, but for what is lacking. kept: where
    the probe's probabilities are, or will be."""
    tested, gallery = bank.rows(TESTED), bank.rows(GALLERY)
    wanted, have = bank.labels[tested], bank.labels[gallery]
    ranks = voted = None
    probabilities = None if "probe" in lacking else _probed(bank, kept)
    if "retrieval" not in lacking:
        found = retrieval.search(*sides(bank, centre), wanted, have)
        ranks, voted = found.ranks, retrieval.neighbours_vote(found, have)
    return Measured(ranks, voted, probabilities, wanted, have)


def _probed(bank: FeatureBank, kept: Path) -> np.ndarray:
    """Probabilities (Q, C) of the test videos by the linear probe, 0 for a class that no training video has; kept as a
    bank of its own, and fitted again only where something that they follow from has changed."""
    tested, gallery = bank.rows(TESTED), bank.rows(GALLERY)
    given = bank.features[gallery], bank.labels[gallery], bank.features[tested], bank.labels[tested]
    seed, digest = int(bank.attributes["seed"]), hashlib.sha256()
    for one in given:
        digest.update(f"{one.dtype}{one.shape}".encode())
        digest.update(np.ascontiguousarray(one).data)
    ids = [bank.video_ids[row] for row in tested]
    follows = {"stream": bank.stream, "dtype": "float32", "videos": digest.hexdigest(), "seed": seed, **linear.MADE_BY}
    if kept.is_file():
        with contextlib.suppress(Refusal):
            have = FeatureBank.load(kept)
            if have.attributes == follows and have.video_ids == ids:
                return have.features
    fitted = linear.probe(*given, seed=seed)
    rows = np.zeros((len(tested), int(given[1].max()) + 1), np.float32)
    rows[:, fitted.classes] = fitted.probabilities
    kept.parent.mkdir(parents=True, exist_ok=True)
    banking.write(kept, bank.stream, [rows], rows.shape, ids, given[3], [TESTED] * len(ids), follows)
    return rows


def sides(bank: FeatureBank, centre: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of test and of training videos, whose products are their similarities."""
    tested, gallery = bank.features[bank.rows(TESTED)], bank.features[bank.rows(GALLERY)]
    return retrieval.unit_rows(tested, centre, "query"), retrieval.unit_rows(gallery, centre, "gallery")


def fuse(
    protocol: Protocol,
    names: list[str],
    banks: list[FeatureBank],
    parts: list[Measured],
    kept: Path,
    lacking: Collection[str] = (),
) -> Measured:
    """Several streams as one, as the protocol puts them together; `parts`: what was measured of each alone; `kept` as
    in `measure`."""
    weights = protocol.weights_of(names)
    if protocol.fusion == "features":
        mean = fusion.fuse_features(*(bank.features for bank in banks), weights=weights)
        return measure(dataclasses.replace(banks[0], features=mean), protocol.centre, kept, lacking)
    alone = [part.probabilities for part in parts if part.probabilities is not None]
    probabilities = fusion.fuse_probabilities(*alone, weights=weights) if alone else None
    fused = dataclasses.replace(parts[0], ranks=None, voted=None, probabilities=probabilities)
    if protocol.fusion == "probabilities" or "retrieval" in lacking:
        return fused
    # A product of rows that lie beside each other is the sum of their products.
    both = [sides(bank, protocol.centre) for bank in banks]
    queries = torch.cat([weight * query for weight, (query, _) in zip(weights, both, strict=True)], dim=1)
    gallery = torch.cat([rows for _, rows in both], dim=1)
    found = retrieval.search(queries, gallery, fused.wanted, fused.have)
    # The temperature is of cosines, which their sum is not.
    voted = retrieval.neighbours_vote(found, fused.have, retrieval.TEMPERATURE * sum(weights))
    return dataclasses.replace(fused, ranks=found.ranks, voted=voted)
