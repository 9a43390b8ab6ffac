"""The plugin as a user goes through it, with a mouse and a model that ships; each step leaves a picture."""

from __future__ import annotations

import importlib.util
import time
from pathlib import Path

import numpy as np
import pytest

pytestmark = [
    pytest.mark.needs(display=True),
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("napari") is None, reason="napari is not installed"),
]

LONG_MS = 240_000
CANCEL_S = 1.0


def click(qtbot, widget) -> None:
    from qtpy.QtCore import Qt

    assert widget.isEnabled(), f"{widget.accessibleName()} is greyed out"
    qtbot.mouseClick(widget, Qt.MouseButton.LeftButton)


def click_row(qtbot, table, row: int) -> None:
    from qtpy.QtCore import Qt

    view = table.view
    index = table.proxy.index(row, 1)
    view.scrollTo(index)
    qtbot.mouseClick(view.viewport(), Qt.MouseButton.LeftButton, pos=view.visualRect(index).center())


def canvas_position(viewer, world: tuple[float, float]):
    """Where on the canvas a point (rows, columns in mm of the shown plane) lies, in pixels."""
    from qtpy.QtCore import QPoint

    native = viewer.window._qt_viewer.canvas.native
    camera = getattr(viewer, "scene", viewer).camera  # napari moved it in 0.9
    centre, zoom = np.array(camera.center[-2:]), camera.zoom
    row, column = (np.array(world) - centre) * zoom + np.array([native.height(), native.width()]) / 2
    return QPoint(round(column), round(row))


