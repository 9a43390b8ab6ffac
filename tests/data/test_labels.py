"""Cases as they lie on disk: channels, overlapping objects, parts, and files that do not belong together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from medmaskrcnn.data.case_labels import read_case
from medmaskrcnn.data.manifest import Manifest, ManifestCase, ManifestInstance
from medmaskrcnn.errors import ReadError
from medmaskrcnn.io.labels.label_maps import LARGEST_VALUE, whole_numbers
from medmaskrcnn.structures.axes import AxisMap
from medmaskrcnn.structures.grid import Grid, pixel_grid, same_grid
from medmaskrcnn.structures.mask import Mask

AFFINE = np.diag([2.0, 3.0, 4.0, 1.0])
SHAPE = (4, 5, 6)  # D, H, W


def save(folder: Path, name: str, array: np.ndarray, affine: np.ndarray = AFFINE) -> str:
    nib.save(nib.Nifti1Image(array.T, affine), folder / name)
    return name


def manifest_of(folder: Path, **case: Any) -> Manifest:
    instances = [ManifestInstance.model_validate(one) for one in case.pop("instances", ())]
    names = tuple(dict.fromkeys(i.class_name for i in instances if i.class_name)) or ("liver",)
    made = ManifestCase(id="c", patient="p", instances=tuple(instances), **case)
    return Manifest(name="m", modality="MR", class_names=names, cases=(made,), folder=str(folder))


def read(folder: Path, **case: Any):
    manifest = manifest_of(folder, **case)
    return read_case(manifest, manifest.cases[0])


def dense(one) -> np.ndarray:
    return one.mask.dense(SHAPE)


def test_sequences_become_channels_in_the_manifests_order(tmp_path: Path) -> None:
    t1, t2 = (np.random.default_rng(seed).integers(0, 99, SHAPE).astype(np.int16) for seed in (1, 2))
    t2 = t2.astype(np.float32) + 0.5
    scan = read(tmp_path, image=(save(tmp_path, "t2.nii", t2), save(tmp_path, "t1.nii", t1)))
    assert np.array_equal(scan.volume.array, np.stack([t2, t1]))
    assert scan.volume.modality == "MR" and scan.volume.spacing_mm == (4.0, 3.0, 2.0)
    assert len(scan.volume.provenance.files) == 2 and scan.objects == ()


def test_regions_to_ignore_are_no_objects(tmp_path: Path) -> None:
    values = np.zeros(SHAPE, np.uint8)
    values[1, 1:4, 1:4] = 1
    values[2, 1:4, 1:4] = 2
    values[3] = 255
    instances = [
        {"value": 1, "class": "liver"},
        {"value": 2, "class": "liver", "ignore": True},
        {"value": 255, "ignore": True},
        {"value": 9, "ignore": True},
    ]
    scan = read(tmp_path, image=save(tmp_path, "i.nii", values), label=save(tmp_path, "l.nii", values),
                instances=instances, annotated=("liver",))  # fmt: skip
    assert [one.class_name for one in scan.objects] == ["liver"] and scan.objects[0].mask.n_voxels == 9
    assert [(one.class_name, one.mask.n_voxels) for one in scan.ignored] == [("liver", 9), (None, 30)]
    assert scan.annotated == ("liver",)
    assert (scan.absent, scan.unnamed) == ((), ())  # value 9 need not occur: nothing is lost


def test_objects_of_several_maps_may_share_voxels(tmp_path: Path) -> None:
    first, second = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    first[1:3, 1:4, 1:4] = 7
    second[2:4, 2:5, 2:6] = 7
    second[0, 0, 0] = 9
    scan = read(
        tmp_path,
        image=save(tmp_path, "i.nii", np.zeros(SHAPE, np.int16)),
        label=(save(tmp_path, "a.nii", first), save(tmp_path, "b.nii", second)),
        instances=[
            {"value": 7, "class": "cell", "map": 1},
            {"value": 7, "class": "cell"},
            {"value": 3, "class": "cell", "map": 1},
        ],
    )
    a, b = scan.objects
    assert np.array_equal(dense(a), first == 7) and np.array_equal(dense(b), second == 7)
    assert scan.absent == ((1, 3),) and scan.unnamed == ((1, 9),)


def test_parts_belong_to_the_whole(tmp_path: Path) -> None:
    labels = np.zeros(SHAPE, np.float32)
    labels[1:4, 1:4, 1:5] = 1
    labels[2, 2, 2:4] = 2
    scan = read(
        tmp_path,
        image=save(tmp_path, "i.nii", np.zeros(SHAPE, np.int16)),
        label=save(tmp_path, "l.nii", labels),
        instances=[{"value": 2, "class": "tumour", "part_of": 1}, {"value": 1, "class": "liver"}],
    )
    tumour, liver = scan.objects
    assert np.array_equal(dense(tumour), labels == 2) and np.array_equal(dense(liver), labels > 0)


def test_pictures_are_compared_by_their_size(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((5, 6, 3), np.uint8)).save(tmp_path / "i.png")
    Image.fromarray(np.eye(5, 6, dtype=np.uint16) * 300).save(tmp_path / "l.png")
    scan = read(tmp_path, image="i.png", label="l.png", instances=[{"value": 300, "class": "cell"}])
    assert scan.volume.array.shape == (3, 1, 5, 6) and scan.volume.channel_kind == "colour"
    assert scan.objects[0].mask.n_voxels == 5
    Image.fromarray(np.zeros((6, 5), np.uint8)).save(tmp_path / "l.png")
    with pytest.raises(ReadError, match=r"case c: the label map l.png .* i.png: \(1, 6, 5\) voxels .* \(1, 5, 6\)"):
        read(tmp_path, image="i.png", label="l.png")


class TestFilesThatDoNotBelongTogether:
    def refused(self, tmp_path: Path, said: str, label: np.ndarray, affine: np.ndarray = AFFINE) -> None:
        image = save(tmp_path, "i.nii", np.zeros(SHAPE, np.int16))
        with pytest.raises(ReadError, match=said):
            read(tmp_path, image=image, label=save(tmp_path, "l.nii", label, affine))

    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(ReadError, match=r"case c: .*nothing\.nii"):
            read(tmp_path, image="nothing.nii")

    def test_other_spacing(self, tmp_path: Path) -> None:
        self.refused(tmp_path, r"voxels of \(5.000, 3.000, 2.000\)", np.zeros(SHAPE, np.uint8), np.diag([2, 3, 5.0, 1]))

    def test_elsewhere(self, tmp_path: Path) -> None:
        moved = AFFINE.copy()
        moved[0, 3] = 0.5
        self.refused(tmp_path, "elsewhere or turned", np.zeros(SHAPE, np.uint8), moved)

    def test_several_channels(self, tmp_path: Path) -> None:
        self.refused(tmp_path, "l.nii has 2 channels", np.zeros((2, *SHAPE), np.uint8))

    @pytest.mark.parametrize("value", [0.5, -1.0, float("nan"), float("inf"), LARGEST_VALUE + 1.0])
    def test_no_numbers_of_objects(self, tmp_path: Path, value: float) -> None:
        label = np.zeros(SHAPE, np.float32)
        label[0, 0, 0] = value
        self.refused(tmp_path, "l.nii holds values that are no whole numbers", label)

    def test_sequences_on_two_grids(self, tmp_path: Path) -> None:
        images = (save(tmp_path, "a.nii", np.zeros(SHAPE)), save(tmp_path, "b.nii", np.zeros((4, 5, 7))))
        with pytest.raises(ReadError, match=r"case c: b\.nii does not lie on the grid of a\.nii"):
            read(tmp_path, image=images)

    def test_parts_in_a_circle(self, tmp_path: Path) -> None:
        instances = [{"value": 1, "class": "a", "part_of": 2}, {"value": 2, "class": "a", "part_of": 1}]
        names = [save(tmp_path, name, np.zeros(SHAPE, np.int16)) for name in ("i.nii", "l.nii")]
        with pytest.raises(ReadError, match=r"case c: part_of runs in a circle"):
            read(tmp_path, image=names[0], label=names[1], instances=instances)


def test_whole_numbers() -> None:
    assert whole_numbers(np.array([0.99999, 3.00001])).tolist() == [1, 3]  # a scaled float
    for kind in (np.uint8, np.int16, np.uint32, np.uint64, np.int64):
        values = whole_numbers(np.array([0, 7], kind))
        assert values.tolist() == [0, 7] and values.dtype.itemsize <= 4
    assert whole_numbers(np.array([LARGEST_VALUE], np.uint64)).tolist() == [LARGEST_VALUE]
    for wrong in ([1.001], [-1], [2**40], [np.nan], [True], []):
        assert whole_numbers(np.array(wrong)) is None


def test_same_grid() -> None:
    grid = Grid((4, 5, 600), AFFINE)
    stretched = AFFINE.copy()
    stretched[:, 2] *= 1.0001  # 0.06 of a voxel at the far end
    assert same_grid(Grid((4, 5, 600), stretched), grid)
    stretched[:, 2] *= 1.0002
    assert not same_grid(Grid((4, 5, 600), stretched), grid)
    assert same_grid(pixel_grid((4, 5, 600)), grid) and not same_grid(pixel_grid((4, 5, 6)), grid)


@given(
    st.permutations([0, 1, 2]),
    st.tuples(st.booleans(), st.booleans(), st.booleans()),
    st.tuples(*(st.integers(0, n - 2) for n in SHAPE)),
)
def test_a_mask_turned_lies_where_the_scan_turned_shows_it(order, flips, start) -> None:
    axes = AxisMap(tuple(order), flips)
    mask = Mask(start, np.random.default_rng(0).random((2, 2, 2)) < 0.5)
    turned_scan = axes.apply(mask.dense(SHAPE))
    turned = axes.apply_mask(mask, SHAPE)
    assert np.array_equal(turned.dense(turned_scan.shape), turned_scan)
    assert axes.undo_mask(turned, turned_scan.shape) == mask
