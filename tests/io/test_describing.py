"""``describe`` tells the truth about every scan and every file set aside, without decoding or torch."""

from __future__ import annotations

import os
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
from pydicom import uid
from pydicom.fileset import FileSet

from medmaskrcnn.errors import ReadError
from medmaskrcnn.io.discover import describe
from medmaskrcnn.io.read import read_volume

OBJECTS = [
    (uid.RTStructureSetStorage, "RTSTRUCT", "contours"),
    (uid.SegmentationStorage, "SEG", "segmentation"),
    (uid.Comprehensive3DSRStorage, "SR", "structured report"),
    (uid.XRayRadiationDoseSRStorage, "SR", "structured report"),
    (uid.GrayscaleSoftcopyPresentationStateStorage, "PR", "presentation state"),
    (uid.KeyObjectSelectionDocumentStorage, "KO", "key object"),
    (uid.RTDoseStorage, "RTDOSE", "dose"),
    (uid.RTPlanStorage, "RTPLAN", "plan"),
    (uid.SpatialRegistrationStorage, "REG", "registration"),
    (uid.EncapsulatedPDFStorage, "DOC", "document"),
    (uid.TwelveLeadECGWaveformStorage, "ECG", "waveform"),
]


@pytest.fixture
def make_object(new_slice, save_dicom, tmp_path):
    """Write a DICOM object that is no image."""

    def make(sop_class, modality, name):
        one = new_slice(0, np.zeros((4, 4), np.uint8), SOPClassUID=sop_class, Modality=modality)
        one.SeriesInstanceUID, one.SOPInstanceUID = "1.2.3", "1.2.4"
        return save_dicom(one, tmp_path / name)

    return make


def test_a_nested_folder_of_everything(slices, new_slice, voxels, write_series, make_object, tmp_path):
    write_series(slices, folder="p1/ct")
    mr = [
        new_slice(i, p, Modality="MR", SOPClassUID=uid.MRImageStorage, SeriesInstanceUID="1.2.9")
        for i, p in enumerate(voxels)
    ]
    write_series(mr, folder="p2/study/mr")
    make_object(uid.RTStructureSetStorage, "RTSTRUCT", "p1/rs.dcm")
    nib.save(nib.Nifti1Image(voxels, np.diag([1, 2, 3, 1])), tmp_path / "p2/scan.nii.gz")
    (tmp_path / "p2/readme.txt").write_text("hello")
    (tmp_path / "p2/nothing").touch()
    infos = {i.path.removeprefix(str(tmp_path) + "/"): i for i in describe(tmp_path)}
    assert {k: (i.kind, i.segmentable) for k, i in infos.items()} == {
        "p1/ct": ("CT series", True),
        "p1/rs.dcm": ("RTSTRUCT", False),
        "p2/study/mr": ("MR series", True),
        "p2/scan.nii.gz": ("NIfTI image", True),
        "p2/readme.txt": ("not an image", False),
        "p2/nothing": ("not an image", False),
    }
    ct = infos["p1/ct"]
    assert (ct.format, ct.modality, ct.shape, ct.orientation, ct.files) == ("DICOM", "CT", (1, 6, 5, 4), "S P L", 6)
    assert ct.spacing_mm == pytest.approx((2.5, 0.8, 0.5))
    assert ct.series_uid == str(slices[0].SeriesInstanceUID)
    assert ct.description == "abdomen"
    assert all((i.reason is None) == i.segmentable for i in infos.values())


@pytest.mark.parametrize(("sop_class", "modality", "words"), OBJECTS, ids=[f"{m}-{c[-6:]}" for c, m, _ in OBJECTS])
def test_objects_that_are_no_image(make_object, sop_class, modality, words):
    path = make_object(sop_class, modality, "object.dcm")
    (info,) = describe(path)
    assert info.kind == modality
    assert not info.segmentable
    assert words in info.reason
    with pytest.raises(ReadError, match=rf"object\.dcm is .*{words}"):
        read_volume(path)
    with pytest.raises(ReadError, match=rf"holds no scan.*{words}"):
        read_volume(path.parent)


def test_an_unheard_of_object_without_pixels(new_slice, save_dicom, slices, write_series):
    one = new_slice(0, np.zeros((2, 2), np.uint8), SOPClassUID=uid.MRSpectroscopyStorage, SOPInstanceUID="1.2.3")
    for keyword in ("Rows", "Columns", "PixelData"):
        delattr(one, keyword)
    folder = write_series(slices)
    save_dicom(one, folder / "spectrum.dcm")
    assert {i.kind for i in describe(folder)} == {"CT series", "OTHER"}
    assert read_volume(folder).array.shape == (1, 6, 5, 4)


def test_a_disc_with_a_table_of_contents(slices, voxels, tmp_path):
    disc = FileSet()
    for one in slices:
        one.PatientName, one.StudyID, one.SeriesNumber, one.StudyDate, one.StudyTime = "x", "1", 1, "20260101", "101010"
        disc.add(one)
    disc.write(tmp_path)
    kinds = {i.kind: i for i in describe(tmp_path)}
    assert set(kinds) == {"DICOMDIR", "CT series"}
    assert kinds["CT series"].files == 6
    np.testing.assert_array_equal(read_volume(tmp_path).array[0], voxels.astype(int) - 1024)
    np.testing.assert_array_equal(read_volume(tmp_path / "DICOMDIR").array[0], voxels.astype(int) - 1024)


