"""What headers tell apart becomes volumes of their own; what nothing explains is refused; what is no volume says so."""

from __future__ import annotations

import zipfile
from itertools import product

import numpy as np
import pytest
from pydicom import uid
from pydicom.dataset import Dataset

from medmaskrcnn.errors import AmbiguousInputError, ReadError
from medmaskrcnn.io.discover import describe, find_scans
from medmaskrcnn.io.read import read_volume


def names(folder) -> list[str]:
    return [found.read().provenance.policy.separated_by for found in find_scans(folder) if found.role == "scan"]


def test_two_attributes_at_once(new_slice, voxels, write_series):
    """Two echoes, each as magnitude and phase."""
    made = [
        new_slice(i, p, SOPInstanceUID=f"1.2.{n}", EchoTime=echo, ImageType=["ORIGINAL", "PRIMARY", kind])
        for n, (i, echo, kind) in enumerate(product(range(6), (4.6, 9.2), ("M", "P")))
        for p in [voxels[i] + n % 4]
    ]
    assert names(write_series(made)) == [
        f"EchoTime {echo}, ImageType ORIGINAL\\PRIMARY\\{kind}" for echo, kind in product((4.6, 9.2), "MP")
    ]


def test_b_values_with_directions(new_slice, voxels, write_series):
    """One volume of b = 0 and two directions of b = 800."""
    parts = [(0.0, None), (800.0, [1.0, 0.0, 0.0]), (800.0, [0.0, 1.0, 0.0])]
    made = [
        new_slice(i, voxels[i] + n, SOPInstanceUID=f"1.2.{n}.{i}", DiffusionBValue=b, DiffusionGradientOrientation=g)
        if g
        else new_slice(i, voxels[i], SOPInstanceUID=f"1.2.{n}.{i}", DiffusionBValue=b)
        for n, (b, g) in enumerate(parts)
        for i in range(6)
    ]
    found = names(write_series(made))
    assert len(found) == 3
    assert found[0] == "DiffusionBValue 0"
    assert all(name.startswith("DiffusionBValue 800, DiffusionGradientOrientation") for name in found[1:])


def test_times_that_only_instance_numbers_tell(new_slice, voxels, write_series):
    made = [
        new_slice(i, voxels[i] + 5 * t, SOPInstanceUID=f"1.2.{t}.{i}", InstanceNumber=6 * t + i + 1)
        for t in range(3)
        for i in range(6)
    ]
    folder = write_series(made)
    assert names(folder) == ["repetition 1", "repetition 2", "repetition 3"]
    np.testing.assert_array_equal(read_volume(folder, series="3").array[0], voxels.astype(int) + 10 - 1024)
    for one in made:  # each slice at all times before the next: the same volumes
        t, i = divmod(int(one.InstanceNumber) - 1, 6)
        one.InstanceNumber = 3 * i + t + 1
    folder = write_series(made, folder="slice by slice")
    np.testing.assert_array_equal(read_volume(folder, series="2").array[0], voxels.astype(int) + 5 - 1024)
    for one in made:
        one.InstanceNumber = 1
    with pytest.raises(ReadError, match="doubled slice"):
        read_volume(write_series(made, folder="unexplained"))


def test_a_slice_missing_from_one_echo_stops_that_echo_alone(new_slice, voxels, write_series):
    made = [
        new_slice(i, voxels[i], SOPInstanceUID=f"1.2.{e}.{i}", EchoTime=float(e))
        for e in (1, 2)
        for i in range(6)
        if (e, i) != (2, 3)
    ]
    first, second = find_scans(write_series(made))
    np.testing.assert_array_equal(first.read().array[0], voxels.astype(int) - 1024)
    with pytest.raises(ReadError, match="1 slice is missing"):
        second.read()


def test_a_moved_table_makes_stations(slices, new_slice, voxels, write_series):
    moved = [new_slice(6 + i, p) for i, p in enumerate(voxels)]
    for one in moved:
        one.ImagePositionPatient = [-10.0, -35.0, float(one.ImagePositionPatient[2])]
    folder = write_series(slices + moved)
    assert names(folder) == ["station 1", "station 2"]
    second = read_volume(folder, series="2")
    np.testing.assert_allclose(second.grid.index_to_ras([0, 0, 0]), [10, 35, 45])
    assert any("several volumes" in note for note in second.provenance.notes)


