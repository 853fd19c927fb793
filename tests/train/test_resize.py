"""The reader's resizing of bytes against OpenCV's, bit for bit, and the memory of batches."""

from __future__ import annotations

import ctypes
import mmap
import sys

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from train.reader.memory import KEPT, BatchMemory
from train.reader.resize import TOGETHER, ByteResize

sides = st.integers(1, 70)


@given(data=st.data(), channels=st.sampled_from([1, 3]), height=sides, width=sides, size=st.tuples(sides, sides))
def test_resizing_equals_opencv_bit_for_bit(
    data: st.DataObject, channels: int, height: int, width: int, size: tuple[int, int]
) -> None:
    """Any window of any frames to any size, mirrored or not; nothing but the frames' places in the clip is written."""
    planes = 1 if channels == 3 else data.draw(st.integers(1, 3))
    down, across = data.draw(st.integers(1, height)), data.draw(st.integers(1, width))
    top, left = data.draw(st.integers(0, height - down)), data.draw(st.integers(0, width - across))
    flip, seed = data.draw(st.booleans()), data.draw(st.integers(0, 99))
    shape = (height, width, 3) if channels == 3 else (planes, height, width)
    frames = list(np.random.default_rng(seed).integers(0, 256, (data.draw(st.integers(1, TOGETHER)), *shape), np.uint8))
    places = np.array(data.draw(st.permutations(range(TOGETHER + 1))))[: len(frames)]
    clip = np.full((planes, TOGETHER + 1, size[0], size[1] * channels), 77, np.uint8)
    ByteResize((height, width), channels, (top, left, down, across), flip, size)(frames, clip, places)
    assert (np.delete(clip, places, axis=1) == 77).all()
    for frame, place in zip(frames, places, strict=True):
        for image, found in zip(frame.reshape(planes, height, width, channels), clip[:, place], strict=True):
            cut = image[top : top + down, left : left + across]
            expected = cv2.resize(cut, size[::-1], interpolation=cv2.INTER_LINEAR).reshape(*size, channels)
            np.testing.assert_array_equal(found.reshape(expected.shape), expected[:, ::-1] if flip else expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_half_the_size_is_opencvs_too(channels: int) -> None:
    """There OpenCV takes another way."""
    frame = np.random.default_rng(0).integers(0, 256, (64, 80, 3) if channels == 3 else (1, 64, 80), np.uint8)
    clip = np.empty((1, 1, 32, 40 * channels), np.uint8)
    ByteResize((64, 80), channels, (0, 0, 64, 80), False, (32, 40))([frame], clip, np.array([0]))
    expected = cv2.resize(frame.reshape(64, 80, channels), (40, 32), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(clip.reshape(expected.shape), expected)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is protected as Linux does it")
@pytest.mark.parametrize("shape", [(1, 1, 3), (5, 1, 3), (4, 4, 3), (3, 7, 3), (2, 1, 1), (1, 9, 2), (3, 5, 4)])
def test_nothing_is_read_behind_a_frame(shape: tuple[int, int, int]) -> None:
    """However narrow it is: the page behind it cannot be read."""
    library, page = ctypes.CDLL(None, use_errno=True), mmap.PAGESIZE
    memory = mmap.mmap(-1, 2 * page)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    assert library.mprotect(ctypes.c_void_p(address + page), page, 0) == 0
    size = int(np.prod(shape))
    frame = np.frombuffer(memory, np.uint8, size, page - size).reshape(shape)
    frame[:] = np.random.default_rng(0).integers(0, 256, shape)
    channels = 3 if shape[2] == 3 else 1
    height, width = shape[:2] if channels == 3 else shape[1:]
    clip = np.empty((size // height // width // channels, 1, 6, 8 * channels), np.uint8)
    ByteResize((height, width), channels, (0, 0, height, width), False, (6, 8))([frame], clip, np.array([0]))
    assert clip.min() >= frame.min() and clip.max() <= frame.max()
    assert library.mprotect(ctypes.c_void_p(address + page), page, mmap.PROT_READ | mmap.PROT_WRITE) == 0


def test_memory_comes_back_when_the_last_view_of_it_is_gone() -> None:
    memory = BatchMemory()
    first = memory.tensor((2, 3), torch.float32)
    place = first.data_ptr()
    part = first.permute(1, 0)[1:]
    del first
    assert memory.tensor((2, 3), torch.float32).data_ptr() != place, "a part of it is still shown"
    array = part.numpy()
    del part
    assert memory.tensor((2, 3), torch.float32).data_ptr() != place, "an array still shows it"
    del array
    again = [memory.tensor((24,), torch.uint8) for _ in range(3)]
    assert place in {one.data_ptr() for one in again}


def test_memory_of_other_sizes_is_not_kept_forever() -> None:
    memory = BatchMemory()
    kept = [memory.tensor((number,), torch.uint8) for number in range(1, 3 * KEPT)]
    del kept
    assert len(memory._free) == KEPT


@pytest.mark.gpu
def test_pinned_memory_is_pinned() -> None:
    assert BatchMemory(pinned=True).tensor((2, 3), torch.uint8).is_pinned()
