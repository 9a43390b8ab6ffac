"""Label map, table and JSON: what a reader other than us makes of them."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from medmaskrcnn.export.nifti import write_label_map, write_nifti
from medmaskrcnn.export.write import write_result
from medmaskrcnn.io.read import read_volume
from medmaskrcnn.report.instance_table import write_table
from medmaskrcnn.report.result_document import result_document, run_document, to_json
from medmaskrcnn.structures.case_result import CaseResult
from medmaskrcnn.structures.grid import LPS_FROM_RAS, Grid, pixel_grid
from medmaskrcnn.structures.instances import Instances, empty_instances
from medmaskrcnn.structures.label_maps import label_map
from medmaskrcnn.structures.mask import Mask
from medmaskrcnn.structures.result_table import OUT_OF_DOMAIN, columns
from medmaskrcnn.structures.volume import Volume

Case = tuple[CaseResult, Volume]
FLOAT32 = 1e-6  # sform is float32


def nifti_of(result: CaseResult) -> nib.Nifti1Image:
    stream = io.BytesIO()
    write_label_map(result, stream)
    return nib.Nifti1Image.from_bytes(gzip.decompress(stream.getvalue()))


def rows_of(result: CaseResult) -> list[dict[str, str]]:
    stream = io.StringIO()
    write_table(result, stream)
    return list(csv.DictReader(io.StringIO(stream.getvalue())))


def test_label_map_by_hand(case: Case) -> None:
    result, _ = case
    image = nifti_of(result)
    data = np.asarray(image.dataobj)
    assert data.shape == (24, 20, 12) and data.dtype == np.uint16
    assert sorted(np.unique(data).tolist()) == [0, 1, 2]
    assert (data == 2).sum() == 2 * 3 * 4  # the tumour stays whole
    assert (data == 1).sum() == 6 * 10 * 12 - 2 * 3 * 4  # the liver below it lacks those voxels
    assert data[10, 8, 5] == 2 and data[9, 8, 5] == 1 and data[6, 4, 3] == 1 and data[5, 4, 3] == 0


def test_label_map_has_the_affine_of_the_scan(case: Case) -> None:
    result, volume = case
    image = nifti_of(result)
    assert np.array_equal(image.affine, volume.affine_vox_to_ras[:, [2, 1, 0, 3]])
    assert (image.header["sform_code"], image.header["qform_code"]) == (1, 1)
    assert np.allclose(image.get_qform(), image.affine, atol=1e-4)
    assert image.header.get_xyzt_units()[0] == "mm"
    assert image.header.get_intent()[0] == "label"


QFORM_FIELDS = ("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z")


def assert_no_qform(header: nib.Nifti1Header) -> None:
    assert header["qform_code"] == 0
    assert [float(header[name]) for name in QFORM_FIELDS] == [0] * 6 and header["pixdim"][0] == 1


def sheared(grid: Grid) -> Grid:
    affine = grid.affine_vox_to_ras.copy()
    affine[1, 0] = 0.8
    return Grid(grid.shape, affine)


def test_sheared_grid_has_no_qform(build: Callable[..., Case], case: Case, tmp_path: Path) -> None:
    """Nor a rotation left in its fields: SimpleITK, which knows no shear, refuses rather than read a wrong place."""
    grid = sheared(case[1].grid)
    scan = nib.load(write_nifti(np.zeros(grid.shape, np.int16), grid, tmp_path / "scan.nii"))
    for image in (nifti_of(build(grid)[0]), scan):
        assert_no_qform(image.header)
        assert image.header["sform_code"] == 1
        assert np.allclose(image.affine, grid.affine_xyz_to_ras, rtol=FLOAT32)
    with pytest.raises(RuntimeError, match="orthonormal"):
        sitk.ReadImage(str(tmp_path / "scan.nii"))
    assert read_volume(tmp_path / "scan.nii").affine_vox_to_ras == pytest.approx(grid.affine_vox_to_ras, rel=FLOAT32)


@pytest.mark.parametrize("seed", range(3))
def test_simpleitk_sees_the_instance_where_it_was_measured(
    seed: int, build: Callable[..., Case], tmp_path: object
) -> None:
    """Oblique grids included: ITK's centroid of the label is our centroid, in LPS."""
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    affine = np.eye(4)
    affine[:3, :3] = q * np.sign(np.linalg.det(q)) * [3, 2, 1.5]
    affine[:3, 3] = 10, -20, 30
    result, volume = build(Grid((12, 20, 24), affine))
    path = write_result(result, volume, str(tmp_path), formats=["nifti"])["nifti"]
    judge = sitk.LabelShapeStatisticsImageFilter()
    judge.Execute(sitk.ReadImage(str(path)))
    measured = result.measurements[result.kept[1]]
    assert measured.centroid_ras is not None
    assert judge.GetCentroid(2) == pytest.approx(tuple(LPS_FROM_RAS[:3, :3] @ measured.centroid_ras), abs=1e-3)
    assert judge.GetPhysicalSize(2) == pytest.approx(measured.volume_unit3, rel=1e-5)


