"""The plugin in a real napari window: what is drawn, where."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from medmaskrcnn.structures.case_result import CaseResult, Measurement, RunRecord
from medmaskrcnn.structures.grid import Grid
from medmaskrcnn.structures.instances import Instances
from medmaskrcnn.structures.mask import Mask
from medmaskrcnn.structures.volume import Volume
from napari_medmaskrcnn.layers.image_layers import volume_to_layer
from napari_medmaskrcnn.layers.result_layers import result_to_layers

pytestmark = [
    pytest.mark.needs(display=True),
    pytest.mark.skipif(importlib.util.find_spec("napari") is None, reason="napari is not installed"),
]

SHAPE = (10, 40, 60)
"""Slices feet to head, rows front to back, columns right to left: what most CT series store."""

AXIAL = Grid(SHAPE, np.array([[0, 0, -2.0, 60], [0, -2.0, 0, 40], [5.0, 0, 0, -25], [0, 0, 0, 1]]))


def marked() -> np.ndarray:
    """A body with one bright corner: front, on the patient's right, in the upper half."""
    array = np.full(SHAPE, 100, np.int16)
    array[6:, 2:12, 3:15] = 400
    return array


def bright_quarter(picture: np.ndarray) -> tuple[str, str]:
    """In which quarter of a screenshot the brightest spot lies."""
    grey = picture[..., :3].astype(float).sum(axis=2)
    rows, columns = np.nonzero(grey > 0.8 * grey.max())
    drawn_rows, drawn_columns = np.nonzero(grey > 30)
    return (
        "upper" if rows.mean() < drawn_rows.mean() else "lower",
        "left" if columns.mean() < drawn_columns.mean() else "right",
    )


def show(viewer, array: np.ndarray, grid: Grid):
    data, settings, _ = volume_to_layer(Volume(array[None], grid, modality="MR", window=(250, 500)), "scan")
    return viewer.add_image(data, **settings)


def shot(viewer, axis: int, at_mm: float) -> np.ndarray:
    """The canvas with world axis ``axis`` on the slider, at a world position."""
    viewer.dims.order = (axis, *(i for i in range(3) if i != axis))
    viewer.dims.set_point(axis, at_mm)
    viewer.reset_view()
    return viewer.screenshot(canvas_only=True, flash=False)


STORED = {
    "axial": (marked(), AXIAL),
    "sagittal": (marked().transpose(2, 0, 1), Grid((60, 10, 40), AXIAL.affine_vox_to_ras[:, [2, 0, 1, 3]])),
    "turned round": (
        marked()[::-1, :, ::-1],
        Grid(SHAPE, AXIAL.affine_vox_to_ras @ np.array([[-1, 0, 0, 9], [0, 1, 0, 0], [0, 0, -1, 59], [0, 0, 0, 1.0]])),
    ),
}


@pytest.mark.parametrize("stored", STORED)
def test_each_plane_looks_as_a_radiologist_expects(make_napari_viewer, stored):
    viewer = make_napari_viewer(show=True)
    show(viewer, *STORED[stored])
    # The mark: I -20..-5 mm (upper half), P -36..-16 (front), L -54..-30 (the patient's right).
    axial = shot(viewer, 0, -10.0)
    assert bright_quarter(axial) == ("upper", "left")  # front up, the patient's right on the left
    assert bright_quarter(shot(viewer, 1, -26.0)) == ("upper", "left")  # coronal: head up, right on the left
    assert bright_quarter(shot(viewer, 2, -42.0)) == ("upper", "left")  # sagittal: head up, front on the left
    below = shot(viewer, 0, 10.0)
    assert below[..., :3].max() < axial[..., :3].max() - 50  # below the mark it is gone


def test_labels_and_boxes_lie_on_the_scan(make_napari_viewer):
    viewer = make_napari_viewer(show=True)
    show(viewer, marked(), AXIAL)
    block = Instances(
        grid=AXIAL,
        class_names=("tumour",),
        labels=np.zeros(1, np.int64),
        scores=np.ones(1, np.float32),
        boxes=np.array([[6, 2, 3, 10, 12, 15]], np.float32),
        masks=(Mask((6, 2, 3), np.ones((4, 10, 12), bool)),),
    )
    size = Measurement("mm", 9600.0, 1.0, 1.0, (0.0, 0.0, 0.0), 1.0, 1.0, 1.0)
    result = CaseResult(block, 0.5, (size,), RunRecord("medmaskrcnn 0", "m", "0", "CC0", "cpu", "fp32"))
    for data, settings, kind in result_to_layers(result):
        getattr(viewer, f"add_{kind}")(data, **settings)
    scan, tumour, boxes = viewer.layers
    for point_ipl_mm in ((-10.0, -26.0, -42.0), (-6.0, -36.0, -54.0), (10.0, -26.0, -42.0), (-10.0, 0.0, -42.0)):
        bright = scan.get_value(point_ipl_mm, world=True) == 400
        assert (tumour.get_value(point_ipl_mm, world=True) == 1) == bright
    corners = np.array([boxes.data_to_world(corner) for shape in boxes.data for corner in shape])
    np.testing.assert_allclose(corners.min(axis=0), [-20.0, -37.0, -55.0])
    np.testing.assert_allclose(corners.max(axis=0), [-5.0, -17.0, -31.0])
    boxes.visible = True
    picture = shot(viewer, 0, -10.0)
    assert len(np.unique(picture[..., :3].reshape(-1, 3), axis=0)) > 3  # black, body, label, outline
    status = tumour.get_status((-10.0, -26.0, -42.0), world=True, dims_displayed=[1, 2], view_direction=None)
    assert "tumour" in str(status)


def test_the_manifest_is_valid_and_its_names_exist():
    npe2 = pytest.importorskip("npe2", reason="npe2 is not installed")
    import napari_medmaskrcnn

    manifest = npe2.PluginManifest.from_file(Path(napari_medmaskrcnn.__file__).with_name("napari.yaml"))
    manifest.validate_imports()
    (reader,) = manifest.contributions.readers
    assert reader.accepts_directories


def test_napari_opens_a_file_through_the_plugin(make_napari_viewer, tmp_path):
    import nibabel as nib
    from npe2 import PluginManager, PluginManifest

    import napari_medmaskrcnn

    viewer = make_napari_viewer()
    manager = PluginManager.instance()
    if "medmaskrcnn" not in {manifest.name for manifest in manager.iter_manifests()}:
        # napari's fixture keeps installed plugins out; blocked: every viewer so far would add the commands again
        with manager.events.plugins_registered.blocked():
            manager.register(PluginManifest.from_file(Path(napari_medmaskrcnn.__file__).with_name("napari.yaml")))
    nib.save(nib.Nifti1Image(np.zeros((4, 5, 6), np.int16), np.diag([2, 2, 3, 1])), tmp_path / "brain.nii.gz")
    (layer,) = viewer.open(str(tmp_path / "brain.nii.gz"), plugin="medmaskrcnn")
    assert layer.name == "brain"
    np.testing.assert_allclose(layer.scale, (3, 2, 2))
    assert [str(unit) for unit in layer.units] == ["millimeter"] * 3
    assert tuple(layer.axis_labels) == ("inferior", "posterior", "left")
