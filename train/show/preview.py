"""Film strips of exactly what a network will see: the loader's own batches, mapped back to colours that people see."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pipeline import storage
from pipeline.errors import UsageError, refuse_unknown
from pipeline.store import VideoStore
from pipeline.views import VIEWS
from train import stage_data
from train.augment import ClipPlan, Policy, pixel_window
from train.batches.loader import ClipLoader
from train.clips.colour import compose, denormalisation
from train.clips.streams import Stream
from train.hardware import Hardware
from train.recipe import Recipe, StageSettings
from train.show import effects, pages
from train.stage_data import training_set_of

FRAMES = 16  # of a strip at most, evenly over the clip
GAP = 2  # transparent pixels behind every frame
KEY = 96  # pixels of what explains colours
COLOURS = ("R", "G", "B")


@dataclass(frozen=True)
class Strip:
    """One stream of a clip: `frames` pictures of `width` x `height` in a row as a PNG, which of the video they are and
    when, and what was drawn for them."""

    stream: str
    uri: str
    frames: int
    width: int
    height: int
    places: list[str]
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


@dataclass(frozen=True)
class StagePage:
    """What one stage sees of a batch. like: an earlier stage that sees the very same, which is shown there alone."""

    stage: StageSettings
    batches: int
    shown: list[Shown]
    views: list[str]
    has_images: bool
    settings: dict[str, Any]
    like: str = ""


def write_preview(
    recipe: Recipe, stage: str, store: VideoStore, epoch: int, batch: int, videos: int, out: Path
) -> tuple[str, int]:
    """Write a page of film strips of the first `videos` of a batch. Returns the stages' names and how many were shown.

    The batch is made as training makes it, over all ranks: the same videos, frames, pixels and normalisation. An empty
    `stage` is every one of the recipe.

    Raises:
        UsageError: a stage, epoch or batch that the recipe does not have on this store.
        Refusal: what training would refuse, or a page that cannot be written.
    """
    pages_of: list[StagePage] = []
    for chosen in _find_stages(recipe, stage):
        made = _stage_page(recipe, chosen, store, epoch, batch, videos)
        like = [earlier.stage.name for earlier in pages_of if earlier.shown == made.shown]
        pages_of.append(dataclasses.replace(made, like=like[0], shown=[]) if like else made)
    seen = dict.fromkeys(view for page in pages_of for view in page.views)
    keys = {VIEWS[view].title: VIEWS[view].key(KEY) for view in seen}
    content = {
        "recipe": recipe,
        "stages": pages_of,
        "store": store.root.name,
        "epoch": epoch,
        "batch": batch,
        "has_images": any(page.has_images for page in pages_of),
        "measured": [VIEWS[view].title for view in seen],
        "keys": {title: _png(key) for title, key in keys.items() if key is not None},
        "key_size": KEY,
        "gap": GAP,
    }
    with storage.writing("the preview", out):
        out.parent.mkdir(parents=True, exist_ok=True)
        storage.write_atomically(out, _render(content).encode())
    return ", ".join(page.stage.name for page in pages_of), len(pages_of[0].shown)


def _stage_page(
    recipe: Recipe, stage: StageSettings, store: VideoStore, epoch: int, batch: int, videos: int
) -> StagePage:
    loader = stage_data.make_loader(recipe, stage, store, training_set_of(recipe, stage, store), Hardware())
    try:
        shown = shown_videos(loader, store, epoch, batch, videos)
    finally:
        loader.close()
    reading = loader.planner.reading
    streams = reading.streams.values()
    views = list(dict.fromkeys(stream.view for stream in streams if not stream.image))
    has_images = any(stream.image for stream in streams)
    return StagePage(stage, len(loader), shown, views, has_images, _settings(reading.policy))


def shown_videos(loader: ClipLoader, store: VideoStore, epoch: int, batch: int, videos: int) -> list[Shown]:
    """The first `videos` of a batch of an epoch. Raises UsageError for a batch that there is not."""
    if batch >= len(loader):
        raise UsageError(
            f"there is no batch {batch} of epoch {epoch}",
            where=str(store.root),
            remedy=f"a batch from 0 to {len(loader) - 1}",
        )
    number = epoch * len(loader) + batch
    # A reader on a GPU leaves clips there; the colours are on the CPU until a trainer moves a batch.
    made = loader.load(number).mapped(lambda tensor: tensor.cpu())
    inputs = {stream: {clip: made.view(stream, clip).numpy() for clip in parts} for stream, parts in made.parts.items()}
    shown = []
    _, samples = loader.order.share(number)
    for row, (sample, index) in enumerate(zip(samples.tolist()[:videos], made.index.tolist(), strict=False)):
        plans = loader.planner.plans(sample, epoch)
        pictures = {
            stream: dict(
                zip(
                    read,
                    displayed([plans[clip][stream] for clip in read], [seen[row] for seen in read.values()], store),
                    strict=True,
                )
            )
            for stream, read in inputs.items()
        }
        video = loader.planner.training_set.videos.id(index)
        clips = [
            Clip(
                _frames_in_words(video, clip, [next(iter(streams.values())) for streams in plans]),
                [_strip(planned[stream], *read[clip], store) for stream, read in pictures.items() if clip in read],
            )
            for clip, planned in enumerate(plans)
        ]
        shown.append(Shown(video, store.info(video).label, clips))
    return shown


def displayed(plans: list[ClipPlan], clips: list[np.ndarray], store: VideoStore) -> list[tuple[np.ndarray, str]]:
    """One stream's inputs of one video, each (D, T, h, w), as RGB uint8 (T, h, w, 3), and what that could not show.

    Images: the normalisation is undone, `(mean + std * input) * 255`, rounded and cut to 0..255. Others: back to what
    the view measures, in the view's own colours, on one scale for all the clips. The augmentation stays.
    """
    measured: dict[int, np.ndarray] = {}
    for place, (plan, clip) in enumerate(zip(plans, clips, strict=True)):
        stream = plan.stream
        if not stream.image:
            view = VIEWS[stream.view]
            measured[place] = view.measured_input(clip, stream.input, store.settings[stream.view])
    shown = []
    for place, (plan, clip) in enumerate(zip(plans, clips, strict=True)):
        view = VIEWS[plan.stream.view]
        if place in measured:
            alike = [found for other, found in measured.items() if plans[other].stream.view == plan.stream.view]
            scale = view.scale(np.concatenate(alike))
            shown.append((view.coloured(measured[place], scale), view.scale_in_words(scale)))
            continue
        undo = denormalisation(plan.stream.statistics)
        levels = np.rint(np.tensordot(undo[:, :-1], clip, axes=1) + undo[:, -1, None, None, None])
        share = 100 * np.mean((levels < 0) | (levels > 255))
        shown.append((levels.clip(0, 255).astype(np.uint8).transpose(1, 2, 3, 0), f"{share:.2g} % of values cut"))
    return shown


def _strip(plan: ClipPlan, pictures: np.ndarray, note: str, store: VideoStore) -> Strip:
    """All frames of a clip, or FRAMES of them."""
    chosen = np.unique(np.linspace(0, len(pictures) - 1, min(FRAMES, len(pictures))).round().astype(int))
    height, width = pictures.shape[1:3]
    opaque = np.concatenate([pictures[chosen], np.full((len(chosen), height, width, 1), 255, np.uint8)], axis=-1)
    uri = _png(np.hstack(list(np.pad(opaque, ((0, 0), (0, 0), (0, GAP), (0, 0))))))
    facts = [fact for fact in (*_facts(plan, store), note) if fact]
    fps, numbers = store.info(plan.video_id).fps, plan.frames[chosen]
    places = [f"{number} · {number / fps:.2f} s" if fps else str(number) for number in numbers.tolist()]
    return Strip(plan.stream.name, uri, len(chosen), width, height, places, facts, _colours(plan, store))


def _facts(plan: ClipPlan, store: VideoStore) -> list[str]:
    """Another view in the stream's place, window, mirror and blur, in words."""
    pixels, view = plan.pixels, plan.stream.view
    others = pixels.choice.windows if pixels.choice else ()
    frame_height, frame_width = VIEWS[view].frame_size(store.shape(plan.video_id, view))
    top, left, height, width = pixel_window(pixels.window, frame_height, frame_width)
    share = height * width / (frame_height * frame_width)
    return [
        f"showing {view}" if view != plan.stream.name else "",
        (
            f"window {width}x{height} of {frame_width}x{frame_height} ({share:.0%}), "
            + (f"the fullest of {len(others)}" if others else f"{left} from the left, {top} from the top")
        ),
        "mirrored" if pixels.flip else "not mirrored",
        f"blur {pixels.blur:.2f} px" if pixels.blur else "no blur",
    ]


