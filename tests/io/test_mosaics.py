"""Siemens mosaics: unfolded where their geometry is whole, as dcm2niix does, else refused."""

from __future__ import annotations

import math
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from pydicom import uid
from pydicom.dataset import Dataset

from medmaskrcnn.errors import ReadError
from medmaskrcnn.io.discover import describe
from medmaskrcnn.io.read import read_volume

STEP, SPACING = 3.3, (1.5, 1.25)
POSITION_TOLERANCE_MM = 0.01


def csa_header(**values: Any) -> bytes:
    """Siemens' CSA header of version 2: each name with its texts (nibabel's documentation, "Siemens CSA header")."""
    out = b"SV10\4\3\2\1" + struct.pack("<2I", len(values), 77)
    for name, value in values.items():
        texts = [str(v) for v in np.atleast_1d(value)]
        head = struct.pack("<64si4s3i", name.encode(), len(texts), b"DS\0\0", 3, max(6, len(texts)), 77)
        items = b""
        for text in texts + [""] * (max(6, len(texts)) - len(texts)):
            raw = text.encode() + b"\0" if text else b""
            items += struct.pack("<4i", len(raw), len(raw), 77, len(raw)) + raw + b"\0" * (-len(raw) % 4)
        out += head + items
    return out


def mosaic(new_slice, planes: np.ndarray, *, turned: bool = False, reverse: bool = False, number: int = 0) -> Dataset:
    """A mosaic of ``(N, H, W)`` planes whose first slice begins at (-20, -30, 40) mm."""
    n, rows, columns = planes.shape
    side = math.ceil(math.sqrt(n))
    picture = np.zeros((side, side, rows, columns), planes.dtype)
    picture.reshape(-1, rows, columns)[:n] = planes
    along = np.array([1.0, 0, 0]), np.array([0, np.cos(0.3), np.sin(0.3)]) if turned else np.array([0.0, 1, 0])
    normal = np.cross(*along) * (-1 if reverse else 1)
    across, down = (side - 1) * columns / 2, (side - 1) * rows / 2
    corner = np.array([-20.0, -30, 40]) - along[0] * across * SPACING[1] - along[1] * down * SPACING[0]
    one = new_slice(
        number, picture.swapaxes(1, 2).reshape(side * rows, side * columns), Modality="MR",
        SOPClassUID=uid.MRImageStorage, Manufacturer="SIEMENS", RescaleSlope=None, RescaleIntercept=None,
        ImageType=["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"], SliceThickness=3.0,
        ImagePositionPatient=[round(float(v), 6) for v in corner],
        ImageOrientationPatient=[round(float(v), 10) for v in np.concatenate(along)], PixelSpacing=list(SPACING),
    )  # fmt: skip
    one.SpacingBetweenSlices, one.AcquisitionNumber, one.EchoTime, one.RepetitionTime = STEP, number + 1, 30, 2000
    one.AcquisitionTime = one.ContentTime = f"12{number:02d}00.00"
    one.AcquisitionDate = one.SeriesDate = one.StudyDate = "20200101"
    one.SeriesNumber, one.MagneticFieldStrength, one.MRAcquisitionType = 5, 3, "2D"
    one.ScanningSequence, one.SequenceVariant, one.ScanOptions = "EP", "SK", "FS"
    block = one.private_block(0x0029, "SIEMENS CSA HEADER", create=True)
    csa = csa_header(
        NumberOfImagesInMosaic=n, SliceNormalVector=[f"{v:.8f}" for v in normal], B_value=0,
        ProtocolSliceNumber=0, MosaicRefAcqTimes=[f"{100.0 * i:.1f}" for i in range(n)],
    )  # fmt: skip
    block.add_new(0x08, "CS", "IMAGE NUM 4")
    block.add_new(0x10, "OB", csa + b"\0" * (len(csa) % 2))
    return one


