"""Film strips of exactly what a network will see: the loader's own batches, mapped back to colours that people see."""

from __future__ import annotations

import base64
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pipeline import storage
from pipeline.errors import UsageError, refuse_unknown
from pipeline.store import VideoStore
from pipeline.views.colour import colour_code, full_colour, key
from train import checkpoints, stages
from train.augment import ClipPlan, Policy, pixel_window
from train.augment.colour import compose, denormalisation, flow_output, is_image
from train.hardware import Hardware
from train.loader import ClipLoader
from train.reader.affine import normalise
from train.recipe import Recipe, StageSettings
from train.show import pages
from train.videos import training_videos

FRAMES = 16  # of a strip at most, evenly over the clip
GAP = 2  # transparent pixels behind every frame
CHANNELS = {2: ("u", "v"), 3: ("R", "G", "B")}


@dataclass(frozen=True)
class Strip:
    """One stream of a clip: `frames` pictures of `width` x `height` side by side in a PNG, and what was drawn for them."""

    stream: str
    uri: str
    frames: int
    width: int
    height: int
    facts: list[str]
    colours: list[str]


@dataclass(frozen=True)
class Clip:
    """Which frames of its video a clip shows, in words, and those of its streams that are read."""

    words: str
    strips: list[Strip]


@dataclass(frozen=True)
class Shown:
    """A video of the batch."""

    video_id: str
    label: str
    clips: list[Clip]


def write_preview(
    recipe: Recipe, stage: str, store: VideoStore, epoch: int, batch: int, videos: int, out: Path
) -> tuple[str, int]:
    """Write a page of film strips of the first `videos` of a batch. Returns the stage's name and how many were shown.

    The batch is made as training makes it, over all ranks: the same videos, frames, pixels and normalisation. An empty
    `stage` is the recipe's first one.

    Raises:
        UsageError: a stage, epoch or batch that the recipe does not have on this store.
        Refusal: what training would refuse, or a page that cannot be written.
    """
    chosen = _find_stage(recipe, stage)
    loader = stages.make_loader(recipe, chosen, store, training_videos(recipe, store), Hardware())
    try:
        shown = shown_videos(loader, epoch, batch, videos)
    finally:
        loader.close()
    content = {
        "recipe": recipe,
        "stage": chosen,
        "store": store.root.name,
        "epoch": epoch,
        "batch": batch,
        "batches": len(loader),
        "shown": shown,
        "policy": loader.policy,
        "settings": _settings(loader.policy),
        "has_images": "rgb" in loader.reads or is_image(loader.policy.flow),
        "has_motion": "flow" in loader.reads and not is_image(loader.policy.flow),
        "key": _png(key(96)),
        "gap": GAP,
    }
    with checkpoints.writing("the preview", out):
        out.parent.mkdir(parents=True, exist_ok=True)
        storage.write_atomically(out, _render(content).encode())
    return chosen.name, len(shown)


def shown_videos(loader: ClipLoader, epoch: int, batch: int, videos: int) -> list[Shown]:
    """The first `videos` of a batch of an epoch. Raises UsageError for an epoch or batch that there is not."""
    if epoch < 0 or not 0 <= batch < len(loader):
        raise UsageError(
            f"there is no batch {batch} of epoch {epoch}",
            where=str(loader.store.root),
            remedy=f"an epoch from 0, and a batch from 0 to {len(loader) - 1}",
        )
    if videos < 1:
        raise UsageError(f"{videos} videos cannot be shown", remedy="--videos is at least 1")
    number = epoch * len(loader) + batch
    made = loader.load(number)
    inputs = {
        # A reader on a GPU leaves clips there; the colours are on the CPU until a trainer moves a batch.
        stream: {number: normalise(clips.cpu(), made.affine[stream][number]).numpy() for number, clips in read.items()}
        for stream, read in made.clips.items()
    }
    shown = []
    _, samples = loader.order.share(number)
    for row, (sample, index) in enumerate(zip(samples.tolist()[:videos], made.index.tolist(), strict=False)):
        plans = loader.plans(sample, epoch)
        pictures = {
            stream: dict(zip(read, displayed(stream, [clips[row] for clips in read.values()], loader), strict=True))
            for stream, read in inputs.items()
        }
        clips = [
            Clip(
                _frames_in_words(plan, number, plans),
                [_strip(stream, plan, *read[number], loader) for stream, read in pictures.items() if number in read],
            )
            for number, plan in enumerate(plans)
        ]
        video = loader.videos[index]
        shown.append(Shown(video, loader.store.info(video).label, clips))
    return shown


def displayed(stream: str, clips: list[np.ndarray], loader: ClipLoader) -> list[tuple[np.ndarray, str]]:
    """The network's inputs of one video, each (D, T, H, W), as RGB uint8 (T, H, W, 3), and what that could not show.

    RGB, and flow that is given as an image: the normalisation is undone, `(mean + std * input) * 255`, rounded and cut to
    0..255. Other flow: back to pixels of motion, as colours on one scale for all the clips. The augmentation stays.
    """
    undo = _undone(stream, loader)
    values = [np.tensordot(undo[:, :-1], clip, axes=1) + undo[:, -1, None, None, None] for clip in clips]
    if len(undo) == 3:
        outside = [100 * np.mean((np.rint(clip) < 0) | (np.rint(clip) > 255)) for clip in values]
        pictures = [np.rint(clip).clip(0, 255).astype(np.uint8).transpose(1, 2, 3, 0) for clip in values]
        return [(*made,) for made in zip(pictures, [f"{share:.2g} % of values cut" for share in outside], strict=True)]
    flows = [clip.swapaxes(0, 1) for clip in values]
    longest = full_colour(np.concatenate(flows))
    return [(colour_code(flow, longest), f"full colour at {longest:.1f} px") for flow in flows]


