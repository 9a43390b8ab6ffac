"""Three real patients: CT, MR and PET lie on each other on the screen, and the RTSTRUCT lies on its tumour."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from medmaskrcnn.io.read import read_volume
from napari_medmaskrcnn.io.reader import read_layers

PATIENTS = ("STS_001", "STS_003", "STS_004")
SAME_PLACE_MM = 0.5
"""The three outlines of a tumour are one, drawn on CT and carried to MR and PET, whose voxels are up to 5.5 mm wide."""
DRAWN_MM = 6.0
"""So far the three outlines, drawn from voxels of three sizes, may reach beyond that of CT."""


def centre_mm(layer) -> np.ndarray:
    """World position of what a Labels layer holds."""
    data, settings, _ = layer
    return np.argwhere(np.asarray(data)).mean(axis=0) * settings["scale"] + settings["translate"]


@pytest.fixture(scope="module", params=PATIENTS)
def patient(request, medmaskrcnn_data: Path):
    folder = medmaskrcnn_data / "dicom" / request.param
    return request.param, read_layers(str(folder)), medmaskrcnn_data / "dicom" / "truth"


def test_ct_mr_and_pet_lie_on_each_other(patient):
    """The tumour, which the next test finds voxel for voxel on each scan, is at one place in the world."""
    _, layers, _ = patient
    images = [layer for layer in layers if layer[2] == "image"]
    tumours = [layer for layer in layers if layer[2] == "labels"]
    assert [layer[1]["name"][:2] for layer in images] == ["CT", "MR", "PT"]
    assert [layer[1]["name"] for layer in tumours] == ["GTV_Mass"] * 3
    centres = np.array([centre_mm(layer) for layer in tumours])
    assert np.ptp(centres, axis=0).max() < SAME_PLACE_MM
    assert [str(unit) for image in images for unit in image[1]["units"]] == ["mm"] * 9
    assert [image[1]["visible"] for image in images] == [True, False, False]


def test_the_outline_lies_on_the_tumour(patient):
    name, layers, truth = patient
    tumours = [layer for layer in layers if layer[2] == "labels"]
    for layer, kind in zip(tumours, ("CT", "MR_T1", "PET"), strict=True):
        volume = read_volume(truth / f"{name}_{kind}_mask.nii.gz")
        expected = layer[1]["metadata"]["medmaskrcnn"]["frame"].to_display(volume.array[0] > 0)
        shown = np.asarray(layer[0]) > 0
        dice = 2 * (shown & expected).sum() / (shown.sum() + expected.sum())
        assert dice > 0.97, f"{name} {kind}: {dice:.3f}"


@pytest.mark.needs(display=True)
@pytest.mark.skipif(importlib.util.find_spec("napari") is None, reason="napari is not installed")
def test_the_tumours_outline_is_drawn_where_it_lies(patient, make_napari_viewer, artifact):
    """On the screen too, in a picture to look at: without the outlines the canvas differs around the tumour alone."""
    name, layers, _ = patient
    viewer = make_napari_viewer(show=True)
    for data, settings, kind in layers:
        if kind == "image" or settings["name"] == "GTV_Mass":
            getattr(viewer, f"add_{kind}")(data, **settings)
    _, mr, pet, *outlines = viewer.layers
    mr.visible = pet.visible = True
    mr.opacity, pet.opacity = 0.5, 0.4
    mr.colormap, pet.colormap = "green", "magma"
    for outline in outlines:
        outline.contour = 1
    viewer.dims.set_point(0, float(centre_mm(layers[3])[0]))
    viewer.reset_view()
    artifact(viewer, f"patient-{name}")
    canvas = viewer.screenshot(canvas_only=True, flash=False).astype(int)
    for outline in outlines:
        outline.visible = False
    changed = np.argwhere((canvas != viewer.screenshot(canvas_only=True, flash=False)).any(axis=-1))
    camera = getattr(viewer, "scene", viewer).camera  # napari moved it in 0.9
    drawn_mm = (changed - np.array(canvas.shape[:2]) / 2) / camera.zoom + camera.center[-2:]
    tumour, settings, _ = layers[3]
    scale, translate = np.array(settings["scale"]), np.array(settings["translate"])
    shown = np.asarray(tumour)[round((viewer.dims.point[0] - translate[0]) / scale[0])]
    inside_mm = np.argwhere(shown) * scale[1:] + translate[1:]
    for bound in (np.min, np.max):
        assert np.abs(bound(drawn_mm, axis=0) - bound(inside_mm, axis=0)).max() < DRAWN_MM
