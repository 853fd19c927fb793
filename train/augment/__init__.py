"""Which pixels a clip shows: crop window, flip, colour and blur, drawn as pure functions of (seed, epoch, sample
index).

A policy is one module here and one line in POLICIES; `train.reader` executes what it draws. `small` belongs to the
small recipes and `evaluate` to evaluation; the others are those of the papers, with their clean form as the default and
what the papers did otherwise as a setting. `python -m train preview` shows what each makes of a store.

Where `clips.pixels` is "published" they draw the papers' own steps in place of one affine map: see
`train.augment.plans.Published` and docs/methods.md 7.2.
"""

from __future__ import annotations

from train.augment.draws import Draws
from train.augment.plans import Choice, ClipPlan, Pixels, blur_taps, clip_length, colour_maps
from train.augment.policy import Policy
from train.augment.windows import WHOLE, Window, fullest, pixel_window
from train.clips.colour import IMAGENET_MEAN, IMAGENET_STD
from train.settings.registry import Registry

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "POLICIES",
    "WHOLE",
    "Choice",
    "ClipPlan",
    "Draws",
    "Pixels",
    "Policy",
    "Window",
    "blur_taps",
    "clip_length",
    "colour_maps",
    "fullest",
    "pixel_window",
    "policy",
]

POLICIES = Registry(
    "augmentation",
    {
        "small": "train.augment.small:Small",
        "evaluate": "train.augment.evaluate:Evaluate",
        "coclr": "train.augment.coclr:CoCLR",
        "slic": "train.augment.slic:SLIC",
        "goca": "train.augment.goca:GOCA",
        "cocon": "train.augment.cocon:CoCon",
        "classify": "train.augment.classify:Classify",
    },
)


def policy(name: str, **settings: object) -> Policy:
    """The named policy with its settings. Raises UsageError for a name, key or value that cannot be meant."""
    return POLICIES.create(name, **settings)