def _strip(stream: str, plan: ClipPlan, pictures: np.ndarray, note: str, loader: ClipLoader) -> Strip:
    """All frames of a clip, or FRAMES of them."""
    chosen = np.unique(np.linspace(0, len(pictures) - 1, min(FRAMES, len(pictures))).round().astype(int))
    height, width = pictures.shape[1:3]
    opaque = np.concatenate([pictures[chosen], np.full((len(chosen), height, width, 1), 255, np.uint8)], axis=-1)
    uri = _png(np.hstack(list(np.pad(opaque, ((0, 0), (0, 0), (0, GAP), (0, 0))))))
    facts = [*_facts(stream, plan, loader), note]
    return Strip(stream, uri, len(chosen), width, height, facts, _colours(stream, plan, loader))


def _facts(stream: str, plan: ClipPlan, loader: ClipLoader) -> list[str]:
    """Window, mirror and blur, in words."""
    pixels = plan.pixels[stream]
    shape = loader.store.info(plan.video_id).shapes[stream]
    frame_height, frame_width = shape[1:3] if stream == "rgb" else shape[2:]
    top, left, height, width = pixel_window(pixels.window, frame_height, frame_width)
    share = height * width / (frame_height * frame_width)
    return [
        f"window {width}x{height} of {frame_width}x{frame_height} ({share:.0%}), {left} from the left, {top} from the top",
        "mirrored" if pixels.flip else "not mirrored",
        f"blur {pixels.blur:.2f} px" if pixels.blur else "no blur",
    ]


def _colours(stream: str, plan: ClipPlan, loader: ClipLoader) -> list[str]:
    """What colour does to what is stored, as formulas in 0..255, or in pixels for flow that is no image."""
    policy, affine = loader.policy, plan.pixels[stream].colour.astype(float)
    stored = np.eye(3, 4) if stream == "rgb" else np.eye(2, 3)
    if stream == "flow" and not is_image(policy.flow):
        bound = loader.store.settings["flow"]["bound"]
        stored = np.column_stack([255 / 2 / bound * np.eye(2), np.full(2, 127.5)])
    first = compose(compose(_undone(stream, loader), affine[0]), stored)
    inputs, outputs = CHANNELS[first.shape[1] - 1], CHANNELS[len(first)]
    if first.shape == stored.shape and np.allclose(first, np.eye(*first.shape), atol=0.005):
        lines = ["as stored"]
    elif len(first) == 3 and np.allclose(first, first[0], atol=0.005):
        lines = [f"{' = '.join(outputs)} = {_sum(first[0], inputs)}"]
    else:
        lines = [f"{name} = {_sum(row, inputs)}" for name, row in zip(outputs, first, strict=True)]
    return lines if len(affine) == 1 else ["of each frame its own, of the first " + lines[0], *lines[1:]]


def _sum(row: np.ndarray, names: tuple[str, ...]) -> str:
    """What two decimals show of a row of an affine map, such as 0.93 R + 0.05 G - 12.00."""
    terms = [(value, f"{abs(value):.2f}", name) for value, name in zip(row, (*names, ""), strict=True)]
    seen = [
        (" - " if value < 0 else " + ") + (name if number == "1.00" and name else f"{number} {name}".strip())
        for value, number, name in terms
        if number != "0.00"
    ]
    return "".join(seen).removeprefix(" + ").replace(" - ", "-", 1 if seen[:1] and seen[0][1] == "-" else 0) or "0"


def _frames_in_words(plan: ClipPlan, number: int, plans: list[ClipPlan]) -> str:
    frames = plan.frames
    words = f"clip {number + 1}: frames {frames[0]} to {frames[-1]}"
    step, padded = frames[-1] - frames[-2] if len(frames) > 1 else 1, int(np.sum(frames == frames[0])) - 1
    words += f", {step} apart" if step > 1 else ""
    words += f", frame {frames[0]} repeated {padded} times in front because the video is short" if padded else ""
    same = [other for other in range(number) if np.array_equal(plans[other].frames, frames)]
    return words + (f", the same as clip {same[0] + 1}" if same else "")


def _undone(stream: str, loader: ClipLoader) -> np.ndarray:
    """From the network's input to RGB in 0..255, or to pixels of motion."""
    policy = loader.policy
    if stream == "rgb" or is_image(policy.flow):
        return denormalisation(policy.statistics)
    return flow_output(policy.flow, loader.store.settings["flow"]["bound"])


def _find_stage(recipe: Recipe, name: str) -> StageSettings:
    by_name = {stage.name: stage for stage in recipe.stages}
    if name and name not in by_name:
        refuse_unknown("stage", name, by_name)
    return by_name[name] if name else recipe.stages[0]


def _settings(policy: Policy) -> dict[str, Any]:
    return {field.name: getattr(policy, field.name) for field in dataclasses.fields(policy)}  # type: ignore[arg-type]


def _png(picture: np.ndarray) -> str:
    """Of RGB, or RGB with opacity."""
    _, png = cv2.imencode(".png", picture[..., [2, 1, 0, 3][: picture.shape[-1]]])
    return "data:image/png;base64," + base64.b64encode(png.tobytes()).decode()


def _render(content: dict[str, Any]) -> str:
    return pages.environment("train").get_template("preview.html").render(content)