def test_many_instances_need_int32() -> None:
    n = 2**16
    grid = Grid((16, 64, 64), np.eye(4))
    starts = np.stack(np.unravel_index(np.arange(n), grid.shape), axis=1)
    many = Instances.from_masks(grid, ("x",), [0] * n, [Mask(start, np.ones((1, 1, 1), bool)) for start in starts])
    painted = label_map(many)
    assert painted.dtype == np.int32 and np.array_equal(painted.ravel(), np.arange(1, n + 1))
    fewer = label_map(many.select(np.arange(n - 1)))
    assert fewer.dtype == np.uint16 and fewer.max() == n - 1


def test_unknown_spacing_is_told_in_the_codes(picture: Case, tmp_path: Path) -> None:
    """No form claims the scanner's coordinates, and every reader still gets the same affine."""
    grid = pixel_grid((1, 20, 24))
    scan = nib.load(write_nifti(np.zeros(grid.shape, np.uint8), grid, tmp_path / "picture.nii"))
    for image in (nifti_of(picture[0]), scan):
        assert_no_qform(image.header)
        assert image.header["sform_code"] == 2  # NIFTI_XFORM_ALIGNED_ANAT: aligned to another file, here the picture
        assert image.header.get_xyzt_units()[0] == "unknown"
        assert np.array_equal(image.affine, grid.affine_xyz_to_ras)
    itk = sitk.ReadImage(str(tmp_path / "picture.nii"))
    directions = LPS_FROM_RAS[:3, :3] @ grid.affine_xyz_to_ras[:3, :3]
    assert np.array_equal(np.reshape(itk.GetDirection(), (3, 3)), directions) and itk.GetSpacing() == (1, 1, 1)


def test_table_by_hand(case: Case) -> None:
    liver, tumour = rows_of(case[0])
    assert (liver["id"], liver["class"], liver["score"]) == ("1", "liver", "0.8")
    assert (tumour["id"], tumour["class"], tumour["score"]) == ("2", "tumour", "0.9")
    assert float(tumour["volume_mm3"]) == 24 * 9
    assert float(tumour["longest_axial_diameter_mm"]) == pytest.approx(np.hypot(3 * 2, 4 * 1.5), rel=1e-6)
    # columns 10..13 run 1.5 mm a step to the left of 17.25; rows 8..10; slices 5, 6
    assert float(tumour["centroid_r_mm"]) == pytest.approx(17.25 - 1.5 * 11.5)
    assert float(tumour["centroid_a_mm"]) == pytest.approx(20.5 - 2 * 9)
    assert float(tumour["centroid_s_mm"]) == pytest.approx(-40.125 + 3 * 5.5)
    assert tumour["warning"] == ""


def test_table_of_a_picture_is_in_pixels(picture: Case) -> None:
    liver, tumour = rows_of(picture[0])
    assert tuple(liver) == columns(False) and not any("mm" in name for name in liver)
    assert (tumour["volume_px"], tumour["longest_axial_diameter_px"]) == ("12", "5")
    assert (tumour["centroid_x_px"], tumour["centroid_y_px"], tumour["centroid_z_px"]) == ("12", "9.5", "0.5")


def test_values_that_do_not_exist_are_empty(case: Case) -> None:
    result, _ = case
    figures = tuple(replace(m, mean_intensity=None, max_intensity=float("nan")) for m in result.measurements)
    row = rows_of(replace(result, measurements=figures))[0]
    assert (row["mean_intensity"], row["max_intensity"]) == ("", "")
    assert row["min_intensity"] != ""