def _colours(plan: ClipPlan, store: VideoStore) -> list[str]:
    """What colour does to what is stored, as formulas in 0..255, or in the unit of a view that is no image."""
    stream, settings = plan.stream, store.settings[plan.stream.view]
    affine, names = plan.pixels.colour.astype(float), VIEWS[stream.view].plane_names
    if stream.image:
        undo, stored = denormalisation(stream.statistics), np.eye(len(names), len(names) + 1)
        outputs: tuple[str, ...] = COLOURS
    else:
        undo, outputs = _measured(stream, settings), names
        stored = _inverse(compose(undo, stream.bound(store.settings).given))
    first = compose(compose(undo, affine[0]), stored)
    effect = ""
    if first.shape == (len(COLOURS), len(COLOURS) + 1):
        effect = effects.of_colours(first)
    elif outputs == names and first.shape == (2, 3):
        effect = effects.of_motion(first)
    if first.shape == stored.shape and np.allclose(first, np.eye(*first.shape), atol=0.005):
        lines, effect = ["as stored"], ""
    elif stream.image and np.allclose(first, first[0], atol=0.005):
        lines = [f"{' = '.join(outputs)} = {_sum(first[0], names)}"]
    else:
        lines = [f"{name} = {_sum(row, names)}" for name, row in zip(outputs, first, strict=True)]
    if len(affine) > 1:
        lines[0] = "of each frame its own, of the first " + lines[0]
    return lines + [f"that is: {effect}"] * bool(effect)