@pytest.fixture
def planes() -> np.ndarray:
    """``(7, 16, 20)`` values, all different."""
    return np.arange(7 * 16 * 20, dtype=np.uint16).reshape(7, 16, 20)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_a_mosaic_by_hand(new_slice, save_dicom, tmp_path, planes, turned, reverse):
    path = save_dicom(mosaic(new_slice, planes, turned=turned, reverse=reverse), tmp_path / "a.dcm")
    (info,) = describe(path)
    assert (info.shape, info.segmentable) == ((1, 7, 16, 20), True)
    volume = read_volume(path)
    assert volume.spacing_mm == pytest.approx((STEP, *SPACING))
    first = 6 if reverse else 0  # slices are sorted along the right-handed normal
    np.testing.assert_array_equal(volume.array[0, first], planes[0])
    np.testing.assert_allclose(volume.grid.index_to_ras([first, 0, 0]), [20, 30, 40], atol=1e-4)


@pytest.mark.needs("dcm2niix", package="dcm2niix")
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("n", [4, 7, 9])
def test_dcm2niix_agrees(new_slice, save_dicom, tmp_path, turned, reverse, n):
    planes = np.random.default_rng(n).integers(0, 4000, (n, 16, 16)).astype(np.uint16)
    path = save_dicom(mosaic(new_slice, planes, turned=turned, reverse=reverse), tmp_path / "in" / "a.dcm")
    (tmp_path / "out").mkdir()
    command = [str(shutil.which("dcm2niix")), "-b", "n", "-f", "x", "-o", str(tmp_path / "out"), str(path.parent)]
    subprocess.run(command, check=True, capture_output=True)
    (file,) = (tmp_path / "out").glob("*.nii")
    image, volume = nib.load(file), read_volume(path)
    theirs = np.asarray(image.dataobj)
    index = np.array(list(np.ndindex(theirs.shape)))
    world = index @ image.affine[:3, :3].T + image.affine[:3, 3]
    ours = volume.grid.ras_to_coordinate(world) - 0.5
    assert np.abs(ours - np.round(ours)).max() * min(volume.spacing_mm) < POSITION_TOLERANCE_MM * 10
    np.testing.assert_array_equal(volume.array[0][tuple(np.round(ours).astype(int).T)], theirs.ravel())


def test_times_are_volumes_of_their_own(new_slice, write_series, planes):
    folder = write_series([mosaic(new_slice, planes + i, number=i) for i in range(3)])
    infos = describe(folder)
    assert [info.shape for info in infos] == [(1, 7, 16, 20)] * 3
    np.testing.assert_array_equal(read_volume(folder, series="2").array[0], planes + 1)


@pytest.mark.parametrize("syntax", [uid.RLELossless, uid.JPEGLSLossless])
def test_a_compressed_mosaic(new_slice, save_dicom, tmp_path, planes, syntax):
    one = mosaic(new_slice, planes)
    one.compress(syntax)
    np.testing.assert_array_equal(read_volume(save_dicom(one, tmp_path / "a.dcm")).array[0], planes)


@pytest.mark.parametrize("lost", ["csa", "SpacingBetweenSlices", "normal", "count"])
def test_a_mosaic_whose_geometry_is_not_whole_is_refused(new_slice, save_dicom, tmp_path, planes, lost):
    one = mosaic(new_slice, planes)
    if lost == "SpacingBetweenSlices":
        del one.SpacingBetweenSlices
    else:
        kept = {"csa": {"B_value": 0}, "normal": {"NumberOfImagesInMosaic": 7},
                "count": {"SliceNormalVector": [0, 0, 1]}}[lost]  # fmt: skip
        one.private_block(0x0029, "SIEMENS CSA HEADER")[0x10].value = csa_header(**kept)
    path = save_dicom(one, tmp_path / "a.dcm")
    assert not describe(path)[0].segmentable
    with pytest.raises(ReadError, match="mosaic"):
        read_volume(path)


def test_a_damaged_csa_header_is_no_crash(new_slice, save_dicom, tmp_path, planes):
    for seed in range(20):
        one = mosaic(new_slice, planes)
        element = one.private_block(0x0029, "SIEMENS CSA HEADER")[0x10]
        damaged = np.frombuffer(element.value, np.uint8).copy()
        random = np.random.default_rng(seed)
        damaged[random.integers(0, len(damaged), 30)] = random.integers(0, 256, 30)
        element.value = damaged.tobytes()
        path: Path = save_dicom(one, tmp_path / f"{seed}.dcm")
        try:
            read_volume(path)
        except ReadError as error:
            assert path.name in str(error)
