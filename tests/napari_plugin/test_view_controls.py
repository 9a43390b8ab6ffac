"""Planes with their letters, windows by name and by dragging."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import numpy as np
import pytest

from medmaskrcnn.structures.grid import Grid

pytestmark = [
    pytest.mark.needs(display=True),
    pytest.mark.skipif(importlib.util.find_spec("napari") is None, reason="napari is not installed"),
]

SHAPE = (8, 24, 30)
BLOCKS = [("liver", 0.9, (0, 1, 1), (4, 10, 10))]


def edges(desk) -> dict[str, str]:
    return {edge: one.text() for edge, one in desk.panel.segment.view.letters.labels.items() if one.isVisible()}


def test_each_plane_has_its_letters(desk, make_result):
    volume, _ = make_result(BLOCKS, SHAPE)
    assert edges(desk) == {}
    desk.scan(volume, "CT")
    assert edges(desk) == {"top": "A", "bottom": "P", "left": "R", "right": "L"}
    plane = desk.panel.segment.view.plane
    desk.press_in(plane, "Down")
    assert plane.currentText() == "coronal" and tuple(desk.viewer.dims.order) == (1, 0, 2)
    assert edges(desk) == {"top": "S", "bottom": "I", "left": "R", "right": "L"}
    desk.press_in(plane, "Down")
    assert edges(desk) == {"top": "S", "bottom": "I", "left": "A", "right": "P"}
    desk.press_in(plane, "Down")
    assert plane.currentText() == "3D" and desk.viewer.dims.ndisplay == 3 and edges(desk) == {}
    desk.press_in(plane, "Home")
    desk.viewer.dims.order = (2, 0, 1)  # by napari's own button
    assert plane.currentText() == "sagittal"
    desk.viewer.dims.order = (0, 1, 2)
    letters = desk.panel.segment.view.letters
    native = desk.viewer.window._qt_viewer.canvas.native
    for edge, label in letters.labels.items():
        assert native.rect().contains(label.geometry()), edge
    assert letters.labels["left"].x() < letters.labels["right"].x()
    assert not letters.note.isVisible()


def test_an_oblique_scan_is_told_on_the_canvas(desk, make_result):
    volume, _ = make_result(BLOCKS, SHAPE)
    turned = np.eye(4)
    angle = np.radians(20)
    turned[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    desk.scan(replace(volume, grid=Grid(SHAPE, turned @ volume.affine_vox_to_ras)), "oblique")
    note = desk.panel.segment.view.letters.note
    assert note.isVisible() and note.text().startswith("oblique by 20")


def test_no_letters_are_left_when_the_panel_is_closed(desk, make_result):
    from qtpy.QtWidgets import QLabel

    layer = desk.scan(make_result(BLOCKS, SHAPE)[0], "CT")
    desk.close_panel()
    desk.bot.wait(20)
    native = desk.viewer.window._qt_viewer.canvas.native
    assert not [one for one in native.findChildren(QLabel) if one.objectName().startswith("edge")]
    assert not layer.mouse_drag_callbacks


def test_windows_by_name_and_a_range_of_all_values(desk, make_result):
    volume, _ = make_result(BLOCKS, SHAPE)
    array = volume.array.copy()
    array[0, 0, 0, :2] = (-1000, 3000)
    layer = desk.scan(replace(volume, array=array), "CT")
    assert tuple(layer.contrast_limits_range) == (-1000, 3000) and tuple(layer.contrast_limits) == (-160, 240)
    window = desk.panel.segment.view.window_name
    names = [window.itemText(row) for row in range(window.count())]
    assert names == ["as in the file", "abdomen", "soft tissue", "lung", "bone", "brain", "all values"]
    window.setFocus()
    for _ in range(3):
        desk.press_in(window, "Down")
    assert tuple(layer.contrast_limits) == (-1350, 150)  # lung
    desk.press_in(window, "End")
    assert tuple(layer.contrast_limits) == (-1000, 3000)
    desk.scan(replace(volume, modality="MR"), "MR")
    assert window.count() == 2


def test_alt_and_dragging_change_window_and_level(desk, make_result):
    from qtpy.QtCore import Qt

    layer = desk.scan(make_result(BLOCKS, SHAPE)[0], "CT")
    desk.viewer.layers.selection.active = layer
    desk.viewer.reset_view()
    desk.bot.wait(50)
    limits = layer.contrast_limits
    desk.drag((5.0, 5.0), (5.0, 20.0), Qt.KeyboardModifier.AltModifier)
    assert np.diff(layer.contrast_limits) > np.diff(limits) and layer.mouse_pan
    limits = layer.contrast_limits
    desk.drag((5.0, 5.0), (15.0, 5.0), Qt.KeyboardModifier.AltModifier)
    assert np.mean(layer.contrast_limits) > np.mean(limits)
    assert np.diff(layer.contrast_limits) == pytest.approx(np.diff(limits))
    limits = layer.contrast_limits
    desk.drag((5.0, 5.0), (15.0, 5.0))
    assert layer.contrast_limits == limits