def _measured(stream: Stream, settings: Mapping[str, Any]) -> np.ndarray:
    """From the network's input to what the view measures, (P, D + 1)."""
    basis = np.eye(stream.channels, stream.channels + 1, k=1)[:, :, None, None]  # nothing, and one of each channel
    found = VIEWS[stream.view].measured_input(basis, stream.input, settings)[:, :, 0, 0]
    return np.column_stack([(found[1:] - found[0]).T, found[0]])


def _inverse(affine: np.ndarray) -> np.ndarray:
    matrix = np.linalg.inv(affine[:, :-1])
    return np.column_stack([matrix, -matrix @ affine[:, -1]])


def _sum(row: np.ndarray, names: tuple[str, ...]) -> str:
    """What two decimals show of a row of an affine map, such as 0.93 R + 0.05 G - 12.00."""
    terms = [(value, f"{abs(value):.2f}", name) for value, name in zip(row, (*names, ""), strict=True)]
    seen = [
        (" - " if value < 0 else " + ") + (name if number == "1.00" and name else f"{number} {name}".strip())
        for value, number, name in terms
        if number != "0.00"
    ]
    return "".join(seen).removeprefix(" + ").replace(" - ", "-", 1 if seen[:1] and seen[0][1] == "-" else 0) or "0"


def _frames_in_words(video: str, number: int, plans: list[ClipPlan]) -> str:
    plan, frames = plans[number], plans[number].frames
    words = f"clip {number + 1}: frames {frames[0]} to {frames[-1]}"
    words += f" of {plan.video_id}" if plan.video_id != video else ""
    padded = int(np.sum(frames == frames[0])) - 1
    steps = np.unique(np.diff(frames[padded:])).tolist()
    words += f", {' or '.join(map(str, steps))} apart" if steps not in ([], [1]) else ""
    words += f", frame {frames[0]} repeated {padded} times in front because the video is short" if padded else ""
    same = [
        other
        for other in range(number)
        if plans[other].video_id == plan.video_id and np.array_equal(plans[other].frames, frames)
    ]
    return words + (f", the same as clip {same[0] + 1}" if same else "")


def _find_stages(recipe: Recipe, name: str) -> list[StageSettings]:
    by_name = {stage.name: stage for stage in recipe.stages}
    if name and name not in by_name:
        refuse_unknown("stage", name, by_name)
    return [by_name[name]] if name else list(recipe.stages)


def _settings(policy: Policy) -> dict[str, Any]:
    return {field.name: getattr(policy, field.name) for field in dataclasses.fields(policy)}  # type: ignore[arg-type]


def _png(picture: np.ndarray) -> str:
    """Of RGB, or RGB with opacity."""
    _, png = cv2.imencode(".png", picture[..., [2, 1, 0, 3][: picture.shape[-1]]])
    return "data:image/png;base64," + base64.b64encode(png.tobytes()).decode()


def _render(content: dict[str, Any]) -> str:
    return pages.environment("train").get_template("preview.html").render(content)
