"""DICOM SEG onto a scan's grid: each type, sparse and shifted frames, other grids, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom import uid

from medmaskrcnn.errors import ReadError
from medmaskrcnn.io.labels.read import load_labels, read_labels
from medmaskrcnn.io.read import read_volume
from medmaskrcnn.structures.instances import Instances
from medmaskrcnn.structures.volume import Volume

FIRST = (-10.0, -20.0, 30.0)  # where the fixture's scan begins; 6 slices of 5 x 4, 2.5 mm apart


def at(k: float) -> tuple[float, float, float]:
    return FIRST[0], FIRST[1], FIRST[2] + 2.5 * k


def dense(instances: Instances, i: int) -> np.ndarray:
    return instances.masks[i].dense(instances.grid.shape)


@pytest.fixture
def scan(slices, write_series) -> Volume:
    return read_volume(write_series(slices))


@pytest.fixture
def masks() -> np.ndarray:
    """Two overlapping objects ``(2, 6, 5, 4)``, with slices that they leave empty."""
    rng = np.random.default_rng(3)
    masks = rng.random((2, 6, 5, 4)) < 0.4
    masks[0, [0, 5]] = masks[1, [1, 3]] = False
    assert (masks[0] & masks[1]).any()
    return masks


def frames_of(masks: np.ndarray, jitter: float = 0.0, value: int = 1) -> list:
    """Frames that hold a voxel, the second object's first and slices falling: order must not matter."""
    found = [
        (at(k + jitter * (-1) ** k), n + 1, value * masks[n, k].astype(np.uint8))
        for n in (1, 0)
        for k in range(5, -1, -1)
        if masks[n, k].any()
    ]
    return found


@pytest.mark.parametrize("jitter", [0.0, 0.01, 0.3, -0.45])
def test_overlapping_segments_on_sparse_frames(scan, masks, new_seg, save_dicom, tmp_path, jitter):
    path = save_dicom(new_seg(frames_of(masks, jitter), ["liver", "tumour"]), tmp_path / "seg.dcm")
    labels = load_labels(path, scan)
    assert labels.instances.class_names == ("liver", "tumour")
    for i in range(2):
        np.testing.assert_array_equal(dense(labels.instances, i), masks[i])
    assert bool(labels.notes) == (abs(jitter) > 0.02)


def test_all_slices_half_a_slice_off_go_one_way(scan, masks, new_seg, save_dicom, tmp_path):
    frames = [(at(k + 0.5), 1, masks[0, k].astype(np.uint8)) for k in range(5)]
    found = read_labels(save_dicom(new_seg(frames, ["a"]), tmp_path / "seg.dcm"), scan)
    np.testing.assert_array_equal(dense(found, 0)[:5], masks[0, :5])


def test_fractions_become_voxels_from_one_half_on(scan, masks, new_seg, save_dicom, tmp_path):
    shares = np.full((5, 4), 99, np.uint8)  # of 200
    shares[1, 1:3] = 100, 200
    seg = new_seg([(at(2), 1, shares)], ["a"], kind="FRACTIONAL")
    found = read_labels(save_dicom(seg, tmp_path / "seg.dcm"), scan)
    assert (found.masks[0].start, found.masks[0].end) == ((2, 1, 1), (3, 2, 3))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_label_map(scan, masks, new_seg, save_dicom, tmp_path, dtype):
    values = np.where(masks[0], 2, np.where(masks[1], 1, 0)).astype(dtype)
    frames = [(at(k), None, values[k]) for k in range(6)]
    seg = new_seg(frames, ["liver", "tumour", "nowhere"], kind="LABELMAP")
    labels = load_labels(save_dicom(seg, tmp_path / "seg.dcm"), scan)
    np.testing.assert_array_equal(dense(labels.instances, 0), masks[1] & ~masks[0])
    np.testing.assert_array_equal(dense(labels.instances, 1), masks[0])
    assert labels.instances.masks[2].is_empty
    assert labels.notes == ("'nowhere' has no voxel.",)


@pytest.mark.parametrize("syntax", [uid.RLELossless, uid.JPEGLSLossless])
def test_compressed_label_map(scan, masks, new_seg, save_dicom, tmp_path, syntax):
    seg = new_seg([(at(k), None, masks[0, k].astype(np.uint8)) for k in range(6)], ["a"], kind="LABELMAP")
    seg.compress(syntax, generate_instance_uid=False)
    found = read_labels(save_dicom(seg, tmp_path / "seg.dcm"), scan)
    np.testing.assert_array_equal(dense(found, 0), masks[0])


