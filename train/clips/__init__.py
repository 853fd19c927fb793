"""Which frames a clip holds: the sampling rules of the papers, as pure functions of a video's length."""

from __future__ import annotations

import numpy as np


def random_clip(num_frames: int, length: int, stride: int, rng: np.random.Generator) -> np.ndarray:
    """One clip at a random place, for training: frame indices, int64 (length,).

    A clip covers `length * stride` frames; every start from 0 to `num_frames - length * stride`, both included, is
    equally likely. A shorter video gives the frames offset, offset + stride, ... (offset drawn below `stride`) with
    frame 0 repeated in front. One number is drawn from `rng` either way.

    The released sampler never draws the last valid start; this one does. Source: CoCLR (arXiv 2010.09709), released
    code. Raises ValueError for a video without frames or a clip without length or stride.
    """
    _check(num_frames, length, stride)
    last = num_frames - length * stride
    if last >= 0:
        return rng.integers(last + 1) + stride * np.arange(length)
    return _padded_in_front(np.arange(rng.integers(min(stride, num_frames)), num_frames, stride), length)


def sliding_windows(num_frames: int, length: int, stride: int) -> np.ndarray:
    """All clips of a video, for evaluation: frame indices, int64 (W, length).

    Starts lie `length * stride // 2 - 1` frames apart (at least 1) and do not pass `num_frames - length * stride`, so
    that a tail of up to that distance is not seen. A shorter video gives one window: frames 0, stride, 2 stride, ...
    with frame 0 repeated in front.

    Source: CoCLR's retrieval protocol. Raises ValueError as `random_clip` does.
    """
    _check(num_frames, length, stride)
    last = num_frames - length * stride
    if last < 0:
        return _padded_in_front(np.arange(0, num_frames, stride), length)[None]
    starts = np.arange(0, last + 1, max(1, length * stride // 2 - 1))
    return starts[:, None] + stride * np.arange(length)


def uniform_windows(num_frames: int, length: int, stride: int, count: int) -> np.ndarray:
    """So many clips at equal distances, the first at the beginning and the last at the end: frame indices, int64
    (count, length).

    A clip covers `length * stride` frames; where there are few more, clips come twice. The middles of the clips are
    spread from half a clip to half a clip before the end, and the starts rounded down (docs/methods.md 7.1); one clip
    alone lies in the middle. Source: SLIC (arXiv 2206.12534), released code. Raises ValueError as `random_clip` does,
    and for a video that is shorter than a clip.
    """
    _check(num_frames, length, stride)
    span = length * stride
    if num_frames < span or count < 1:
        raise ValueError(f"{count} clips of {span} frames cannot be taken from {num_frames} frames")
    if count == 1:
        starts = np.array([(num_frames - span) // 2])
    else:
        starts = (np.linspace(span / 2, num_frames - span / 2, count) - span / 2).astype(np.int64)
    return starts[:, None] + stride * np.arange(length)


def predictive_blocks(num_frames: int, blocks: int, block_length: int, stride: int, start: int) -> np.ndarray:
    """Consecutive blocks of a video from frame `start`, of which later ones are predicted from earlier ones: frame
    indices, int64 (blocks, block_length).

    Frames lie `stride` apart where the video has more than blocks * block_length * stride frames. In any other they are
    spread over nine tenths of it, a fraction of a frame apart and rounded down, so that a frame may come twice.

    Source: CoCon (arXiv 2104.14764), released code. Raises ValueError as `random_clip` does, and for a start from which
    the blocks do not fit into the video.
    """
    _check(num_frames, blocks * block_length, stride)
    count = blocks * block_length
    distance = stride if num_frames > count * stride else 0.9 * (num_frames - 1) / count
    frames = (start + distance * np.arange(count)).astype(np.int64)
    if start < 0 or frames[-1] >= num_frames:
        raise ValueError(
            f"{blocks} blocks of {block_length} frames from frame {start} do not fit into {num_frames} frames"
        )
    return frames.reshape(blocks, block_length)


def _padded_in_front(frames: np.ndarray, length: int) -> np.ndarray:
    return np.concatenate([np.zeros(length - len(frames), np.int64), frames])


def _check(num_frames: int, length: int, stride: int) -> None:
    if min(num_frames, length, stride) < 1:
        raise ValueError(f"frames, clip length and stride must be at least 1, not {num_frames}, {length} and {stride}")
