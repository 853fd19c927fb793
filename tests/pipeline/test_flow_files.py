"""Flow files: what is written comes back, and what is broken is refused."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pipeline.errors import Refusal, UsageError
from pipeline.show import flow_files

shapes = st.tuples(st.just(2), st.integers(1, 9), st.integers(1, 9))
lengths = st.one_of(st.floats(-500, 500, width=32), st.just(float("nan")))
flows = arrays.arrays(np.float32, shapes, elements=lengths)


def expected(flow: np.ndarray) -> np.ndarray:
    """A pixel of which one component is unknown is unknown."""
    return np.where(np.isfinite(flow).all(axis=0), flow, np.float32(np.nan))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("flow")


@pytest.mark.parametrize("ending", flow_files.FORMATS)
@given(flow=flows)
def test_flow_comes_back(folder: Path, ending: str, flow: np.ndarray) -> None:
    path = folder / f"a.b{ending}"
    flow_files.write(path, flow)
    back = flow_files.read(path)
    assert back.dtype == np.float32
    if ending == ".png":
        assert np.array_equal(np.isnan(back), np.isnan(expected(flow)))
        assert np.nanmax(np.abs(back - flow), initial=0) <= 1 / 128
        flow_files.write(path, back)
        assert np.array_equal(flow_files.read(path), back, equal_nan=True)
    else:
        assert np.array_equal(back, expected(flow), equal_nan=True)
    assert not path.with_name(path.name + ".partial").exists()


@pytest.mark.parametrize("ending", flow_files.FORMATS)
@given(flow=flows, where=st.floats(0, 1, exclude_max=True))
def test_a_file_that_was_cut_off_is_refused(folder: Path, ending: str, flow: np.ndarray, where: float) -> None:
    path = folder / f"cut{ending}"
    data = flow_files.encode(path, flow)
    path.write_bytes(data[: int(where * len(data))])
    with pytest.raises(Refusal, match="not a whole"):
        flow_files.read(path)


def test_a_flo_file_is_middleburys(folder: Path) -> None:
    flow = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    data = flow_files.encode(folder / "x.flo", flow)
    assert np.frombuffer(data, "<f4", 1)[0] == 202021.25
    assert np.frombuffer(data, "<i4", 2, offset=4).tolist() == [3, 2]
    assert np.frombuffer(data, "<f4", offset=12)[:4].tolist() == [0, 6, 1, 7]
    (folder / "x.flo").write_bytes(data[:12] + np.full(12, 1.7e9, "<f4").tobytes())
    assert np.isnan(flow_files.read(folder / "x.flo")).all()


def test_a_kitti_file_holds_u_v_and_validity(folder: Path) -> None:
    flow = np.array([[[1.5, np.nan]], [[-2.0, 3.0]]], np.float32)
    flow_files.write(folder / "x.png", flow)
    stored = cv2.imread(str(folder / "x.png"), cv2.IMREAD_UNCHANGED)[..., ::-1]  # red, green, blue
    assert stored[0].tolist() == [[2**15 + 96, 2**15 - 128, 1], [0, 0, 0]]
    assert flow_files.is_kitti(folder / "x.png")
    with pytest.raises(Refusal, match="up to 512 pixels, and this flow has 684"):
        flow_files.write(folder / "x.png", flow * -342)


def test_what_is_no_flow_is_refused(folder: Path) -> None:
    picture = cv2.imencode(".png", np.zeros((4, 4, 3), np.uint8))[1].tobytes()
    for name, data, message in (
        ("a.flo", b"P6 2 2 255 ", "does not begin with PIEH"),
        ("a.flo", b"PIEH" + np.array([-1, 4], "<i4").tobytes(), "claims a size of -1x4"),
        ("a.flo", flow_files.encode(Path("a.flo"), np.zeros((2, 2, 2))) + b"\0", "need 44 bytes, and it has 45"),
        ("a.png", picture, "it is a picture"),
        ("a.png", b"PIEH", "it is no PNG"),
        ("a.png", picture[:40] + bytes(8) + picture[-8:], "cannot be decoded|it is a picture"),
        ("a.npy", flow_files.encode(Path("a.npy"), np.zeros((2, 2, 2)))[:-1], "not a whole"),
    ):
        (folder / name).write_bytes(data)
        with pytest.raises(Refusal, match=message):
            flow_files.read(folder / name)
    for array, message in (
        (np.zeros((2, 3, 4), int), "no array of floating-point"),
        (np.zeros((3, 4, 2), np.float32), r"this is \(3, 4, 2\)"),
    ):
        np.save(folder / "a.npy", array)
        with pytest.raises(Refusal, match=message):
            flow_files.read(folder / "a.npy")
    np.save(folder / "a.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(Refusal, match="not a whole .npy"):
        flow_files.read(folder / "a.npy")
    with pytest.raises(UsageError, match=r"end in .flo, .png, .npy, not in '.jpg'"):
        flow_files.read(folder / "a.jpg")
    with pytest.raises(Refusal, match="No such file"):
        flow_files.read(folder / "none.flo")
    with pytest.raises(Refusal, match="cannot be written"):
        flow_files.write(folder / "a.npy" / "a.flo", np.zeros((2, 2, 2)))
    with pytest.raises(ValueError, match="must be"):
        flow_files.write(folder / "a.flo", np.zeros((2, 2)))


def test_real_files_are_read(shared: Path) -> None:
    """The lengths of the data sets' own pages: the flow of nothing, which is the mean length."""
    truths = shared / "data" / "flow-gt"
    for name, size, length in (
        ("middlebury-rubberwhale/flow_gt.flo", (388, 584), 1.256),
        ("sintel-0001/flow_gt.flo", (436, 1024), 2.803),
        ("kitti-000000/flow_gt_kitti16.png", (375, 1242), 51.0),
    ):
        flow = flow_files.read(truths / name)
        assert flow.shape == (2, *size)
        assert np.nanmean(np.hypot(*flow)) == pytest.approx(length, rel=1e-3)
    assert 0.1 < np.isfinite(flow[0]).mean() < 0.2
