"""What a network's clips are: frames and their distance, size, and which views by which of their inputs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, field_validator, model_validator

from pipeline.views import VIEWS
from train.clips.colour import Statistics
from train.clips.streams import Made, Mirror, Stream, known_input
from train.settings import Settings, told_as_setting

LONGEST, LARGEST_SIDE = 10_000, 16_384  # of clips, in frames and in pixels
Side = Annotated[int, Field(ge=1, le=LARGEST_SIDE)]
Sides = Annotated[tuple[Side, Side], Field(strict=False)]  # YAML has lists
FRACTION = TypeAdapter(Annotated[float, Field(strict=True, gt=0, le=1)])


class StreamSettings(Settings):
    """What differs in one stream; by default a stream is the view of its own name, by that view's default input.

    Args:
        view: Of the store; empty: the one of the stream's name.
        input: How the network is given it, by a name of that view's inputs; empty: its default.
        mirror: Of clips that are mirrored: "turned", values that point to a side point to the other one (u of flow
            changes its sign); "plain", only places change (published, mostly); "never", this stream is not mirrored.
        size: Height and width of its clips, in pixels; none: those of `clips.size`.
        crop: What evaluation cuts out of it; none: `clips.crop`.
    """

    view: str = ""
    input: str = ""
    mirror: Mirror = "turned"
    size: Sides | None = None
    crop: float | None = Field(default=None, gt=0, le=1)


class ClipSpec(Settings):
    """The clips that networks are trained on, and evaluated on.

    Args:
        length: Frames of a clip.
        stride: Distance between them in the video.
        size: Height and width of a clip at the network's input, in pixels.
        crop: What evaluation cuts out: "whole", or the side of a centred square as a fraction of the frame's short
            side.
        streams: Name of a stream -> what differs in it.
        statistics: Mean and deviation by which images are normalised: "imagenet" or "kinetics".
        pixels: How frames are resized and coloured: "ours", bilinear and colour as one affine map; or "published", as
            the papers' code did it, byte for byte as Pillow does: antialiased resizing, contrast about each frame's own
            mean, hue in HSV, box blurs, every step rounded and cut to 0..255 (docs/methods.md 7.2).
    """

    length: int = Field(ge=1, le=LONGEST)
    stride: int = Field(ge=1, le=LONGEST)
    size: Sides
    crop: float | Literal["whole"] = "whole"
    streams: dict[str, StreamSettings] = {}
    statistics: Statistics = "imagenet"
    pixels: Made = "ours"

    @field_validator("crop", mode="plain")
    @classmethod
    def _whole_or_fraction(cls, given: Any) -> float | Literal["whole"]:
        return "whole" if given == "whole" else FRACTION.validate_python(given)

    @model_validator(mode="after")
    def _check(self) -> ClipSpec:
        with told_as_setting():
            for name in self.streams:
                self.stream(name)
        return self

    @property
    def span(self) -> int:
        """Frames of a video that a clip covers."""
        return self.length * self.stride

    def stream(self, name: str, settings: StreamSettings | None = None) -> Stream:
        """The stream of that name; or what is shown in its place, by other `settings`, at its own size.

        Raises UsageError for a view or input that does not exist.
        """
        own = self.streams.get(name, StreamSettings())
        shown = settings or own
        view, given = known_input(shown.view or name, shown.input, f"streams.{name}")
        return Stream(name, view, given, own.size or self.size, shown.mirror, self.statistics, self.pixels, own.crop)

    def channels(self) -> dict[str, int]:
        """Channels of every stream at the network's input."""
        return {name: self.stream(name).channels for name in dict.fromkeys([*VIEWS, *self.streams])}
