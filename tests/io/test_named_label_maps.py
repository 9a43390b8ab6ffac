"""Label maps that name their labels: 3D Slicer's .seg.nrrd, TotalSegmentator's NIfTI; whole numbers as floats."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medmaskrcnn.errors import ReadError
from medmaskrcnn.export.nifti import covered_voxels
from medmaskrcnn.io.labels.read import class_names_in, load_labels
from medmaskrcnn.io.read import read_volume
from medmaskrcnn.structures.instances import Instances
from medmaskrcnn.structures.mask import Mask
from medmaskrcnn.structures.volume import Volume

DIRECTIONS = "(1.5,0,0) (0,1.2,0) (0,0,3)"
LIVER, TUMOUR = np.s_[2:6, 1:5, 3:8], np.s_[3:5, 2:4, 4:6]
"""Windows x, y, z in a scan of 8 x 7 x 10 voxels; the tumour lies within the liver."""


def write_nrrd(path: Path, array: np.ndarray, **fields: str) -> Path:
    """A raw NRRD of a ``(x, y, z)`` or ``(layer, x, y, z)`` array, written by hand after the format's description."""
    layers = array.ndim == 4
    kind = {"u": "uint8", "i": "int16", "f": "float"}[array.dtype.kind]
    head = [
        "NRRD0004", f"type: {kind}", f"dimension: {array.ndim}", "space: left-posterior-superior",
        f"sizes: {' '.join(map(str, array.shape))}", f"space directions: {'none ' if layers else ''}{DIRECTIONS}",
        f"kinds: {'list ' if layers else ''}domain domain domain", "endian: little", "encoding: raw",
        "space origin: (0,0,0)", *(f"{key}:={value}" for key, value in fields.items()), "", "",
    ]  # fmt: skip
    path.write_bytes("\n".join(head).encode() + array.tobytes(order="F"))
    return path


def segments(*described: tuple[str, int, int]) -> dict[str, str]:
    fields = {}
    for i, (name, value, layer) in enumerate(described):
        fields |= {
            f"Segment{i}_ID": f"Segment_{i}", f"Segment{i}_Name": name, f"Segment{i}_LabelValue": str(value),
            f"Segment{i}_Layer": str(layer),
        }  # fmt: skip
    return fields


@pytest.fixture
def scan(tmp_path: Path) -> Volume:
    return read_volume(write_nrrd(tmp_path / "scan.nrrd", np.full((8, 7, 10), 50, np.int16)))


def painted(*windows: tuple[tuple[slice, ...], int], dtype: type = np.uint8) -> np.ndarray:
    array = np.zeros((8, 7, 10), dtype)
    for window, value in windows:
        array[window] = value
    return array


def test_one_layer(scan: Volume, tmp_path: Path) -> None:
    array = painted((LIVER, 1), (TUMOUR, 3))
    path = write_nrrd(tmp_path / "a.seg.nrrd", array, **segments(("liver", 1, 0), ("tumour", 3, 0)))
    found = load_labels(path, scan).instances
    assert found.class_names == class_names_in(path) == ("liver", "tumour")
    assert [mask.n_voxels for mask in found.masks] == [4 * 4 * 5 - 8, 8]
    np.testing.assert_array_equal(found.masks[1].dense(scan.grid.shape), array.T == 3)


def test_layers_may_overlap(scan: Volume, tmp_path: Path) -> None:
    layers = np.stack([painted((LIVER, 1)), painted((TUMOUR, 1))])
    path = write_nrrd(tmp_path / "a.seg.nrrd", layers, **segments(("liver", 1, 0), ("tumour", 1, 1)))
    found = load_labels(path, scan).instances
    assert [(n, m.n_voxels) for n, m in zip(found.class_names, found.masks, strict=True)] == [
        ("liver", 80),
        ("tumour", 8),
    ]


def test_an_empty_segment_and_a_missing_layer(scan: Volume, tmp_path: Path) -> None:
    path = write_nrrd(tmp_path / "a.seg.nrrd", painted((LIVER, 1)), **segments(("liver", 1, 0), ("spleen", 2, 0)))
    labels = load_labels(path, scan)
    assert labels.instances.class_names == ("liver",)
    assert any("spleen" in note for note in labels.notes)
    path = write_nrrd(tmp_path / "b.seg.nrrd", painted((LIVER, 1)), **segments(("liver", 1, 1)))
    with pytest.raises(ReadError, match="layer"):
        load_labels(path, scan)


