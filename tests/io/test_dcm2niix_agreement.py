"""An independent judge of geometry: dcm2niix puts every voxel where we put it, or we refuse with the true reason.

Single voxels are compared by the world positions of the grid's corners, so that order and direction of axes are free.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from itertools import product
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.fileset import FileSet

from medmaskrcnn.errors import MedMaskRCNNError, ReadError
from medmaskrcnn.io.discover import find_scans
from medmaskrcnn.io.read import read_volume
from medmaskrcnn.structures.volume import Volume

WORLD_TOLERANCE_MM = 1e-3
"""Positions in DICOM are text and affines in NIfTI float32."""

SHAPE = (8, 16, 12)
PROGRAM = Path(sys.executable).with_name("dcm2niix")


def converted(source: Path, out: Path) -> list[nib.Nifti1Image]:
    """What dcm2niix makes of a folder, in one orientation; its own resampled copies left out."""
    out.mkdir()
    command = [str(PROGRAM), "-b", "n", "-z", "n", "-f", "out_%s", "-o", str(out), str(source)]
    subprocess.run(command, capture_output=True, check=False, timeout=120)
    paths = [p for p in sorted(out.glob("*.nii")) if "_Eq" not in p.stem and "_Tilt" not in p.stem]
    return [nib.as_closest_canonical(nib.load(p)) for p in paths]


def canonical(volume: Volume) -> nib.Nifti1Image:
    return nib.as_closest_canonical(nib.Nifti1Image(volume.array[0].T, volume.affine_vox_to_ras[:, [2, 1, 0, 3]]))


def corners(image: nib.Nifti1Image) -> np.ndarray:
    last = np.array([n - 1 for n in image.shape[:3]])
    return nib.affines.apply_affine(image.affine, np.array(list(product((0, 1), repeat=3))) * last)


def agrees(ours: nib.Nifti1Image, theirs: nib.Nifti1Image) -> bool:
    same = ours.shape == theirs.shape[:3]
    return same and bool(np.abs(corners(ours) - corners(theirs)).max() < WORLD_TOLERANCE_MM)


def assert_all_agree(volumes: list[Volume], theirs: list[nib.Nifti1Image], *, voxels: bool = True) -> None:
    assert theirs, "dcm2niix made nothing"
    for volume in volumes:
        ours = canonical(volume)
        there = [t for t in theirs if agrees(ours, t)]
        assert there, f"{ours.shape} {ours.affine.tolist()} is none of {[(t.shape, t.affine.tolist()) for t in theirs]}"
        if voxels:
            assert any(
                np.allclose(np.asarray(ours.dataobj), plane, rtol=1e-5)
                for t in there
                for plane in np.moveaxis(t.get_fdata().reshape(*t.shape[:3], -1), -1, 0)
            )


@pytest.fixture
def block() -> np.ndarray:
    rng = np.random.default_rng(1)
    return rng.integers(0, 2000, SHAPE).astype(np.int16)


@pytest.fixture
def mr(new_slice, block):
    """MR slices along any orientation and step, with attributes that may depend on the slice's number."""

    def make(
        orientation=(1, 0, 0, 0, 1, 0), step=None, pixels=None, first=(-31.5, 17.25, -40.125), start=0, **each
    ) -> list[Dataset]:
        stored = block if pixels is None else pixels
        normal = np.cross(orientation[:3], orientation[3:])
        step = normal * 3.25 if step is None else np.asarray(step)
        made = []
        for i, plane in enumerate(stored):
            place = np.asarray(first) + i * step
            overrides = {k: v(i) if callable(v) else v for k, v in each.items()}
            made.append(
                new_slice(
                    start + i,
                    plane,
                    Modality="MR",
                    SOPClassUID=uid.MRImageStorage,
                    SOPInstanceUID=f"1.2.3.{start + i + 1}",
                    ImageOrientationPatient=[f"{v:.8g}" for v in orientation],
                    ImagePositionPatient=[f"{v:.8g}" for v in place],
                    RescaleIntercept=0,
                    SliceThickness=3.0,
                    SeriesNumber=4,
                    AcquisitionNumber=1,
                    StudyDate="20260101",
                    StudyTime="101010",
                    **overrides,
                )
            )
        return made

    return make


