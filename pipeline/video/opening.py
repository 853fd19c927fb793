"""A video file, opened: its first video stream, and how long that says it is; or why none can be stored."""

from __future__ import annotations

import contextlib
import re
from fractions import Fraction
from pathlib import Path

import av

import pipeline
from pipeline import pictures

# Decoders that pass off what they could not read as a whole frame, without a mark, unless they are told to fail.
UNMARKED = {"mjpeg": {"err_detect": "explode"}}

# Of FFmpeg's some 350 readers of files, those of video and sound, and of rows of JPEGs. The others read text, pictures
# or raw bytes as video, or open other files, as playlists do; a name does not keep a file from being one. An animated
# GIF is a video, as data sets of them show; animated PNG, WebP and AVIF are pictures that move.
DEMUXERS = (
    "3g2,3gp,4xm,aac,ac3,aiff,amv,ape,apv,asf,asf_o,av1,avi,avs,avs2,avs3,bink,caf,cavsvideo,dirac,dnxhd,dts,dv,eac3,"
    "ea,evc,film_cpk,flac,flic,flv,gif,gxf,h261,h263,h264,hevc,ipmovie,ivf,jpeg_pipe,kux,live_flv,lxf,m4v,matroska,mj2,"
    "mjpeg,mjpeg_2000,mlv,mov,mp3,mp4,m4a,mpeg,mpegts,mpegvideo,mxf,nsv,nut,nuv,obu,ogg,pva,r3d,rm,roq,rpl,smjpeg,smk,swf,"
    "thp,vc1,vc1test,vivo,vvc,w64,wav,webm,wtv,wv,xmv,yuv4mpegpipe"
)

PICTURES = ("jpeg_pipe", "mjpeg", "gif")  # readers of what is a picture where there is only one
_HEIF = ("avif", "avis", "heic", "heim", "heis", "heix", "hevm", "hevs", "j2ki", "mif1", "msf1")
A_PICTURE = "its content is a picture, no video"

LIMITS = {"max_pixels": str(pipeline.LARGEST)}  # of decoders; they take memory by what a header announces
_EXCEEDS = re.compile(r"Picture size (\d+)x(\d+) exceeds")  # FFmpeg's words for it


class Undecodable(Exception):
    """A video that cannot be stored whole. `stage` is open, decode or end; `readable` counts the frames before it."""

    def __init__(self, reason: str, stage: str, readable: int = 0) -> None:
        super().__init__(reason, stage, readable)
        self.reason, self.stage, self.readable = reason, stage, readable

    def __str__(self) -> str:
        return self.reason


def open_container(path: Path) -> av.container.InputContainer:
    """Raises Undecodable."""
    try:
        if not path.is_file():
            raise Undecodable("there is no such file" if not path.exists() else "it is not a file", "open")
        if path.stat().st_size == 0:
            raise Undecodable("the file is empty (0 bytes)", "open")
        return _container(path)
    except (av.FFmpegError, OSError) as error:
        reason = (_said_at_opening(path) or [in_words(error)])[-1]
        if "whitelist" in reason:  # none of the DEMUXERS reads it
            reason = "its content is no video's, but text, a picture, a playlist or the like"
        raise Undecodable(f"it cannot be opened as a video: {reason}", "open") from error


def _container(path: Path) -> av.container.InputContainer:
    # An absolute path: FFmpeg takes what stands before a colon in another one for a protocol.
    options = {**LIMITS, "format_whitelist": DEMUXERS, "protocol_whitelist": "file"}
    return av.open(str(path.absolute()), metadata_errors="ignore", options=options)


def _said_at_opening(path: Path) -> list[str]:
    """FFmpeg's words on a file that it does not open, the last one being the reason.

    Its codes read as errors of the system at times, as that a device is busy for a picture that is too large.
    """
    level, once = av.logging.get_level(), av.logging.get_skip_repeated()
    av.logging.set_level(av.logging.ERROR)
    av.logging.set_skip_repeated(False)
    try:
        with av.logging.Capture() as said, contextlib.suppress(av.FFmpegError, OSError):
            _container(path).close()
    finally:
        av.logging.set_level(level)
        av.logging.set_skip_repeated(once)
    return [text.strip() for _, _, text in said]


def video_stream(container: av.container.InputContainer) -> av.VideoStream:
    """The first video stream, as OpenCV and PyAV's own readers take; cover art is not video."""
    if container.metadata.get("major_brand", "").strip() in _HEIF:
        raise Undecodable(A_PICTURE, "open")
    streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    if not streams:
        covers = container.streams.video
        others = {str(stream.type) for stream in container.streams if stream not in covers}
        kinds = " and ".join(sorted(others | ({"cover art"} if covers else set())))
        raise Undecodable(f"it holds no video stream (only {kinds})" if kinds else "it holds no stream at all", "open")
    stream = streams[0]
    if stream.codec_context is None:
        raise Undecodable("its video codec is not known to FFmpeg", "open")
    stream.thread_type = "NONE"  # extraction runs one process per core; more threads would only fight
    stream.codec_context.options = LIMITS | UNMARKED.get(stream.codec_context.name, {})
    return stream


def refuse_huge(path: Path, stream: av.VideoStream) -> None:
    """Raises Undecodable for frames of more pixels than are taken."""
    width, height = stream.codec_context.width, stream.codec_context.height
    if not width and (
        said := _EXCEEDS.search("\n".join(_said_at_opening(path)))
    ):  # it was in the pictures alone, and not taken over
        width, height = int(said[1]), int(said[2])
    try:
        pictures.refuse_huge(height, width)
    except pictures.TooLarge as error:
        raise Undecodable(str(error), "open") from error


def declared_duration(container: av.container.InputContainer, stream: av.VideoStream) -> Fraction:
    """Seconds that the video stream should last, 0 when unknown; the container's word counts only for a lone stream."""
    alone = len(container.streams) == 1
    # FFmpeg hands ASF's one duration, that of the file, to every stream.
    if stream.duration is not None and stream.time_base is not None and (alone or container.format.name != "asf"):
        return stream.duration * stream.time_base
    if alone and container.duration is not None:
        return Fraction(container.duration, av.time_base)
    return Fraction(0)


def in_words(error: Exception) -> str:
    """An error of FFmpeg's or of the system."""
    return f"{getattr(error, 'strerror', None) or error} ({type(error).__name__})"