def test_connected_parts_of_a_segment(scan: Volume, tmp_path: Path) -> None:
    array = painted((np.s_[0:2, 0:2, 0:2], 1), (np.s_[5:7, 5:7, 5:7], 1))
    path = write_nrrd(tmp_path / "a.seg.nrrd", array, **segments(("node", 1, 0)))
    assert len(load_labels(path, scan).instances) == 1
    assert len(load_labels(path, scan, kind="semantic").instances) == 2


def test_a_plain_nrrd_has_no_names(scan: Volume, tmp_path: Path) -> None:
    path = write_nrrd(tmp_path / "a.nrrd", painted((LIVER, 2)))
    assert class_names_in(path) is None
    assert load_labels(path, scan).instances.class_names == ("label 2",)


def named_nifti(path: Path, array: np.ndarray, names: dict[int, str], kind: type = nib.Nifti1Image) -> Path:
    """A label map with the header extension that TotalSegmentator writes."""
    image = kind(array, np.diag([-1.5, -1.2, 3, 1]))
    rows = "".join(
        f'<Label Key="{key}" Red="0.5" Green="0.1" Blue="0" Alpha="1"><![CDATA[{name}]]></Label>'
        for key, name in names.items()
    )
    text = (
        '<?xml version="1.0" encoding="UTF-8"?> <CaretExtension>  <VolumeInformation Index="0">   <LabelTable>'
        f"{rows}  </LabelTable>  <VolumeType><![CDATA[Label]]></VolumeType>   </VolumeInformation></CaretExtension>"
    )
    image.header.extensions.append(nib.nifti1.Nifti1Extension(0, text.encode()))
    nib.save(image, path)
    return path


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_names_of_totalsegmentator(scan: Volume, tmp_path: Path, name: str, kind: type) -> None:
    array = painted((LIVER, 5), (TUMOUR, 90))
    path = named_nifti(tmp_path / name, array, {5: "liver", 1: "spleen", 90: "brain"}, kind)
    labels = load_labels(path, scan)
    assert labels.instances.class_names == ("liver", "brain")
    assert class_names_in(path) == ("liver", "spleen", "brain")
    assert load_labels(path, scan, names={5: "L"}).instances.class_names == ("L",)


def test_a_value_without_a_name_keeps_its_number(scan: Volume, tmp_path: Path) -> None:
    path = named_nifti(tmp_path / "a.nii", painted((LIVER, 5), (TUMOUR, 6)), {5: "liver"})
    assert load_labels(path, scan).instances.class_names == ("liver", "label 6")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_whole_numbers_stored_as_floats(scan: Volume, tmp_path: Path, dtype: type) -> None:
    image = nib.Nifti1Image(painted((LIVER, 1), (TUMOUR, 2), dtype=dtype), np.diag([-1.5, -1.2, 3, 1]))
    nib.save(image, tmp_path / "a.nii")
    assert [m.n_voxels for m in load_labels(tmp_path / "a.nii", scan).instances.masks] == [72, 8]
    nib.save(nib.Nifti1Image(painted((LIVER, 0.5), dtype=dtype), np.diag([-1.5, -1.2, 3, 1])), tmp_path / "b.nii")
    with pytest.raises(ReadError, match="fractions"):
        load_labels(tmp_path / "b.nii", scan)


def test_what_a_label_map_loses_is_counted(scan: Volume) -> None:
    masks = [Mask((0, 0, 0), painted((window, 1)).T.astype(bool)).tight() for window in (LIVER, TUMOUR)]
    nested = Instances.from_masks(scan.grid, ("liver", "tumour"), [0, 1], masks)
    (note,) = covered_voxels(nested)
    assert "72 of its 80" in note
    assert "liver" in note
    apart = Instances.from_masks(scan.grid, ("tumour",), [0], masks[1:])
    assert covered_voxels(apart) == ()
