"""The CT series of a phantom: valid DICOM, in the right place, read alike by programs that are not ours."""

from __future__ import annotations

import subprocess
from dataclasses import replace

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from medmaskrcnn.errors import OutputError
from medmaskrcnn.io.read import read_volume
from medmaskrcnn.structures.volume import PHANTOM_GENERATOR
from medmaskrcnn_datasets.dicom_series import write_dicom_series
from medmaskrcnn_datasets.phantom import PhantomSettings, make_phantom

DECIMAL_STRING = 1e-9
"""DICOM's decimal strings hold at least so much of a length in mm or a direction."""

OBLIQUE = PhantomSettings(
    seed=12, shape=(9, 40, 32), spacing_mm=(30.0, 9.0, 11.0), rotation_degrees=(7.0, -5.0, 3.3), orientation="SPL"
)


@pytest.fixture(scope="module")
def oblique():
    return make_phantom(OBLIQUE)


@pytest.fixture(scope="module")
def series(oblique, tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    return folder, write_dicom_series(oblique, folder)


def lps_of(dataset, row, column):
    """Position L, P, S of a pixel's centre: PS3.3 equation C.7.6.2.1-1."""
    x, y = np.array(dataset.ImageOrientationPatient[:3], float), np.array(dataset.ImageOrientationPatient[3:], float)
    down, right = (float(v) for v in dataset.PixelSpacing)
    return np.array(dataset.ImagePositionPatient, float) + x * right * column + y * down * row


def test_names_tell_nothing_of_the_order(series):
    folder, files = series
    names = [f.name for f in files]
    assert sorted(names) == [f"IM{n:04d}" for n in range(1, 10)]
    assert names != sorted(names)
    assert sorted(p.name for p in folder.iterdir()) == sorted(names)


def test_every_pixel_lies_where_the_phantom_has_it(series, oblique):
    grid = oblique.volume.grid
    for d, path in enumerate(series[1]):
        dataset = pydicom.dcmread(path)
        for row, column in [(0, 0), (39, 0), (0, 31), (17, 5)]:
            expected = grid.index_to_ras([d, row, column]) * [-1, -1, 1]
            assert lps_of(dataset, row, column) == pytest.approx(expected, abs=DECIMAL_STRING * 1e3)
        stored = dataset.pixel_array.astype(int) * int(dataset.RescaleSlope) + int(dataset.RescaleIntercept)
        assert np.array_equal(stored, oblique.volume.array[0, d])


def test_simpleitk_reads_the_same_scan(series, oblique):
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(series[0])))
    image = reader.Execute()
    assert np.array_equal(sitk.GetArrayFromImage(image), oblique.volume.array[0])
    for index in [(0, 0, 0), (31, 39, 8)]:
        expected = oblique.volume.grid.index_to_ras(index[::-1]) * [-1, -1, 1]
        assert image.TransformIndexToPhysicalPoint(index) == pytest.approx(expected, abs=1e-3)


def test_read_volume_gives_the_phantom_back(series, oblique):
    volume = read_volume(series[0])
    assert np.array_equal(volume.array, oblique.volume.array)
    assert volume.affine_vox_to_ras == pytest.approx(oblique.volume.affine_vox_to_ras, abs=1e-5)
    assert volume.modality == "CT"
    assert volume.provenance.generator == PHANTOM_GENERATOR


def test_read_volume_takes_the_gantry_tilt_into_the_affine(tmp_path):
    tilted = make_phantom(replace(OBLIQUE, rotation_degrees=(0.0, 0.0, 0.0), gantry_tilt_degrees=12.0, tumours=0))
    write_dicom_series(tilted, tmp_path / "tilted")
    volume = read_volume(tmp_path / "tilted")
    assert np.array_equal(volume.array, tilted.volume.array)
    assert volume.affine_vox_to_ras == pytest.approx(tilted.volume.affine_vox_to_ras, abs=1e-5)


@pytest.mark.needs("dciodvfy", package="dicom3tools")
def test_dciodvfy_finds_no_error(series):
    for path in series[1]:
        report = subprocess.run(["dciodvfy", "-new", str(path)], capture_output=True, text=True, check=False)
        said = report.stdout + report.stderr
        assert "CTImage" in said
        assert "Error" not in said, said


@pytest.mark.needs("dciodvfy", package="dicom3tools")
def test_dciodvfy_would_see_an_error(series, tmp_path):
    broken = pydicom.dcmread(series[1][0])
    del broken.FrameOfReferenceUID
    broken.save_as(tmp_path / "broken")
    report = subprocess.run(["dciodvfy", "-new", str(tmp_path / "broken")], capture_output=True, text=True, check=False)
    assert "Error" in report.stdout + report.stderr


def test_identity_and_uids(series):
    slices = [pydicom.dcmread(path) for path in series[1]]
    assert {str(s.PatientName) for s in slices} == {"PHANTOM^SEED0012"}
    assert {s.Manufacturer for s in slices} == {PHANTOM_GENERATOR}
    assert len({s.SOPInstanceUID for s in slices}) == len(slices)
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        assert len({s[keyword].value for s in slices}) == 1
    uids = {s[k].value for s in slices for k in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")}
    assert all(u.startswith("2.25.") and len(u) <= 64 and int(u[5:]) < 2**128 for u in uids)


def test_same_phantom_same_bytes_another_phantom_other_uids(series, oblique, tmp_path):
    again = write_dicom_series(oblique, tmp_path / "again")
    assert [p.read_bytes() for p in again] == [p.read_bytes() for p in series[1]]
    other = write_dicom_series(make_phantom(replace(OBLIQUE, seed=13)), tmp_path / "other")
    first, second = pydicom.dcmread(series[1][0]), pydicom.dcmread(other[0])
    assert first.StudyInstanceUID != second.StudyInstanceUID
    assert first.SOPInstanceUID != second.SOPInstanceUID


def test_progress_counts_the_slices(tiny_phantom, tmp_path):
    seen = []
    write_dicom_series(tiny_phantom, tmp_path / "series", progress=lambda done, total: seen.append((done, total)))
    assert seen == [(n, 18) for n in range(1, 19)]


def test_folder_that_is_a_file(tiny_phantom, tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(OutputError, match="taken"):
        write_dicom_series(tiny_phantom, tmp_path / "taken")
