"""Labelled cases on the network's grid: volumes, parts, grids that disagree."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from medmaskrcnn.data.cases import LabelledCase, TrainingObject, load_case_for_training, open_prepared, prepare_cases
from medmaskrcnn.data.manifest import read_manifest
from medmaskrcnn.errors import ReadError
from medmaskrcnn.inference.prepare import resize
from medmaskrcnn.settings import ModelCard, ModelFileSettings, ModelSettings, PreprocessSettings
from medmaskrcnn.training.windows import objects_within

Labelled = Callable[..., Path]
SHAPE, VOXEL_MM3 = (16, 44, 36), 3.0 * 1.2 * 1.5
WHOLE = ((0, 0, 0), SHAPE)
AS_IT_IS = PreprocessSettings(value_range=(0, 100))


def load(path: Path, settings: PreprocessSettings = AS_IT_IS, **options: object) -> LabelledCase:
    manifest = read_manifest(path)
    return load_case_for_training(manifest, manifest.cases[0], settings, **options)


def occupancy(case: LabelledCase, start: tuple[int, ...], shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels of the objects that reach into a window, and how far they fill its voxels, ``(N, *shape)``."""
    labels, parts = objects_within(case, start, shape)
    planes = [torch.from_numpy(part.dense(shape, (0, 0, 0))) for part in parts]
    return labels, torch.stack(planes) if planes else torch.zeros((0, *shape), dtype=torch.uint8)


def cubic_mm(item: TrainingObject, voxel_mm3: float) -> float:
    return int(item.mask.array.sum(dtype=np.int64)) / 255 * voxel_mm3


@pytest.mark.parametrize("spacing", [(None, None, None), (3.0, 2.0, 2.0), (2.0, 1.0, 1.1), (4.5, 3.0, 2.5)])
@pytest.mark.parametrize("antialias", [True, False])
def test_a_sphere_keeps_its_volume(
    labelled: Labelled, tmp_path: Path, spacing: tuple[float | None, ...], antialias: bool
) -> None:
    settings = PreprocessSettings(spacing_mm=spacing, antialias=antialias, value_range=(0, 100))
    case = load(labelled(), settings)
    shape = case.image.shape[1:]
    voxel_mm3 = VOXEL_MM3 * np.prod(SHAPE) / np.prod(shape)
    liver, tumour = case.objects
    assert cubic_mm(liver, voxel_mm3) == pytest.approx(4 / 3 * np.pi * 16**3, rel=0.01)
    if antialias:  # without, a coarser grid misses much of 92 voxels
        labels = nib.load(tmp_path / "labels.nii.gz").get_fdata()
        assert cubic_mm(tumour, voxel_mm3) == pytest.approx(np.count_nonzero(labels == 2) * VOXEL_MM3, rel=0.03)


def test_objects_lie_where_the_image_shows_them(labelled: Labelled) -> None:
    """A soft mask is what the image's own interpolation makes of the mask."""
    settings = PreprocessSettings(spacing_mm=(2.0, 2.0, 2.0), value_range=(0, 100))
    path = labelled()
    case = load(path, settings)
    labels = nib.load(path.parent / "labels.nii.gz").get_fdata().T.copy()
    expected = resize(torch.from_numpy((labels > 0)[None].astype(np.float32)), case.image.shape[1:], antialias=True)[0]
    _, dense = occupancy(case, (0, 0, 0), tuple(case.image.shape[1:]))
    torch.testing.assert_close(dense[0] / 255, expected, atol=0.51 / 255, rtol=0)


def test_a_tumour_belongs_to_its_liver_too(labelled: Labelled) -> None:
    case = load(labelled())
    labels, dense = occupancy(case, (0, 0, 0), SHAPE)
    assert labels.tolist() == [0, 1]
    assert (dense[0][dense[1] > 0] == 255).all() and (dense[1] == 255).sum() > 50


def test_parts_of_parts_belong_to_the_whole(labelled: Labelled) -> None:
    path = labelled()
    file = nib.load(path.parent / "labels.nii.gz")
    labels = file.get_fdata().astype(np.int16)
    core = tuple(np.argwhere(labels == 2)[10])
    labels[core] = 3
    nib.save(nib.Nifti1Image(labels, file.affine), path.parent / "labels.nii.gz")
    instances = [
        {"value": 3, "class": "tumour", "part_of": 2},
        {"value": 1, "class": "liver", "part_of": None},
        {"value": 2, "class": "tumour", "part_of": 1},
    ]
    manifest = json.loads(path.read_text())
    manifest["cases"][0]["instances"] = instances
    path.write_text(json.dumps(manifest))
    _, dense = occupancy(load(path), (0, 0, 0), SHAPE)
    assert dense[0].count_nonzero() == 1
    assert (dense[1:, dense[0] == 255] == 255).all()


def test_the_models_order_of_classes(labelled: Labelled) -> None:
    path = labelled()
    assert [o.label for o in load(path, class_names=("tumour", "spleen", "liver")).objects] == [2, 0]
    assert [o.label for o in load(path, class_names=("tumour",)).objects] == [0]


def test_an_instance_without_voxels_is_left_out(labelled: Labelled) -> None:
    path = labelled()
    text = path.read_text().replace('"instances": [', '"instances": [{"value": 9, "class": "liver"}, ')
    path.write_text(text)
    assert len(load(path).objects) == 2