def test_stacks_of_an_enhanced_object_are_volumes(new_slice, voxels, write_series):
    """Two stacks, one above the other with a gap that is no missing slice."""
    one = new_slice(0, voxels[0], SOPClassUID=uid.EnhancedMRImageStorage, Modality="MR", NumberOfFrames=6)
    one.PixelData = voxels.tobytes()
    one.PerFrameFunctionalGroupsSequence = []
    for i, z in enumerate((0.0, 3.0, 6.0, 40.0, 43.0, 46.0)):
        frame, place, content = Dataset(), Dataset(), Dataset()
        place.ImagePositionPatient, content.StackID = [-10.0, -20.0, z], str(1 + i // 3)
        frame.PlanePositionSequence, frame.FrameContentSequence = [place], [content]
        one.PerFrameFunctionalGroupsSequence.append(frame)
    del one.ImagePositionPatient
    folder = write_series([one])
    assert names(folder) == ["StackID 1", "StackID 2"]
    np.testing.assert_allclose(read_volume(folder, series="2").grid.index_to_ras([0, 0, 0]), [10, 20, 40])


def test_positions_with_one_decimal_are_even(new_slice, voxels, write_series):
    """Steps of 0.625 mm written as 0.6 and 0.7."""
    made = [new_slice(i, p) for i, p in enumerate(voxels)]
    for i, one in enumerate(made):
        one.ImagePositionPatient = [-10.0, -20.0, round(0.625 * i, 1)]
    volume = read_volume(write_series(made))
    assert volume.spacing_mm[0] == pytest.approx(3.1 / 5)
    assert any("vary by up to" in note for note in volume.provenance.notes)


def test_several_volumes_are_listed_by_what_tells_them_apart(new_slice, voxels, write_series):
    made = [
        new_slice(i, voxels[i], SOPInstanceUID=f"1.2.{e}.{i}", EchoTime=float(e)) for e in (30, 4) for i in range(6)
    ]
    with pytest.raises(AmbiguousInputError, match=r"1\..*\(EchoTime 4\).*\n  2\..*\(EchoTime 30\)"):
        read_volume(write_series(made))


@pytest.mark.parametrize("kind", ["image type", "siemens", "uih"])
def test_mosaics_are_refused(new_slice, voxels, write_series, kind):
    one = new_slice(0, voxels[0], Modality="MR", Manufacturer=f"{kind.upper()} Healthcare")
    if kind == "siemens":
        one.private_block(0x0019, "SIEMENS MR HEADER", create=True).add_new(0x0A, "US", 36)
    elif kind == "uih":
        one.private_block(0x0065, "Image Private Header", create=True).add_new(0x50, "DS", "25")
    else:
        one.ImageType = ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]
    with pytest.raises(ReadError, match="a mosaic: many slices tiled into one picture"):
        read_volume(write_series([one]))


def test_saved_screens_are_set_aside(slices, new_slice, write_series):
    screen = new_slice(0, np.zeros((50, 60), np.uint16), SOPInstanceUID="1.2.8", SeriesInstanceUID="1.2.9")
    screen.ImageType = ["DERIVED", "SECONDARY", "SCREEN SAVE"]
    folder = write_series([*slices, screen])
    assert read_volume(folder).grid.shape == (6, 5, 4)
    (info,) = [i for i in describe(folder) if not i.segmentable]
    assert "screenshot" in info.reason