def test_document_by_hand(case: Case) -> None:
    document = result_document(*case)
    assert document["counts"] == {"liver": 1, "tumour": 1}
    assert document["overlaps"] == [{"ids": [1, 2], "shared_voxels": 24}]
    assert document["geometry"]["shape"] == [24, 20, 12] and document["geometry"]["spacing_mm"] == [1.5, 2, 3]
    tumour = document["instances"][1]
    assert (tumour["id"], tumour["class"], tumour["score"]) == (2, "tumour", 0.9)
    assert tumour["box_vox"] == {"min": [10, 8, 5], "max": [14, 11, 7]}
    assert tumour["detection_box_vox"] == {"min": [9.75, 7.75, 4.75], "max": [14.5, 11.5, 7.5]}
    assert tumour["centroid_vox"] == pytest.approx([12, 9.5, 6])
    assert tumour["volume_mm3"] == pytest.approx(216)
    assert (tumour["n_voxels"], tumour["intensity"]["unit"]) == (24, "HU")


def test_document_and_label_map_speak_of_the_same_voxels(case: Case) -> None:
    data = np.asarray(nifti_of(case[0]).dataobj)
    document = result_document(*case)
    affine = np.array(document["geometry"]["affine_vox_to_ras"])
    for instance in document["instances"]:
        box = instance["box_vox"]
        crop = data[tuple(slice(a, b) for a, b in zip(box["min"], box["max"], strict=True))]
        assert (crop == instance["id"]).sum() == (data == instance["id"]).sum()
        centre = affine[:3, :3] @ (np.array(instance["centroid_vox"]) - 0.5) + affine[:3, 3]
        assert centre == pytest.approx(instance["centroid_ras_mm"])


@pytest.mark.parametrize("which", ["case", "picture"])
def test_document_follows_its_schema(which: str, request: pytest.FixtureRequest) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    result, volume = request.getfixturevalue(which)
    schema = json.loads(files("medmaskrcnn.export").joinpath("result.schema.json").read_text("utf-8"))
    document = json.loads(to_json(result_document(result, volume)))
    jsonschema.validate(document, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**document, "surprise": 1}, schema)


def test_picture_has_no_invented_millimetres(picture: Case) -> None:
    document = result_document(*picture)
    tumour = document["instances"][1]
    assert document["geometry"]["unit"] == "px" and document["geometry"]["spacing_mm"] is None
    assert tumour["volume_mm3"] is None and tumour["centroid_ras_mm"] is None
    assert (tumour["volume_px"], tumour["longest_axial_diameter_px"]) == (12, 5)


def test_empty_result(case: Case) -> None:
    result, volume = case
    nothing = CaseResult(empty_instances(volume.grid, ("liver",)), 0.5, (), result.record)
    document = result_document(nothing, volume)
    assert (document["instances"], document["overlaps"], document["counts"]) == ([], [], {"liver": 0})
    assert rows_of(nothing) == []
    assert not np.asarray(nifti_of(nothing).dataobj).any()


def test_out_of_domain_is_stamped_everywhere(build: Callable[..., Case], case: Case) -> None:
    result, volume = build(case[1].grid, out_of_domain=True)
    assert all(row["warning"] == OUT_OF_DOMAIN for row in rows_of(result))
    document = result_document(result, volume)
    assert document["out_of_domain"] is True and document["warnings"] == [OUT_OF_DOMAIN]
    assert bytes(nifti_of(result).header["descrip"]).startswith(b"OUT OF DOMAIN")
    assert not bytes(nifti_of(case[0]).header["descrip"]).startswith(b"OUT OF DOMAIN")


def test_run_document_has_what_varies(case: Case) -> None:
    document = run_document(*case)
    assert document["run"]["host"] == "ward-7"
    assert document["input_files"] == ["/patients/DOE^JANE/scan.nii.gz"]


def test_json_is_strict_and_keeps_lists_of_numbers_on_a_line() -> None:
    text = to_json({"a": [1, -2.5e-07, float("nan")], "b": [1.5, 2], "c": ["[\n 1\n]"], "d": np.float32(0.5), "e": "é"})
    assert json.loads(text) == {"a": [1, -2.5e-07, None], "b": [1.5, 2], "c": ["[\n 1\n]"], "d": 0.5, "e": "é"}
    assert '"b": [1.5, 2]' in text