def drag(qtbot, viewer, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Press, move and release over the canvas, from one world position to another."""
    from qtpy.QtCore import Qt

    native = viewer.window._qt_viewer.canvas.native
    first, last = canvas_position(viewer, start), canvas_position(viewer, end)
    qtbot.mouseMove(native, first)
    qtbot.mousePress(native, Qt.MouseButton.LeftButton, pos=first)
    for step in range(1, 6):
        at = first + (last - first) * step / 5
        move_with_button(native, at)
        qtbot.wait(20)
    qtbot.mouseRelease(native, Qt.MouseButton.LeftButton, pos=last)


def move_with_button(native, at) -> None:
    """qtbot's mouseMove holds no button."""
    from qtpy.QtCore import QEvent, QPointF, Qt
    from qtpy.QtGui import QMouseEvent
    from qtpy.QtWidgets import QApplication

    event = QMouseEvent(
        QEvent.Type.MouseMove,
        QPointF(at),
        QPointF(native.mapToGlobal(at)),
        Qt.MouseButton.NoButton,
        Qt.MouseButton.LeftButton,
        Qt.KeyboardModifier.NoModifier,
    )
    QApplication.sendEvent(native, event)


def test_open_segment_cancel_correct_save_and_reopen(open_panel, qtbot, small_ct: Path, tmp_path: Path, artifact):
    from qtpy.QtCore import Qt

    from napari_medmaskrcnn.io.reader import read_layers

    viewer, panel = open_panel()
    for data, settings, _ in read_layers(str(small_ct)):
        viewer.add_image(data, **settings)
    viewer.reset_view()
    assert panel.segment.model.currentData() == "phantom-ct"  # chosen for the scan
    click(qtbot, panel.hint_button)
    artifact(viewer, "1-opened")

    # cancel once: within a second, and nothing is left behind
    click(qtbot, panel.segment.run)
    qtbot.waitUntil(lambda: panel.segment.bar.value() >= 10, timeout=LONG_MS)  # the network is at work
    artifact(viewer, "2-running")
    began = time.monotonic()
    with qtbot.waitSignal(panel.worker.cancelled, timeout=5000):
        click(qtbot, panel.segment.cancel)
    assert time.monotonic() - began < CANCEL_S * load_allowance()
    assert panel.engine.pid is None or panel.host.review is None
    assert "Cancelled" in panel.message.text() and len(viewer.layers) == 1

    # run again
    with qtbot.waitSignal(panel.worker.finished, timeout=LONG_MS):
        click(qtbot, panel.segment.run)
    review = panel.host.review
    assert review is not None and panel.tabs.currentIndex() == 1
    found = len(review.keys_in())
    assert found >= 8 and panel.table.proxy.rowCount() == found
    artifact(viewer, "3-found")

    # the threshold, by the keys of a slider
    slider = panel.thresholds.slider()
    slider.setFocus()
    for _ in range(40):
        qtbot.keyClick(slider, Qt.Key.Key_Left)
    assert review.threshold == pytest.approx(0.1) and len(review.keys_in()) > found
    panel.host.canvas.settle()
    artifact(viewer, "4-threshold")
    slider.setValue(50)
    assert len(review.keys_in()) == found

    # click a row: the view flies there
    row = next(r for r in range(found) if review.items[panel.table.keys_in_view()[r]].class_name == "liver")
    click_row(qtbot, panel.table, row)
    (liver,) = panel.host.selected
    at = review.items[liver]
    shown = panel.host.current_slice(review.volume)
    assert at.mask.start[0] <= shown[0][0] < at.mask.end[0]

    # click an instance on the canvas: its row is chosen
    spleen = next(k for k in review.keys_in() if review.items[k].class_name == "spleen")
    panel.host.canvas.center_on(spleen)
    qtbot.wait(50)
    qtbot.mouseClick(
        viewer.window._qt_viewer.canvas.native,
        Qt.MouseButton.LeftButton,
        pos=canvas_position(viewer, inside(panel, spleen)),
    )
    assert panel.host.selected == (spleen,)
    assert len(panel.table.view.selectionModel().selectedRows()) == 1
    artifact(viewer, "5-clicked")

    # correct one: a lung becomes something else, and a kidney is rejected and taken back
    panel.correct.class_name.setCurrentText("bowel")
    click(qtbot, panel.correct.buttons["Relabel"])
    assert review.items[spleen].class_name == "bowel" and "bowel" in viewer.layers
    click(qtbot, panel.correct.buttons["Undo"])
    assert review.items[spleen].class_name == "spleen"
    click(qtbot, panel.correct.buttons["Reject"])
    assert spleen not in review.keys_in()

    # add one by a box, drawn around the spleen that was just rejected
    panel.correct.class_name.setCurrentText("spleen")
    click(qtbot, panel.correct.buttons["Draw a box"])
    (top, left), (bottom, right) = outline(panel, spleen)
    drag(qtbot, viewer, (top, left), (bottom, right))
    panel.correct.box_depth.setValue(review.items[spleen].mask.array.shape[0])
    artifact(viewer, "6-box")
    with qtbot.waitSignal(panel.worker.finished, timeout=LONG_MS):
        click(qtbot, panel.correct.buttons["Outline"])
    (added,) = panel.host.selected
    assert added not in (0, spleen) and review.items[added].class_name == "spleen" and added in review.keys_in()
    assert overlap(review.items[added], review.items[spleen]) > 0.5
    artifact(viewer, "7-added")

    # save as DICOM SEG, and reopen it
    panel.tabs.setCurrentIndex(2)
    panel.save.folder.setText(str(tmp_path / "saved"))
    artifact(viewer, "8-save")
    click(qtbot, panel.save.save)
    qtbot.waitUntil(lambda: not panel.save.background.running, timeout=LONG_MS)
    assert "Saved to" in panel.message.text(), panel.message.text()
    before = review.to_result().instances
    panel.save.open_result(tmp_path / "saved" / "segmentation.dcm")
    after = panel.host.review.to_result().instances
    assert panel.host.review is not review
    assert described(after) == described(before)
    artifact(viewer, "9-reopened")

    # and from the lossless file, with everything that was decided
    panel.save.open_result(tmp_path / "saved" / "instances.npz")
    again = panel.host.review
    assert described(again.to_result().instances) == described(before)
    assert [i.verdict for i in again.items.values()].count("rejected") == 1


def load_allowance() -> float:
    """How much longer things may take because others use the machine: its load over its cores, at least 1."""
    import os

    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def inside(panel, key: int) -> tuple[float, float]:
    """World position of a voxel of an instance in the middle of its shown slice."""
    canvas = panel.host.canvas
    mask, window = canvas._displayed(panel.host.review.items[key])
    slice_at = round(canvas.viewer.dims.current_step[0]) - window[0].start
    rows, columns = np.nonzero(mask[slice_at])
    best = int(np.argmin(abs(rows - rows.mean()) + abs(columns - columns.mean())))
    at = np.array([rows[best] + window[1].start, columns[best] + window[2].start])
    return tuple((at * canvas.frame.scale[1:] + canvas.frame.translate[1:]).tolist())


def outline(panel, key: int) -> tuple[tuple[float, float], tuple[float, float]]:
    """World corners of an instance's box in the shown plane."""
    canvas = panel.host.canvas
    _, window = canvas._displayed(panel.host.review.items[key])
    low = np.array([window[1].start - 0.5, window[2].start - 0.5]) * canvas.frame.scale[1:] + canvas.frame.translate[1:]
    high = np.array([window[1].stop - 0.5, window[2].stop - 0.5]) * canvas.frame.scale[1:] + canvas.frame.translate[1:]
    return tuple(low.tolist()), tuple(high.tolist())


def overlap(one, other) -> float:
    """Intersection over union of two items."""
    return one.mask.overlap(other.mask) / one.mask.union(other.mask).n_voxels


def described(found) -> list[tuple[str, tuple[int, ...], bytes]]:
    """Class, place and voxels of every instance, in an order of their own."""
    return sorted(
        (found.class_names[found.labels[i]], found.masks[i].start, found.masks[i].array.tobytes())
        for i in range(len(found))
    )