def test_localizers_and_screenshots_say_so(new_slice, write_series):
    scout = new_slice(0, np.zeros((9, 9), np.uint16), ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    shot = new_slice(1, np.zeros((9, 9, 3), np.uint8), SOPClassUID=uid.SecondaryCaptureImageStorage, Modality="OT")
    shot.SeriesInstanceUID = "1.2.3"
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient"):
        delattr(shot, keyword)
    folder = write_series([scout, shot])
    infos = {i.kind: i for i in describe(folder)}
    assert set(infos) == {"CT localizer", "secondary capture"}
    assert not any(i.segmentable for i in infos.values())
    with pytest.raises(ReadError, match=r"holds no scan.*localizer.*screenshot"):
        read_volume(folder)


def test_a_series_with_a_gap_is_listed_with_its_reason(slices, write_series):
    del slices[2]
    (info,) = describe(write_series(slices))
    assert not info.segmentable
    assert info.shape is None
    assert "1 slice is missing" in info.reason


@pytest.mark.parametrize("compressed", [False, True])
def test_a_slice_cut_short_is_found_without_decoding(slices, write_series, compressed):
    if compressed:
        for one in slices:
            one.compress(uid.RLELossless)
    folder = write_series(slices)
    path = folder / "003.dcm"
    path.write_bytes(path.read_bytes()[:-10])
    (info,) = describe(folder)
    assert "003.dcm is cut short" in info.reason
    with pytest.raises(ReadError, match=r"003\.dcm is cut short"):
        read_volume(folder)


def test_a_slice_with_a_broken_header_stops_its_neighbours(slices, write_series):
    folder = write_series(slices)
    path = folder / "005.dcm"  # the last slice: without it the rest would look complete
    path.write_bytes(path.read_bytes()[:150])
    infos = {i.kind: i for i in describe(folder)}
    assert set(infos) == {"CT series", "damaged DICOM file"}
    assert "may be one of its slices cannot be read" in infos["CT series"].reason
    assert "005.dcm" in infos["CT series"].reason
    with pytest.raises(ReadError, match=r"005\.dcm"):
        read_volume(folder)


@pytest.mark.parametrize("lost", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"])
def test_a_series_that_lost_its_geometry(slices, write_series, lost):
    for one in slices:
        delattr(one, lost)
    folder = write_series(slices)
    (info,) = describe(folder)
    assert (info.kind, info.files, info.segmentable) == ("CT series", 6, False)
    with pytest.raises(ReadError, match=rf"do not tell where they lie.*{lost}"):
        read_volume(folder)
    spacing = read_volume(folder / "000.dcm").spacing_mm  # as a single picture it can be read
    assert spacing == (None if lost == "PixelSpacing" else pytest.approx((5.0, 0.8, 0.5)))


def test_what_macos_adds_to_archives_is_no_damaged_slice(slices, write_series):
    folder = write_series(slices)
    (folder / "._000.dcm").write_bytes(b"\0\x05\x16\x07" + bytes(100))
    assert {i.kind for i in describe(folder)} == {"CT series"}
    assert read_volume(folder).array.shape == (1, 6, 5, 4)


def test_tilt_and_obliqueness_are_told(slices, write_series):
    for one in slices:
        one.ImageOrientationPatient = [1, 0, 0, 0, 0.96, 0.28]
    (info,) = describe(write_series(slices))
    assert any("tilt of 16.26 degrees" in n for n in info.notes)
    assert any("oblique" in n for n in info.notes)


@pytest.mark.parametrize("read", [describe, read_volume])
def test_paths_that_hold_nothing(read, tmp_path):
    with pytest.raises(ReadError, match=r"nowhere does not exist"):
        read(tmp_path / "nowhere")
    (tmp_path / "empty" / "deeper").mkdir(parents=True)
    with pytest.raises(ReadError, match=r"empty is empty"):
        read(tmp_path / "empty")
    (tmp_path / "notes.txt").write_text("no scan")
    with pytest.raises(ReadError, match=r"holds no image that can be read: only notes\.txt"):
        read(tmp_path)
    with pytest.raises(ReadError, match=r"notes\.txt is of none of the formats"):
        read(tmp_path / "notes.txt")
    (tmp_path / "fake.dcm").write_text("no DICOM")
    with pytest.raises(ReadError, match=r"fake\.dcm"):
        read(tmp_path / "fake.dcm")


@pytest.mark.skipif(os.name == "nt", reason="pipes in the file system: not on Windows")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ReadError, match="neither a file nor a folder"):
        describe(tmp_path / "pipe")
    with pytest.raises(ReadError, match="is empty"):
        describe(tmp_path)


def test_describing_never_imports_torch(slices, write_series):
    code = "import sys, medmaskrcnn; medmaskrcnn.describe(sys.argv[1]); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code, str(write_series(slices))], check=False).returncode == 0
