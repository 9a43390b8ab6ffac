"""RTSTRUCT onto a scan's grid: by hand, refused with the reason, and real outlines against their truth masks."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom import uid
from pydicom.dataset import Dataset

from medmaskrcnn.errors import ReadError
from medmaskrcnn.io.labels.read import load_labels, read_labels
from medmaskrcnn.io.read import read_volume
from medmaskrcnn.structures.grid import Grid
from medmaskrcnn.structures.instances import Instances
from medmaskrcnn.structures.volume import Volume

MIN_DICE = 0.995
"""Masks and outlines come from one another; single voxels may differ by how a centre on an edge is counted."""

STS = [f"STS_{patient}/{kind}" for patient in ("001", "003", "004") for kind in ("CT", "MR_T1", "PET")]


def dense(instances: Instances, i: int) -> np.ndarray:
    return instances.masks[i].dense(instances.grid.shape)


def outline(grid: Grid, depth: float, rows: tuple[float, float], columns: tuple[float, float]) -> np.ndarray:
    """A rectangle of index coordinates as points in L, P, S."""
    around = ((rows[0], columns[0]), (rows[0], columns[1]), (rows[1], columns[1]), (rows[1], columns[0]))
    return grid.index_to_ras([(depth, r, c) for r, c in around]) * [-1, -1, 1]


@pytest.fixture
def scan(slices, write_series) -> Volume:
    return read_volume(write_series(slices))


def test_by_hand(scan, new_rtstruct, save_dicom, tmp_path):
    # Rows 0.8 mm from y = -20, columns 0.5 mm from x = -10, slices 2.5 mm from z = 30: voxels 1..2, 1..3, 1..2.
    points = [
        [[x, y, z] for x, y in [(-9.8, -19.6), (-8.7, -19.6), (-8.7, -17.3), (-9.8, -17.3)]] for z in (32.5, 35.0)
    ]
    path = save_dicom(new_rtstruct({"lesion": points}), tmp_path / "RS.dcm")
    found = read_labels(path, scan)
    assert found.class_names == ("lesion",)
    assert (found.masks[0].start, found.masks[0].end) == ((1, 1, 1), (3, 4, 3))
    assert found.masks[0].array.all()
    assert found.grid is scan.grid
    np.testing.assert_array_equal(found.boxes, [[1, 1, 1, 3, 4, 3]])


@pytest.mark.parametrize("tilted", [False, True])
def test_any_grid(slices, write_series, new_rtstruct, save_dicom, tmp_path, tilted):
    orientation = np.array([0.0, 0.96, 0.28, 0.0, 0.28, -0.96])
    step = np.cross(orientation[:3], orientation[3:]) * 2.5 + (0.4 * orientation[3:] if tilted else 0)
    for i, one in enumerate(slices):
        one.ImageOrientationPatient = list(orientation)
        one.ImagePositionPatient = [float(v) for v in np.round([3, -7, 11] + step * i, 6)]
    scan = read_volume(write_series(slices))
    drawn = [outline(scan.grid, d + 0.3, (0.6, 3.4), (-0.4, 2.4)) for d in (1, 2, 3)]
    found = read_labels(save_dicom(new_rtstruct({"a": drawn}), tmp_path / "RS.dcm"), scan)
    assert (found.masks[0].start, found.masks[0].end) == ((1, 1, 0), (4, 4, 3))
    assert found.masks[0].array.all()


def test_outlines_along_another_axis_of_the_grid(scan, new_rtstruct, save_dicom, tmp_path):
    corners = [(0.6, 0.6), (0.6, 3.4), (3.4, 3.4), (3.4, 0.6)]
    sagittal = [scan.grid.index_to_ras([(d, h, w) for d, h in corners]) * [-1, -1, 1] for w in (1, 2)]
    found = read_labels(save_dicom(new_rtstruct({"a": sagittal}), tmp_path / "RS.dcm"), scan)
    assert (found.masks[0].start, found.masks[0].end) == ((1, 1, 1), (4, 4, 3))
    assert found.masks[0].array.all()


def test_holes_are_kept_however_they_are_written(scan, new_rtstruct, save_dicom, tmp_path):
    outer, inner = (outline(scan.grid, 2, r, c) for r, c in (((-0.4, 4.4), (-0.4, 3.4)), ((0.6, 3.4), (0.6, 2.4))))
    keyhole = np.concatenate([outer, outer[:1], inner[::-1], inner[-1:]])
    regions = {
        "nested": [outer, inner],
        "keyhole": [keyhole],
        "xor": [("CLOSEDPLANAR_XOR", outer), ("CLOSEDPLANAR_XOR", inner)],
    }
    found = read_labels(save_dicom(new_rtstruct(regions), tmp_path / "RS.dcm"), scan)
    assert found.class_names == ("nested", "keyhole", "xor")
    for i in range(3):
        assert found.masks[i].n_voxels == 20 - 6
        assert not found.masks[i].array[0, 1:4, 1:3].any()


def test_what_encloses_nothing_is_left_out_and_told(scan, new_rtstruct, save_dicom, tmp_path):
    line = outline(scan.grid, 2, (0, 3), (0, 2))
    regions = {
        "marker": [("POINT", line[:1])],
        "wire": [("OPEN_PLANAR", line)],
        "real": [line, line[:2]],
        "empty": [],
    }
    labels = load_labels(save_dicom(new_rtstruct(regions), tmp_path / "RS.dcm"), scan)
    assert labels.instances.class_names == ("real",)
    told = " ".join(labels.notes)
    for words in ("'marker': 1 points", "'wire': 1 open lines", "'real': 1 outlines of fewer", "'empty' has no closed"):
        assert words in told


def test_what_reaches_beyond_the_scan_is_cut_off_and_told(scan, new_rtstruct, save_dicom, tmp_path):
    drawn = [outline(scan.grid, d, (2.6, 9), (1.6, 9)) for d in (4, 5, 6, 7)]
    labels = load_labels(save_dicom(new_rtstruct({"a": drawn}), tmp_path / "RS.dcm"), scan)
    assert (labels.instances.masks[0].start, labels.instances.masks[0].end) == ((4, 3, 2), (6, 5, 4))
    assert "beyond the scan" in labels.notes[0]


def test_instances_of_one_class_share_its_name(scan, new_rtstruct, save_dicom, tmp_path):
    drawn = {f"tumour {i}": [outline(scan.grid, i, (0, 3), (0, 2))] for i in (1, 2)}
    one = new_rtstruct(drawn)
    one.RTROIObservationsSequence = []
    for number in (1, 2):
        item = type(one)()
        item.ObservationNumber, item.ReferencedROINumber, item.ROIObservationLabel = number, number, "tumour"
        one.RTROIObservationsSequence.append(item)
    found = read_labels(save_dicom(one, tmp_path / "RS.dcm"), scan)
    assert found.class_names == ("tumour",)
    assert len(found) == 2


def test_another_frame_of_reference_is_refused(slices, write_series, new_rtstruct, save_dicom, tmp_path):
    for one in slices:
        one.FrameOfReferenceUID = "1.2.3.4"
    scan = read_volume(write_series(slices))
    path = save_dicom(new_rtstruct({"a": [outline(scan.grid, 1, (0, 3), (0, 2))]}), tmp_path / "RS.dcm")
    with pytest.raises(ReadError, match=r"RS.dcm was drawn in another frame of reference"):
        read_labels(path, scan)


def named_images(rtstruct, *uids):
    """The object with the images that it was drawn on, as rt-utils names them."""
    frame, study, series = Dataset(), Dataset(), Dataset()
    frame.FrameOfReferenceUID = "1.2.3.99"
    series.SeriesInstanceUID, series.ContourImageSequence = "1.2.3", []
    for one in uids:
        image = Dataset()
        image.ReferencedSOPInstanceUID = one
        series.ContourImageSequence.append(image)
    study.RTReferencedSeriesSequence = [series]
    frame.RTReferencedStudySequence = [study]
    rtstruct.ReferencedFrameOfReferenceSequence = [frame]
    for region in rtstruct.StructureSetROISequence:
        region.ReferencedFrameOfReferenceUID = "1.2.3.99"
    return rtstruct


def test_the_scans_own_images_count_more_than_a_frame_of_reference(scan, new_rtstruct, save_dicom, tmp_path):
    one = new_rtstruct({"a": [outline(scan.grid, 1, (0, 3), (0, 2))]})
    path = save_dicom(named_images(one, scan.provenance.sop_instance_uids[0], "1.2.3.77"), tmp_path / "RS.dcm")
    labels = load_labels(path, scan)
    assert len(labels.instances) == 1
    assert any("frame of reference" in note for note in labels.notes)
    path = save_dicom(named_images(one, "1.2.3.77"), tmp_path / "other.dcm")
    with pytest.raises(ReadError, match="another frame of reference"):
        read_labels(path, scan)


def test_interpolated_outlines_are_areas(scan, new_rtstruct, save_dicom, tmp_path):
    points = outline(scan.grid, 1, (0, 3), (0, 2))
    drawn = read_labels(save_dicom(new_rtstruct({"a": [points]}), tmp_path / "a.dcm"), scan)
    path = save_dicom(new_rtstruct({"a": [("INTERPOLATED_PLANAR", points)]}), tmp_path / "b.dcm")
    np.testing.assert_array_equal(read_labels(path, scan).masks[0].array, drawn.masks[0].array)


def test_oblique_outlines_are_refused(scan, new_rtstruct, save_dicom, tmp_path):
    tilted = scan.grid.index_to_ras([(1, 0, 0), (1, 0, 3), (2, 4, 3), (2, 4, 0)]) * [-1, -1, 1]
    tilted[0] += 3
    path = save_dicom(new_rtstruct({"slanted": [tilted]}), tmp_path / "RS.dcm")
    with pytest.raises(ReadError, match="'slanted' are oblique to the scan"):
        read_labels(path, scan)


def test_a_damaged_one_is_named(scan, new_rtstruct, save_dicom, tmp_path):
    one = new_rtstruct({"a": [outline(scan.grid, 1, (0, 3), (0, 2))]})
    one.ROIContourSequence[0].ContourSequence[0].ContourData = ["1"] * 10
    with pytest.raises(ReadError, match=r"RS.dcm: an outline of 'a' has 10 numbers"):
        read_labels(save_dicom(one, tmp_path / "RS.dcm"), scan)
    with pytest.raises(ReadError, match=r"RS.dcm holds no region of interest"):
        read_labels(save_dicom(new_rtstruct({}), tmp_path / "RS.dcm"), scan)


def test_a_scan_is_no_labels(scan, slices, write_series, tmp_path):
    with pytest.raises(ReadError, match="is an image, not labels"):
        read_labels(write_series(slices) / "000.dcm", scan)
    with pytest.raises(ReadError, match="must hold one RTSTRUCT or SEG, it holds 0"):
        read_labels(tmp_path / "series", scan)
    slices[0].SOPClassUID, slices[0].Modality = uid.EncapsulatedPDFStorage, "DOC"
    with pytest.raises(ReadError, match="an encapsulated document"):
        read_labels(write_series(slices[:1], folder="pdf") / "000.dcm", scan)


@pytest.mark.parametrize("name", STS)
def test_real_outlines_are_their_truth_masks(medmaskrcnn_data, name):
    folder = medmaskrcnn_data / "dicom"
    scan = read_volume(folder / name / "image")
    drawn = read_labels(folder / name / "mask", scan)
    truth = read_labels(folder / "truth" / f"{name.replace('/', '_')}_mask.nii.gz", scan)
    assert len(drawn) == len(truth) == 1
    assert drawn.grid == truth.grid == scan.grid
    a, b = dense(drawn, 0), dense(truth, 0)
    assert 2 * (a & b).sum() / (a.sum() + b.sum()) >= MIN_DICE
