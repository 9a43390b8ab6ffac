"""A result in memory: its label map as images of other libraries, its table, its instances one by one, its picture."""

from __future__ import annotations

import sys
from base64 import b64decode
from io import BytesIO
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image
from result_case import Case, case, make_case, spl_affine

from medmaskrcnn.errors import MissingExtraError, ReadError
from medmaskrcnn.export.write import write_result
from medmaskrcnn.io.memory import as_volume
from medmaskrcnn.io.read import read_volume
from medmaskrcnn.structures.grid import Grid, pixel_grid
from medmaskrcnn.structures.store import load_case

__all__ = ["case"]

SHAPE = (12, 20, 24)


def sheared() -> Grid:
    affine = spl_affine()
    affine[1, 0] = 0.4
    return Grid(SHAPE, affine)


def turned() -> Grid:
    return Grid(SHAPE, np.array([[0, 0.8, -0.9, 4], [0, 1.6, 1.8, -5], [-2.5, 0, 0, 6], [0, 0, 0, 1.0]]) @ np.eye(4))


@pytest.mark.parametrize("grid", [Grid(SHAPE, spl_affine()), sheared(), turned(), pixel_grid(SHAPE)])
def test_label_map_goes_to_other_libraries_and_back(grid: Grid, tmp_path: Path) -> None:
    result, _ = make_case(grid)
    painted = result.label_map()
    assert painted.shape == grid.shape and set(np.unique(painted)) == {0, 1, 2}
    for instance in result:
        inside = painted[instance.mask.window][instance.mask.array]
        assert (inside == instance.id).any()
    of_nibabel, of_sitk = result.to_nibabel(), result.to_sitk()
    nib.save(of_nibabel, tmp_path / "labels.nii.gz")
    sitk.WriteImage(of_sitk, str(tmp_path / "labels.nrrd"))
    for found in (as_volume(of_nibabel), as_volume(of_sitk), read_volume(tmp_path / "labels.nii.gz")):
        assert np.array_equal(found.array[0], painted)
        np.testing.assert_allclose(found.affine_vox_to_ras, grid.affine_vox_to_ras, atol=1e-5)
    read_back = sitk.ReadImage(str(tmp_path / "labels.nrrd"))
    assert np.array_equal(sitk.GetArrayFromImage(read_back), painted)
    point = (3, 5, 7)  # x, y, z
    lps = np.asarray(read_back.TransformIndexToPhysicalPoint(point))
    np.testing.assert_allclose(lps * [-1, -1, 1], nib.affines.apply_affine(of_nibabel.affine, point), atol=1e-4)


def test_the_image_is_the_file_that_is_written(case: Case, tmp_path: Path) -> None:
    result, volume = case
    files = write_result(result, volume, tmp_path, formats=("nifti",))
    written = nib.load(files["nifti"])
    assert np.array_equal(np.asanyarray(written.dataobj), np.asanyarray(result.to_nibabel().dataobj))
    np.testing.assert_allclose(written.affine, result.to_nibabel().affine, atol=1e-6)


def test_instances_one_by_one(case: Case) -> None:
    result, _ = case
    assert len(result) == 2 and [one.id for one in result] == [1, 2]
    assert [one.class_name for one in result] == ["liver", "tumour"]
    for one, i in zip(result, result.kept, strict=True):
        assert one.measurement is result.measurements[i] and one.mask is result.candidates.masks[i]
    empty, _ = make_case(Grid(SHAPE, spl_affine()))
    object.__setattr__(empty, "score_threshold", 0.99)
    assert len(empty) == 0 and bool(empty) and list(empty) == []


def test_dataframe_is_the_table(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pandas = pytest.importorskip("pandas")
    result, volume = case
    files = write_result(result, volume, tmp_path, formats=("csv",))
    frame = result.to_dataframe()
    expected = pandas.read_csv(files["csv"])
    assert list(frame.columns) == list(expected.columns)
    for name in frame.columns[:-1]:
        if expected[name].dtype.kind in "if":
            np.testing.assert_allclose(frame[name].to_numpy(float), expected[name].to_numpy(float), rtol=1e-6)
        else:
            assert frame[name].tolist() == expected[name].tolist()
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'medmaskrcnn\[pandas\]'"):
        result.to_dataframe()


def test_a_notebook_shows_it(case: Case) -> None:
    result, _ = case
    shown = result._repr_html_()
    picture = Image.open(BytesIO(b64decode(shown.split("base64,")[1].split('"')[0])))
    assert picture.format == "PNG" and len(picture.getcolors(1 << 20) or ()) > 20
    assert shown.count("<tr>") == 3 and "tumour" in shown and "<script" not in shown


def test_a_figure_is_drawn_with_its_scan_and_without(case: Case) -> None:
    pytest.importorskip("matplotlib").use("Agg")
    result, volume = case
    figures = [result.plot(volume), result.plot()]
    images = [[axis.images[0].get_array() for axis in one.axes if axis.images] for one in figures]
    assert images[0] and len(images[0]) == len(images[1])
    assert not all(np.array_equal(a, b) for a, b in zip(*images, strict=True))
    other = make_case(sheared())[1]
    with pytest.raises(ValueError, match="grid"):
        result.plot(other)


def test_the_scan_is_read_again_from_its_file(case: Case, tmp_path: Path) -> None:
    from medmaskrcnn.export.nifti import write_nifti
    from medmaskrcnn.report.case_view import scan_of

    result, volume = case
    assert not scan_of(result).array.any()
    path = write_nifti(volume.array[0], volume.grid, tmp_path / "scan.nii.gz")
    result.run["files"] = [str(path)]
    assert np.array_equal(scan_of(result).array, volume.array)
    path.write_bytes(b"no longer a scan")
    assert not scan_of(result).array.any()


def test_a_folder_is_loaded(case: Case, tmp_path: Path) -> None:
    result, volume = case
    write_result(result, volume, tmp_path / "out", formats=())
    found = load_case(tmp_path / "out")
    assert np.array_equal(found.label_map(), result.label_map()) and found.run == result.run
    (tmp_path / "out" / "run.json").write_text("damaged")
    assert load_case(tmp_path / "out").run == {}
    with pytest.raises(ReadError, match=r"instances\.npz"):
        load_case(tmp_path)