def test_an_archive_is_a_folder(slices, voxels, write_series, tmp_path):
    folder = write_series(slices)
    with zipfile.ZipFile(tmp_path / "study.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in folder.iterdir():
            archive.write(path, f"a b/{path.name}")
        archive.writestr("a b/README", "nothing")
    volume = read_volume(tmp_path / "study.zip")
    np.testing.assert_array_equal(volume.array[0], voxels.astype(int) - 1024)
    infos = {i.kind: i for i in describe(tmp_path / "study.zip")}
    assert infos["CT series"].path.startswith(str(tmp_path / "study.zip"))
    assert set(infos) == {"CT series", "not an image"}


def test_what_reading_did_stands_in_the_policy(slices, write_series, tmp_path):
    policy = read_volume(write_series(slices)).provenance.policy
    assert (policy.order, policy.step_from, policy.values) == ("by position", "positions", "rescaled")
    assert not policy.resampled
    again = write_series([*slices, slices[2]], folder="copy")
    assert read_volume(again).provenance.policy.slices_left_out == 1
    single = read_volume(again / "000.dcm").provenance.policy
    assert (single.order, single.step_from) == ("as stored", "header")


@pytest.fixture
def pet(new_slice, voxels):
    """PET slices of 70 kg and 350 MBq, injected 110 min (one half-life of F-18) before the scan."""
    tracer = Dataset()
    tracer.RadiopharmaceuticalStartTime, tracer.RadionuclideTotalDose = "081000", 350e6
    tracer.RadionuclideHalfLife = 6600.0
    return [
        new_slice(
            i,
            p,
            Modality="PT",
            SOPClassUID=uid.PositronEmissionTomographyImageStorage,
            RescaleSlope=0.5,
            RescaleIntercept=0,
            Units="BQML",
            DecayCorrection="START",
            CorrectedImage=["DECY", "ATTN"],
            PatientWeight=70.0,
            SeriesDate="20260101",
            SeriesTime="100000",
            AcquisitionDate="20260101",
            AcquisitionTime="100100",
            RadiopharmaceuticalInformationSequence=[tracer],
        )
        for i, p in enumerate(voxels)
    ]


def test_suv_by_hand(pet, voxels, write_series):
    folder = write_series(pet)
    plain = read_volume(folder)
    np.testing.assert_allclose(plain.array[0], voxels * 0.5)
    assert plain.provenance.policy.values == "rescaled"
    suv = read_volume(folder, suv=True)
    # 70,000 g over 350 MBq, halved in one half-life: 0.0004 a Bq/mL
    np.testing.assert_allclose(suv.array[0], voxels * 0.5 * 0.0004, rtol=1e-5)
    assert suv.provenance.policy.values == "SUV body weight"
    assert any("g/mL" in note for note in suv.provenance.notes)


def test_suv_at_the_time_of_injection_and_in_grams(pet, voxels, write_series):
    for one in pet:
        one.DecayCorrection = "ADMIN"
    np.testing.assert_allclose(read_volume(write_series(pet), suv=True).array[0], voxels * 0.5 * 0.0002, rtol=1e-5)
    for one in pet:
        one.Units = "GML"
    np.testing.assert_allclose(read_volume(write_series(pet), suv=True).array[0], voxels * 0.5, rtol=1e-5)


@pytest.mark.parametrize(
    ("keyword", "value", "words"),
    [
        ("PatientWeight", None, "lacks PatientWeight"),
        ("Units", "PROPCPS", "values are in PROPCPS"),
        ("CorrectedImage", ["DECY"], "not corrected for attenuation"),
        ("DecayCorrection", "NONE", "DecayCorrection 'NONE'"),
        ("RadiopharmaceuticalInformationSequence", None, "lacks RadiopharmaceuticalInformationSequence"),
        ("SeriesDate", "20300101", "Read"),
    ],
)
def test_suv_is_refused_never_guessed(pet, write_series, keyword, value, words):
    for one in pet:
        if value is None:
            delattr(one, keyword)
        else:
            setattr(one, keyword, value)
    folder = write_series(pet)
    if keyword == "SeriesDate":  # a series made later by processing: the acquisition's time counts
        assert read_volume(folder, suv=True).provenance.policy.values == "SUV body weight"
        return
    with pytest.raises(ReadError, match=words):
        read_volume(folder, suv=True)
    assert read_volume(folder).modality == "PT"


def test_suv_leaves_other_modalities_alone(slices, voxels, write_series):
    volume = read_volume(write_series(slices), suv=True)
    np.testing.assert_array_equal(volume.array[0], voxels.astype(int) - 1024)