def turned(angles_deg: tuple[float, float]) -> list[float]:
    a, b = np.radians(angles_deg)
    row = np.array([np.cos(a), np.sin(a), 0])
    column = np.cross([np.sin(a) * np.sin(b), -np.cos(a) * np.sin(b), np.cos(b)], row)
    return [*row, *column]


def multi_frame(one: Dataset, block: np.ndarray, order: list[int]) -> Dataset:
    """One slice's header as an enhanced object with a frame for each plane of the block, in any order."""

    def sequence(**values: object) -> list[Dataset]:
        item = Dataset()
        for keyword, value in values.items():
            setattr(item, keyword, value)
        return [item]

    one.SOPClassUID, one.NumberOfFrames, one.PixelData = uid.EnhancedMRImageStorage, len(block), block[order].tobytes()
    x, y, z = (float(v) for v in one.ImagePositionPatient)
    shared = Dataset()
    shared.PixelMeasuresSequence = sequence(PixelSpacing=[0.8, 0.5], SliceThickness=3.0)
    shared.PlaneOrientationSequence = sequence(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    shared.PixelValueTransformationSequence = sequence(RescaleSlope=1, RescaleIntercept=0, RescaleType="US")
    one.SharedFunctionalGroupsSequence = [shared]
    frames = []
    for k in order:
        frame = Dataset()
        frame.PlanePositionSequence = sequence(ImagePositionPatient=[x, y, f"{z + 3.25 * k:.6g}"])
        frame.FrameContentSequence = sequence(DimensionIndexValues=[1, k + 1], StackID="1", InStackPositionNumber=k + 1)
        frames.append(frame)
    one.PerFrameFunctionalGroupsSequence = frames
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
        delattr(one, keyword)
    return one


CASES = {
    "axial": {},
    "feet first, falling": {"step": (0, 0, -3.25)},
    "sagittal": {"orientation": (0, 1, 0, 0, 0, -1)},
    "coronal": {"orientation": (1, 0, 0, 0, 0, -1)},
    "oblique": {"orientation": turned((20, 35))},
    "decubitus, lying on the right": {"orientation": (0, -1, 0, 1, 0, 0)},
    "prone": {"orientation": (-1, 0, 0, 0, -1, 0)},
    "twelve bits": {"BitsStored": 12, "HighBit": 11, "PixelRepresentation": 0},
    "a slope that varies": {"RescaleSlope": lambda i: 0.5 + 0.25 * i},
}


@pytest.mark.parametrize("name", list(CASES))
def test_series_made_by_hand(mr, write_series, tmp_path, name):
    folder = write_series(mr(**CASES[name]))
    (found,) = find_scans(folder)
    assert_all_agree([found.read()], converted(folder, tmp_path / "out"))


def test_file_names_say_nothing(mr, write_series, tmp_path):
    folder = write_series(mr(), names=["z", "IM.0.1", "0009", "a b.txt", "b", "x.jpg", "1.2.840", "ümlaut"])
    (found,) = find_scans(folder)
    assert_all_agree([found.read()], converted(folder, tmp_path / "out"))


def test_two_orientations_in_one_series(mr, write_series, tmp_path, block):
    other = mr(orientation=(0, 1, 0, 0, 0, -1), start=8, pixels=block + 1)
    folder = write_series([*mr(), *other])
    volumes = [found.read() for found in find_scans(folder)]
    assert len(volumes) == 2
    assert_all_agree(volumes, converted(folder, tmp_path / "out"))


@pytest.mark.parametrize(
    "different",
    [
        {"EchoTime": (4.6, 9.2), "EchoNumbers": (1, 2)},
        {"TemporalPositionIdentifier": (1, 2), "AcquisitionTime": ("101010", "101020")},
        {"DiffusionBValue": (0.0, 800.0), "AcquisitionTime": ("101010", "101020")},
        {"ImageType": (["ORIGINAL", "PRIMARY", "M"], ["ORIGINAL", "PRIMARY", "P"])},
    ],
    ids=lambda d: next(iter(d)),
)
def test_echoes_times_and_phases_are_volumes_of_their_own(mr, write_series, tmp_path, block, different):
    parts = [mr(start=8 * n, pixels=block + 3000 * n, **{k: v[n] for k, v in different.items()}) for n in (0, 1)]
    folder = write_series([one for pair in zip(*parts, strict=True) for one in pair])  # interleaved
    volumes = [found.read() for found in find_scans(folder)]
    assert len(volumes) == 2
    assert [int(v.array.max()) // 3000 for v in volumes] == [0, 1]
    assert next(iter(different)) in volumes[0].provenance.policy.separated_by or "EchoTime" in different
    assert_all_agree(volumes, converted(folder, tmp_path / "out"), voxels=False)


@pytest.mark.parametrize("order", [list(range(8)), [3, 0, 7, 1, 6, 2, 5, 4]], ids=["in order", "shuffled"])
def test_multi_frame(mr, block, save_dicom, tmp_path, order):
    path = save_dicom(multi_frame(mr()[0], block, order), tmp_path / "series" / "enhanced.dcm")
    (found,) = find_scans(path)
    np.testing.assert_array_equal(found.read().array[0], block)
    assert_all_agree([found.read()], converted(path.parent, tmp_path / "out"))


def test_a_disc_with_dicomdir(mr, tmp_path):
    disc = FileSet()
    for one in mr():
        one.PatientName, one.StudyID = "x", "1"
        disc.add(one)
    disc.write(tmp_path / "disc")
    (found,) = find_scans(tmp_path / "disc" / "DICOMDIR")
    assert_all_agree([found.read()], converted(tmp_path / "disc", tmp_path / "out"))


def test_a_folder_of_everything(mr, new_slice, write_series, save_dicom, tmp_path, block):
    series = {
        "1.2.9.1": mr(SeriesInstanceUID="1.2.9.1"),
        "1.2.9.2": mr(SeriesInstanceUID="1.2.9.2", orientation=turned((10, -25)), pixels=block[:5] // 2),
    }
    folder = write_series([one for s in series.values() for one in s])
    report = new_slice(0, block[0], SOPClassUID=uid.BasicTextSRStorage, Modality="SR", SeriesInstanceUID="1.2.9.3")
    del report.PixelData, report.Rows, report.Columns
    save_dicom(report, folder / "report")
    for name, content in (("notes.txt", b"read me"), ("thumbs.db", b"\0" * 700), ("empty", b"")):
        (folder / name).write_bytes(content)
    scans = [found for found in find_scans(folder) if found.role == "scan"]
    assert {s.info.series_uid for s in scans} == set(series)
    assert_all_agree([s.read() for s in scans], converted(folder, tmp_path / "out"))


def test_gantry_tilt(mr, write_series, tmp_path):
    """NIfTI from dcm2niix holds no shear: the first slice and the distances agree, and so does its corrected copy."""
    rows, columns = np.mgrid[:16, :12]
    ramp = np.stack([1000 + 30 * rows + 20 * columns + 50 * d for d in range(8)]).astype(np.int16)
    tilt = np.radians(15)
    slices = mr(orientation=(1, 0, 0, 0, np.cos(tilt), -np.sin(tilt)), step=(0, 0, 3.25), pixels=ramp)
    for one in slices:
        one.Modality, one.SOPClassUID, one.GantryDetectorTilt = "CT", uid.CTImageStorage, 15.0
    folder = write_series(slices)
    (found,) = find_scans(folder)
    volume = found.read()
    assert volume.provenance.policy.tilt_deg == pytest.approx(15)
    np.testing.assert_array_equal(volume.array[0], ramp)
    (uncorrected,) = converted(folder, tmp_path / "out")
    ours, theirs = canonical(volume), uncorrected
    np.testing.assert_allclose(corners(ours)[::2], corners(theirs)[::2], atol=WORLD_TOLERANCE_MM)
    step = ours.affine[:3, 2] @ np.cross(ours.affine[:3, 0], ours.affine[:3, 1]) / (0.5 * 0.8)
    assert step == pytest.approx(np.linalg.norm(theirs.affine[:3, 2]), abs=WORLD_TOLERANCE_MM)
    corrected = nib.load(next((tmp_path / "out").glob("*_Tilt*.nii")))
    values = corrected.get_fdata()
    world = nib.affines.apply_affine(corrected.affine, np.argwhere(values > 0))
    index = volume.grid.ras_to_coordinate(world) - 0.5
    inside = ((index >= 0) & (index <= np.array(ramp.shape) - 1)).all(axis=1)
    assert inside.sum() > 0.8 * ramp.size
    np.testing.assert_allclose(index[inside] @ [50, 30, 20] + 1000, values[values > 0][inside], atol=2)


IRREGULAR = {
    "missing": "1 slice is missing.*-33.62 mm.*-27.12 mm",
    "doubled": "doubled slice: .* lie at the same position -33.62 mm",
    "uneven": "unevenly spaced .usual step 3.25 mm.: 4.3[78] mm",
}


@pytest.mark.parametrize("name", list(IRREGULAR))
def test_irregular_series_are_refused_and_resampled_only_when_asked(mr, write_series, tmp_path, name):
    ramp = np.stack([np.full(SHAPE[1:], 100 * d) for d in range(8)]).astype(np.int16)
    whole = mr(pixels=ramp)
    slices = {
        "missing": whole[:3] + whole[4:],
        "doubled": whole + mr(pixels=ramp + 1, start=20)[2:3],
        "uneven": whole[:4] + mr(pixels=ramp, first=(-31.5, 17.25, -39.0))[4:],
    }[name]
    folder = write_series(slices)
    with pytest.raises(ReadError, match=f"{IRREGULAR[name]}.*resample_irregular=True"):
        read_volume(folder)
    volume = read_volume(folder, resample_irregular=True)
    assert volume.provenance.policy.resampled
    assert any("resampled to 8 even ones" in note for note in volume.provenance.notes)
    z = volume.grid.index_to_ras([[d, 0, 0] for d in range(8)])[:, 2]
    known = sorted((float(s.ImagePositionPatient[2]), int(s.pixel_array[0, 0])) for s in slices[:8])
    expected = np.interp(z, *zip(*known, strict=True))
    np.testing.assert_allclose(volume.array[0, :, 3, 3], expected, atol=0.5 + 1e-6)
    assert (z[0], z[-1]) == pytest.approx((known[0][0], known[-1][0]))
    assert volume.array.dtype == np.int16


def test_images_that_come_with_pydicom(tmp_path):
    """Each single file with a place in the patient; others may have a scale that dcm2niix ignores."""
    root = Path(pydicom.__file__).parent / "data" / "test_files"
    compared = 0
    for number, path in enumerate(sorted(p for p in root.rglob("*") if p.is_file() and p.name != "DICOMDIR")):
        try:
            volumes = [f.read() for f in find_scans(path) if f.role in ("scan", "excluded") and f.info.orientation]
        except MedMaskRCNNError:
            continue  # text files, objects without pixels, files that are damaged on purpose
        for volume in volumes:
            (tmp_path / f"in{number}").mkdir()
            shutil.copy(path, tmp_path / f"in{number}")
            theirs = converted(tmp_path / f"in{number}", tmp_path / f"out{number}")
            assert_all_agree([volume], theirs, voxels=False)
            compared += 1
    assert compared >= 30