def test_instances_with_one_label_are_one_class(scan, masks, new_seg, save_dicom, tmp_path):
    found = read_labels(save_dicom(new_seg(frames_of(masks), ["tumour", "tumour"]), tmp_path / "seg.dcm"), scan)
    assert found.class_names == ("tumour",)
    assert found.labels.tolist() == [0, 0]


def test_turned_frames_come_back_exactly(scan, masks, new_seg, save_dicom, tmp_path):
    """Rows run backwards and columns are swapped with them: as a viewer that flips the image stores it."""
    x, y, _ = scan.grid.index_to_ras([0, 4, 0]) * [-1, -1, 1]
    frames = [((x, y, at(k)[2]), 1, masks[0, k, ::-1].T.astype(np.uint8)) for k in range(6) if masks[0, k].any()]
    seg = new_seg(frames, ["a"], orientation=(0, -1, 0, 1, 0, 0), pixel_spacing=(0.5, 0.8))
    labels = load_labels(save_dicom(seg, tmp_path / "seg.dcm"), scan)
    np.testing.assert_array_equal(dense(labels.instances, 0), masks[0])


def test_a_coarser_segmentation_fills_the_slices_between(scan, new_seg, save_dicom, tmp_path):
    """5 mm slices on a scan with 2.5 mm: slice k of the one covers 2k - 0.5 .. 2k + 1.5 of the other."""
    frame = np.zeros((5, 4), np.uint8)
    frame[1:4, 1:3] = 1
    seg = new_seg([(at(2), 1, frame), (at(4), 1, frame)], ["a"], slice_spacing=5.0)
    labels = load_labels(save_dicom(seg, tmp_path / "seg.dcm"), scan)
    assert labels.instances.masks[0].start[1:] == (1, 1)
    assert [bool(s.any()) for s in dense(labels.instances, 0)] == [False, False, True, True, True, True]
    assert "grid of its own" in labels.notes[0]


def test_a_single_frame_finds_its_slice(scan, masks, new_seg, save_dicom, tmp_path):
    seg = new_seg([(at(3), 1, masks[0, 3].astype(np.uint8))], ["a"], slice_spacing=None)
    found = read_labels(save_dicom(seg, tmp_path / "seg.dcm"), scan)
    np.testing.assert_array_equal(dense(found, 0)[3], masks[0, 3])
    assert dense(found, 0).sum() == masks[0, 3].sum()


def test_what_lies_beyond_the_scan_is_dropped(scan, new_seg, save_dicom, tmp_path):
    frame = np.ones((5, 4), np.uint8)
    seg = new_seg([(at(k), n, frame) for n, k in ((1, -2), (1, -1), (1, 0), (2, 9))], ["a", "b"])
    labels = load_labels(save_dicom(seg, tmp_path / "seg.dcm"), scan)
    assert (labels.instances.masks[0].start, labels.instances.masks[0].end) == ((0, 0, 0), (1, 5, 4))
    assert labels.instances.masks[1].is_empty
    assert "'b' lies outside" in labels.notes[0]


def test_refusals_name_the_reason(scan, masks, new_seg, save_dicom, tmp_path):
    def refused(message: str, **changes: object) -> None:
        seg = new_seg(frames_of(masks), ["liver", "tumour"])
        for keyword, value in changes.items():
            setattr(seg, keyword, value)
        with pytest.raises(ReadError, match=message):
            read_labels(save_dicom(seg, tmp_path / "seg.dcm"), scan)

    refused("another frame of reference", FrameOfReferenceUID="1.2.3")
    refused("segmentation type 'PAINTED' is unknown", SegmentationType="PAINTED")
    refused("no rows, columns or segments", SegmentSequence=[])
    refused("frames announced", NumberOfFrames=4)
    refused("seg.dcm", PixelData=b"\0\0")
    one = new_seg(frames_of(masks), ["liver"])
    with pytest.raises(ReadError, match="voxels of segment 2, which its header does not describe"):
        read_labels(save_dicom(one, tmp_path / "seg.dcm"), scan)
