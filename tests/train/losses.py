"""The losses of 200 steps of every method, recomputed; `losses.json` holds what they were.

A step's loss depends on all that happened before it: what a batch is put through, the order of momentum, keys and
queue, coins, the optimiser. After a change that is meant to change training, and after no other, write the file anew:

    python -m tests.train.losses

which also tells how far each method's losses have moved. The commit says why they have.

Networks, clips and learning rates are so small that rounding does not grow: with initial weights that differ by a part
in a million no loss moves by more than 4e-6 of itself (GOCA's 1e-5), and no choice of CoCLR's changes; at a learning
rate of 1e-4 some moved by 3e-2. TOLERANCE lies far above that, for other CPUs, and below what a momentum update after
the key's pass makes (1.5e-3).
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import train  # noqa: F401  (before torch and lightning)

# isort: split
import numpy as np
import torch

from tests.train.steps import CHANNELS, Views, fit
from train import methods
from train.methods.method import Method

FILE = Path(__file__).with_suffix(".json")
STEPS = 200
BATCH, VIDEOS = 4, 24
TOLERANCE = 1e-4  # relative
SHARED: dict[str, Any] = {
    "backbone": "small",
    "backbone_settings": {"width": 0.25},
    "dim": 8,
    "queue": 16,
    "momentum": 0.5,
    "temperature": 0.2,
    "optimiser": {"name": "sgd", "lr": 3e-5},
}
VICC = {"stream": "rgb", "prototypes": 6}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "infonce": ("infonce", {"stream": "rgb"}),
    "ubernce": ("ubernce", {"stream": "rgb"}),
    "cmc": ("cmc", {"streams": ["rgb", "flow"]}),
    "goca": ("goca", {"streams": ["rgb", "flow"], "clips": 2, "pool": "global", "head": "coclr", "prototypes": 16}),
    "coclr": ("coclr", {"stream": "rgb", "sampler": {"stream": "flow"}, "top_k": 2, "self_drop": 0.5}),
    "vicc": ("vicc", VICC),
    "vicc across": ("vicc", VICC | {"other": {"stream": "flow"}, "gradient_views": "first"}),
}


def method(kind: str) -> Method:
    torch.manual_seed(0)
    name, settings = KINDS[kind]
    known = methods.settings_of(name).model_fields
    return methods.create(name, {key: value for key, value in SHARED.items() if key in known} | settings, CHANNELS)


def losses(made: Method) -> list[float]:
    """Of every step, one thread, float32, on a CPU."""
    with one_thread(), tempfile.TemporaryDirectory() as folder:
        recorder = fit(made, batches(), Path(folder))
    return [values["loss"] for values in recorder.values]


def batches() -> list[Views]:
    """Noisy views of 24 videos of 12 recordings and 4 classes; drawn by NumPy: its numbers are the same everywhere."""
    rng = np.random.default_rng(0)
    made = []
    videos = rng.standard_normal((VIDEOS, 5, 2, 12, 12))
    for _ in range(STEPS):
        drawn = rng.permutation(VIDEOS)[:BATCH]
        noise = rng.standard_normal((2, BATCH, 5, 2, 12, 12))
        views = torch.from_numpy((videos[drawn] + 0.5 * noise).astype(np.float32))
        clips = {"rgb": list(views[:, :, :3]), "flow": list(views[:, :, 3:])}
        made.append(Views(clips, torch.from_numpy(drawn % 4), torch.from_numpy(drawn // 2)))
    return made


@contextmanager
def one_thread() -> Iterator[None]:
    """Sums depend on how many share them."""
    usual = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(usual)


def main() -> None:
    kept = json.loads(FILE.read_text()) if FILE.exists() else {}
    found = {kind: [float(f"{loss:.7g}") for loss in losses(method(kind))] for kind in KINDS}
    for kind, now in found.items():
        moved = max(abs(one / other - 1) for one, other in zip(now, kept[kind], strict=True)) if kind in kept else "new"
        print(f"{kind}: {moved} (largest relative change)")
    lines = [f"{json.dumps(kind)}: {json.dumps(values)}" for kind, values in found.items()]
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