def test_slips_of_the_pen_are_left_out(labelled: Labelled) -> None:
    """An island of a few voxels far away would blow up the object's box."""

    def slip(array: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        array[:2, :2, :2] = 1
        return array, affine

    path = labelled()
    clean = load(path)
    rewrite_labels(path, slip)
    slipped = load(path)
    for expected, got in zip(occupancy(clean, *WHOLE), occupancy(slipped, *WHOLE), strict=True):
        assert torch.equal(got, expected)


def rewrite_labels(path: Path, change: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]) -> None:
    file = nib.load(path.parent / "labels.nii.gz")
    array, affine = change(file.get_fdata(), file.affine.copy())
    nib.save(nib.Nifti1Image(array.astype(np.float32), affine), path.parent / "labels.nii.gz")


def test_a_grid_that_disagrees_is_refused(labelled: Labelled) -> None:
    path = labelled()
    rewrite_labels(path, lambda array, affine: (array[:-1], affine))
    with pytest.raises(ReadError, match=r"case c1: the label map labels\.nii\.gz does not lie on the grid"):
        load(path)
    path = labelled()
    rewrite_labels(path, lambda array, affine: (array, affine + 0.5 * np.eye(4, k=3)))
    with pytest.raises(ReadError, match="does not lie on the grid"):
        load(path)


def test_labels_must_be_whole_numbers(labelled: Labelled) -> None:
    path = labelled()
    rewrite_labels(path, lambda array, affine: (array, affine))
    assert len(load(path).objects) == 2  # whole numbers kept as floats are fine
    rewrite_labels(path, lambda array, affine: (array * 0.999, affine))
    with pytest.raises(ReadError, match="no whole numbers"):
        load(path)


WINDOWS = [WHOLE, ((-3, 10, 12), (9, 20, 30)), ((12, 40, 30), (9, 9, 9))]


@pytest.mark.parametrize(("start", "shape"), WINDOWS)
def test_windows_of_objects(labelled: Labelled, start: tuple[int, ...], shape: tuple[int, ...]) -> None:
    case = load(labelled())
    labels, dense = occupancy(case, start, shape)
    _, everything = occupancy(case, (0, 0, 0), SHAPE)
    padded = torch.nn.functional.pad(everything, (16,) * 6)
    window = padded[(slice(None), *(slice(16 + a, 16 + a + n) for a, n in zip(start, shape, strict=True)))]
    kept = [i for i in range(2) if window[i].any()]
    assert set(kept) <= set(labels.tolist())
    for label, mask in zip(labels.tolist(), dense, strict=True):
        assert torch.equal(mask, window[label])


def test_a_prepared_case_comes_back_from_its_file(labelled: Labelled, tmp_path: Path) -> None:
    path = labelled()
    manifest, case = read_manifest(path), load(path)
    settings = ModelFileSettings(
        card=ModelCard(name="x"), model=ModelSettings(class_names=("liver", "tumour")), preprocess=AS_IT_IS
    )
    (file,) = prepare_cases(manifest, manifest.cases, settings, tmp_path / "cache")
    back = open_prepared(file)
    assert back.id == case.id and torch.equal(back.image, case.image)
    for one, other in zip(back.objects, case.objects, strict=True):
        assert (one.label, one.mask) == (other.label, other.mask)
    written = file.stat().st_mtime_ns
    assert prepare_cases(manifest, manifest.cases, settings, tmp_path / "cache") == [file]
    assert file.stat().st_mtime_ns == written  # used again
    (path.parent / "scan.nii.gz").touch()
    (changed,) = prepare_cases(manifest, manifest.cases, settings, tmp_path / "cache")
    assert changed != file  # the scan may be another one now


def with_ignored(path: Path, **instance: object) -> Path:
    """The tumour, value 2, becomes an instance to ignore; ``c1`` was annotated for the liver alone."""
    manifest = json.loads(path.read_text())
    liver, tumour = manifest["cases"][0]["instances"]
    manifest["cases"][0]["instances"] = [liver, {**tumour, "ignore": True, **instance}]
    manifest["cases"][0]["annotated"] = ["liver"]
    path.write_text(json.dumps(manifest))
    return path


def test_ignored_regions_are_prepared_as_objects_are(labelled: Labelled, tmp_path: Path) -> None:
    settings = PreprocessSettings(spacing_mm=(2.0, 2.0, 2.0), value_range=(0, 100))
    path = labelled()
    tumour = load(path, settings).objects[1]
    case = load(with_ignored(path), settings)
    assert [one.label for one in case.objects] == [0] and case.annotated == (True, False)
    assert case.ignored == tumour.mask
    assert load(path, settings, class_names=("liver",)).ignored is None  # of a class that the model does not know
    everything = load(with_ignored(path, **{"class": None}), settings, class_names=("liver",))
    assert everything.ignored == tumour.mask and everything.annotated is None


def test_a_class_that_the_manifest_lacks_is_unknown(labelled: Labelled) -> None:
    assert load(labelled(), class_names=("tumour", "spleen", "liver")).annotated == (True, False, True)


def test_a_prepared_case_keeps_what_is_ignored_and_annotated(labelled: Labelled, tmp_path: Path) -> None:
    path = with_ignored(labelled())
    manifest, case = read_manifest(path), load(path)
    settings = ModelFileSettings(
        card=ModelCard(name="x"), model=ModelSettings(class_names=("liver", "tumour")), preprocess=AS_IT_IS
    )
    back = open_prepared(*prepare_cases(manifest, manifest.cases, settings, tmp_path / "cache"))
    assert back.ignored is not None and back.ignored == case.ignored and back.annotated == (True, False)
