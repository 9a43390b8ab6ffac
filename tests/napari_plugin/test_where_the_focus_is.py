"""Keys act where the focus is, choices stay, nothing moves under the mouse, results lie on their scan."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medmaskrcnn.structures.grid import Grid, pixel_grid
from medmaskrcnn.structures.volume import Provenance, Volume
from napari_medmaskrcnn.io.writers import write
from napari_medmaskrcnn.layers.result_layers import result_to_layers
from napari_medmaskrcnn.layers.scan_of_layer import scan_of_layer

pytestmark = [
    pytest.mark.needs(display=True),
    pytest.mark.skipif(importlib.util.find_spec("napari") is None, reason="napari is not installed"),
]

SHAPE = (8, 24, 30)
BLOCKS = [("liver", 0.9, (0, 1, 1), (4, 10, 10)), ("tumour", 0.8, (5, 12, 12), (2, 3, 3))]


@pytest.mark.parametrize("width", [3, 4])
def test_a_volume_of_3_or_4_columns_is_no_colour_picture(desk, width):
    """A sagittal localizer: slices across the patient, so that the shown array's last axis is short."""
    sagittal = np.array([[0, 0, -1.0, 0], [0, -1.0, 0, 0], [2.0, 0, 0, 0], [0, 0, 0, 1]])[:, [2, 0, 1, 3]]
    array = np.arange(width * 40 * 50, dtype=np.int16).reshape(1, width, 40, 50)
    layer = desk.scan(Volume(array, Grid((width, 40, 50), sagittal), modality="MR"), "localizer")
    assert layer.data.shape[-1] == width and not layer.rgb and layer.ndim == 3
    assert desk.panel.segment.scan.currentText() == "localizer"


def test_a_model_that_the_user_chose_stays(desk, make_result):
    volume, _ = make_result(BLOCKS, SHAPE)
    first = desk.scan(volume, "CT")
    model = desk.panel.segment.model
    assert model.currentData() == "phantom-ct"  # suggested
    model.setFocus()
    desk.press_in(model, "Home")
    desk.press_in(model, "Down")
    chosen = model.currentData()
    assert chosen != "phantom-ct"
    classes = desk.panel.segment.classes.menu().actions()
    classes[0].trigger()
    second = desk.scan(replace(volume, modality="MR"), "MR")
    assert model.currentData() == chosen
    desk.viewer.layers.move(1, 0)
    second.visible = False
    desk.viewer.layers.remove(first)
    assert model.currentData() == chosen and desk.panel.segment.classes.text() != "all"


def test_the_scan_box_takes_the_visible_one_and_keeps_what_was_chosen(desk, make_result):
    volume, _ = make_result(BLOCKS, SHAPE)
    shown, hidden = desk.scan(volume, "shown"), desk.scan(volume, "hidden")
    hidden.visible = False
    scan = desk.panel.segment.scan
    assert scan.currentText() == "shown"
    shown.visible, hidden.visible = False, True
    assert scan.currentText() == "hidden"
    scan.setFocus()
    desk.press_in(scan, "Down")
    assert scan.currentText() == "shown"
    hidden.visible = False
    hidden.visible = True
    desk.scan(volume, "third")
    assert scan.currentText() == "shown"


def test_no_model_is_suggested_for_a_scan_of_unknown_kind(desk, make_result):
    volume, _ = make_result(BLOCKS, SHAPE)
    desk.scan(volume, "CT")
    nameless = replace(volume, modality=None, provenance=Provenance("NIfTI"))
    desk.scan(nameless, "brain.nii")
    assert desk.panel.segment.model.currentData() != "nuclei"


def test_a_model_that_was_made_for_other_scans_is_refused_at_once(desk, make_result):
    volume, _ = make_result(BLOCKS, SHAPE)
    real = replace(volume, provenance=Provenance())
    desk.scan(real, "CT")
    segment = desk.panel.segment
    segment.model.setCurrentIndex(segment.model.findData("phantom-ct"))
    assert "Cannot run" in segment.fit.text() and "phantom" in segment.fit.text()
    desk.click(segment.run)
    assert desk.asked == [] and "knows only scans made by" in desk.panel.message.text()
    desk.click(segment.domain, at=segment.domain.rect().topLeft() + _some(8, segment.domain.rect().height() // 2))
    assert segment.domain.isChecked() and "Cannot run" not in segment.fit.text()
    assert "OUT OF DOMAIN" in segment.fit.text()
    segment.domain.setChecked(False)
    segment.model.setCurrentIndex(segment.model.findData("abdomen-mr"))
    assert "abdomen-mr" in segment.fit.text()


def _some(x: int, y: int):
    from qtpy.QtCore import QPoint

    return QPoint(x, y)


def corners_of(boxes) -> np.ndarray:
    return np.array([boxes.data_to_world(corner) for corner in boxes.data[0]])


def test_boxes_are_drawn_on_the_slice_that_is_shown(desk, make_result):
    desk.panel.host.show(*make_result(BLOCKS, SHAPE))
    boxes, dims = desk.viewer.layers["boxes"], desk.viewer.dims
    dims.set_point(0, 0.0)
    assert set(corners_of(boxes)[:, 0]) == {0.0}
    desk.viewer.layers.selection.active = boxes
    for at in (-2.0, -4.0):
        dims.set_point(0, at)
        assert set(corners_of(boxes)[:, 0]) == {at}
    dims.order = (1, 0, 2)
    for at in (4.0, 5.0):
        dims.set_point(1, at)
        assert set(corners_of(boxes)[:, 1]) == {at}
    dims.order = (0, 1, 2)


def geometry(panel) -> dict[str, tuple[int, int, int, int]]:
    """Where every button of the tab that is shown lies in the panel."""
    from qtpy.QtWidgets import QPushButton

    found = {}
    for one in panel.findChildren(QPushButton):
        if one.isVisible() and one.window() is panel.window():
            at = one.mapTo(panel, one.rect().topLeft())
            found[one.objectName()] = (at.x(), at.y(), one.width(), one.height())
    return found


def test_nothing_moves_under_the_mouse(desk, make_result):
    volume, result = make_result(BLOCKS, SHAPE)
    panel, host = desk.panel, desk.panel.host
    desk.scan(volume, "CT")
    desk.bot.wait(50)
    before = geometry(panel)
    assert {"Run", "Cancel"} <= before.keys()
    for row in range(panel.segment.model.count()):
        panel.segment.model.setCurrentIndex(row)
        host.show_message("A long message. " * 30, "Error")
        desk.bot.wait(20)
        assert geometry(panel)["Run"] == before["Run"]
    panel.segment._show_busy(True)
    desk.bot.wait(20)
    assert geometry(panel)["Run"] == before["Run"] and geometry(panel)["Cancel"] == before["Cancel"]
    panel.segment._show_busy(False)
    host.show_message("")
    host.show(volume, result)
    desk.bot.wait(50)
    before = geometry(panel)
    assert {"Undo", "Split"} <= before.keys()
    host.select((2,))
    desk.click(panel.correct.buttons["Reject"])
    desk.click(panel.correct.buttons["Undo"])
    host.show_message("Two\nlines", "Warning")
    panel.message.offer("What was found?", {"Restore": lambda: None, "Discard": lambda: None})
    desk.bot.wait(50)
    after = geometry(panel)
    assert {name: after[name] for name in before} == before


def test_keys_act_on_the_review_only_while_it_has_the_focus(desk, make_result):
    host = desk.panel.host
    review = host.show(*make_result(BLOCKS, SHAPE))
    mine = desk.viewer.add_labels(np.zeros((8, 24, 30), np.uint8), name="mine")
    host.select((2,))
    desk.click(desk.panel.correct.buttons["Reject"])
    desk.viewer.layers.selection.active = mine
    mine.paint((4, 10, 10), 1)
    assert mine.data.any()
    desk.key("Shift+D")
    desk.key("Shift+X")
    desk.key("Ctrl+Z")
    assert not mine.data.any()  # napari's own undo
    assert review.items[2].verdict == "rejected" and "box to outline" not in desk.viewer.layers
    desk.key("Ctrl+Shift+Z")
    assert mine.data.any()
    for ours in ("boxes", "liver"):
        desk.viewer.layers.selection.active = desk.viewer.layers[ours]
        desk.key("Ctrl+Z")
        assert review.items[2].verdict == ""
        desk.key("Ctrl+Shift+Z")
        assert review.items[2].verdict == "rejected"
    desk.bot.keyClick(desk.panel.table.view, *_key("Ctrl+Z"))
    assert review.items[2].verdict == ""


def _key(keys: str):
    from qtpy.QtCore import Qt

    letter = getattr(Qt.Key, f"Key_{keys[-1]}")
    return letter, Qt.KeyboardModifier.ControlModifier


def test_the_filter_has_an_undo_of_its_own(desk, make_result):
    review = desk.panel.host.show(*make_result(BLOCKS, SHAPE))
    desk.panel.host.select((2,))
    desk.click(desk.panel.correct.buttons["Reject"])
    field = desk.panel.table.filter
    field.setFocus()
    desk.bot.keyClicks(field, "tum")
    desk.bot.keyClick(field, *_key("Ctrl+Z"))
    assert field.text() == "" and review.items[2].verdict == "rejected"


def test_no_key_is_left_when_the_panel_is_closed(desk, make_result):
    volume, result = make_result(BLOCKS, SHAPE)
    layer = desk.scan(volume, "CT")
    desk.panel.host.show(volume, result, saved=True)
    assert layer.keymap
    desk.close_panel()
    assert desk.panel.guard.ended and not layer.keymap
    keys = {str(key) for key in desk.viewer.keymap}
    assert not keys & {"Shift+X", "Ctrl+Z", "Shift+D"}


TRANSFORMS = {
    "translate": {"translate": (5.0, -7.0, 11.0)},
    "rotate": {"rotate": 30},
    "shear": {"shear": (0.2, 0.1, 0.3)},
    "affine": {"affine": [[1, 0, 0, 4], [0, 0, -1.5, 2], [0, 1, 0, 9], [0, 0, 0, 1]]},
    "scale": {"scale": (3.0, 0.5, 2.0)},
}


@pytest.mark.filterwarnings("ignore:Non-orthogonal slicing")
@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("unit", ["mm", "pixel"])
def test_results_lie_on_a_layer_however_it_is_placed(desk, make_result, transform, unit):
    """A layer of another reader: the mask's voxels are those of the image, in the world and in mm."""
    array = np.zeros(SHAPE, np.int16)
    array[0:4, 1:11, 1:11] = 100
    layer = desk.viewer.add_image(array, name="mine", units=(unit,) * 3, **TRANSFORMS[transform])
    volume = desk.panel.host.scan_of(layer)
    _, result = make_result(BLOCKS, SHAPE)
    desk.panel.host.show(volume, replace(result, candidates=replace(result.candidates, grid=volume.grid)))
    liver, boxes = desk.viewer.layers["liver"], desk.viewer.layers["boxes"]
    np.testing.assert_array_equal(np.asarray(liver.data) == 1, array == 100)
    for corner in ((0, 1, 1), (3, 10, 10), (7, 23, 29)):
        np.testing.assert_allclose(liver.data_to_world(corner), layer.data_to_world(corner))
        np.testing.assert_allclose(boxes.data_to_world(corner), layer.data_to_world(corner))
    if unit == "mm":
        expected = np.array(layer.data_to_world((3, 4, 5))) @ np.diag([-1, -1, -1])  # I, P, L to S, A, R
        np.testing.assert_allclose(volume.grid.index_to_ras((3, 4, 5)), expected[[2, 1, 0]])
    desk.viewer.dims.set_point(0, layer.data_to_world((2, 5, 5))[0])
    if transform in ("translate", "scale"):
        assert desk.panel.host.current_slice(volume) == ((2, 0, 0), (3, 24, 30))
    drawing = desk.panel.host.drawing_layer("region to segment", volume)
    drawing.add(np.array([[2, 3.5, 4.5], [2, 3.5, 9.5], [2, 6.5, 9.5], [2, 6.5, 4.5]]), shape_type="rectangle")
    assert desk.panel.host.drawn("region to segment", volume) == pytest.approx((2, 4, 5, 3, 7, 10))


@pytest.mark.filterwarnings("ignore:Non-orthogonal slicing")
def test_results_move_with_their_scan(desk, make_result, tmp_path: Path):
    volume, result = make_result(BLOCKS, SHAPE)
    layer = desk.scan(volume, "CT")
    layer.translate = (3.0, 4.0, 5.0)
    desk.panel.host.show(volume, result)
    liver, boxes = desk.viewer.layers["liver"], desk.viewer.layers["boxes"]
    for change in ({}, {"translate": (9.0, 1.0, 2.0)}, {"rotate": 20}, {"scale": (1.0, 2.0, 3.0)}):
        for name, value in change.items():
            setattr(layer, name, value)
        for ours in (liver, boxes):
            np.testing.assert_allclose(ours.data_to_world((2, 3, 4)), layer.data_to_world((2, 3, 4)))
    assert scan_of_layer(layer) is volume  # what is saved lies where the file says
    desk.panel.host.close()
    layer.translate = (0.0, 0.0, 0.0)  # nothing is left that follows


def test_a_plane_that_was_turned_is_right(desk, make_result):
    layer = desk.viewer.add_image(np.zeros((24, 30)), name="flat", rotate=25, translate=(4, 5), scale=(2, 2))
    volume = desk.panel.host.scan_of(layer)
    _, result = make_result([("nucleus", 0.9, (0, 2, 3), (1, 4, 5))], (1, 24, 30))
    desk.panel.host.show(volume, replace(result, candidates=replace(result.candidates, grid=volume.grid)))
    nucleus = desk.viewer.layers["nucleus"]
    np.testing.assert_allclose(nucleus.data_to_world((3, 4)), layer.data_to_world((3, 4)))


def test_the_segmented_scan_is_shown_and_nothing_above_it(desk, make_result, tmp_path: Path):
    volume, result = make_result(BLOCKS, SHAPE)
    scans = [replace(volume, provenance=Provenance("NIfTI", files=(f"{n}.nii",))) for n in "ab"]
    first, second = desk.scan(scans[0], "a"), desk.scan(scans[1], "b")
    first.visible = False
    desk.panel.host.show(scans[0], result)
    assert first.visible and not second.visible and len(desk.viewer.layers) == 5
    desk.panel.host.show(scans[1], result)
    assert second.visible


@pytest.mark.parametrize("ours", [True, False])
def test_a_layer_without_a_voxel_size_can_be_given_one(desk, ours):
    array = np.zeros((4, 20, 30), np.int16)
    volume = Volume(array[None], pixel_grid((4, 20, 30)), modality="MR")
    layer = desk.scan(volume, "scan") if ours else desk.viewer.add_image(array, name="scan")
    field = desk.panel.segment.size
    assert field.text() == "" and not field.isReadOnly()
    desk.bot.keyClicks(field, "5 x 0.5")
    desk.press_in(field, "Return")
    assert "Enter one size in mm" in desk.panel.message.text()
    field.clear()
    desk.bot.keyClicks(field, "5 x 0.5 x 0.7")
    desk.press_in(field, "Return")
    assert scan_of_layer(layer).spacing_mm == pytest.approx((5, 0.5, 0.7)) and scan_of_layer(layer).array.shape[0] == 1
    np.testing.assert_allclose(layer.scale, (5, 0.5, 0.7))
    assert field.text() == "5 x 0.5 x 0.7 mm" and field.isReadOnly()


def test_a_review_starts_from_a_scan_alone(desk, make_result):
    volume, _ = make_result(BLOCKS, SHAPE)
    desk.scan(volume, "CT")
    desk.panel.tabs.setCurrentIndex(1)
    desk.panel.reviews.new.menu().actions()[0].trigger()
    review = desk.panel.host.review
    assert review.title == "CT: manual" and review.items == {} and "liver" in review.class_names
    desk.panel.correct.class_name.setCurrentText("liver")
    for number, at in ((1, (-4.0, 5.0, 5.0)), (2, (-4.0, 5.0, 6.0))):
        desk.panel.host.select(())
        desk.click(desk.panel.correct.buttons["Paint"])
        layer = desk.viewer.layers.selection.active
        layer.brush_size = 3
        layer.paint(layer.world_to_data(at), layer.selected_label)
        assert review.items[number].mask.n_voxels > 4
    assert review.unsaved
    first, second = review.items[1].mask, review.items[2].mask
    assert first.overlap(second) > 0  # the second covers nothing of the first
    review.set_threshold(1.0)
    assert review.keys_in() == [1, 2]


def test_labels_of_the_user_become_a_review_and_files(desk, make_result, tmp_path: Path):
    volume, _ = make_result(BLOCKS, SHAPE)
    layer = desk.scan(volume, "CT")
    data = np.zeros(layer.data.shape, np.uint8)
    data[1:3, 4:8, 5:9] = 7
    mine = desk.viewer.add_labels(data, name="mine", scale=layer.scale, translate=layer.translate)
    assert write("nifti", str(tmp_path / "mine.nii.gz"), [mine.as_layer_data_tuple()])
    desk.viewer.layers.selection.active = mine
    desk.panel.reviews.new.menu().actions()[1].trigger()
    review = desk.panel.host.review
    (item,) = review.items.values()
    assert review.volume is volume and item.class_name == "mine" and item.mask.n_voxels == 32
    assert not mine.visible and mine.data.sum() == 7 * 32
    desk.viewer.layers.selection.active = desk.viewer.add_labels(np.zeros((3, 3, 3), np.uint8), name="elsewhere")
    desk.panel.reviews.new.menu().actions()[1].trigger()
    assert "does not lie on an open scan" in desk.panel.message.text()


def test_a_dropped_result_is_reviewed_with_one_click(desk, make_result):
    volume, result = make_result(BLOCKS, SHAPE)
    desk.scan(volume, "CT")
    for data, settings, kind in result_to_layers(result, volume):
        getattr(desk.viewer, f"add_{kind}")(data, **settings)
    desk.click(desk.button_in(desk.panel.message, "Review"))
    assert desk.panel.host.review.keys_in() == [1, 2] and not desk.panel.host.review.unsaved
    assert [layer.name for layer in desk.viewer.layers].count("liver") == 1


def test_the_table_by_mouse_and_keys(desk, make_result):
    from qtpy.QtWidgets import QApplication

    table = desk.panel.table
    review = desk.panel.host.show(*make_result(BLOCKS, SHAPE))
    view = table.view
    desk.click(view.viewport(), view.visualRect(table.proxy.index(1, 1)).center())
    assert desk.panel.host.selected == (2,) and -14 <= desk.viewer.dims.point[0] <= -10  # flown there
    desk.press_in(view, "Space")
    assert review.hidden == {2} and desk.panel.host.selected == (2,)  # the tick of its row, not the first one's
    desk.press_in(view, "Space")
    assert review.hidden == set()
    actions = {action.text(): action for action in table.more.menu().actions()}
    actions["Show only the selected ones"].trigger()
    assert review.keys_shown() == {2}
    actions["Show all"].trigger()
    actions["Accept all in the list"].trigger()
    assert {item.verdict for item in review.items.values()} == {"accepted"}
    actions["Copy"].trigger()
    header, row = QApplication.clipboard().text().split("\n")
    assert header.startswith("no.\tclass\tscore") and row.startswith("2\ttumour ✓\t0.80")
    columns = view.horizontalHeader()
    assert columns.length() <= view.viewport().width() + 1  # none is off the screen


def test_a_click_beside_everything_deselects(desk, make_result):
    review = desk.panel.host.show(*make_result(BLOCKS, SHAPE))
    desk.viewer.reset_view()
    desk.bot.wait(50)
    desk.panel.host.canvas.center_on(1)
    native = desk.viewer.window._qt_viewer.canvas.native
    desk.click(native, desk.canvas_at(5.0, 5.0))
    assert desk.panel.host.selected == (1,) and review.items[1].class_name == "liver"
    desk.click(native, desk.canvas_at(18.0, 24.0))
    assert desk.panel.host.selected == ()


def test_merging_classes_says_which_one_is_left(desk, make_result):
    desk.panel.host.show(*make_result(BLOCKS, SHAPE))
    desk.panel.host.select((1, 2))
    desk.click(desk.panel.correct.buttons["Merge"])
    assert "Instance 1 is now liver" in desk.panel.message.text() and "tumour went into it" in desk.panel.message.text()


def test_another_region_can_be_drawn_at_once(desk, make_result):
    volume, result = make_result(BLOCKS, SHAPE)
    desk.scan(volume, "CT")
    region = replace(result, record=replace(result.record, settings={"region": [[0, 0, 0], [8, 24, 30]]}))
    desk.panel.segment.where.setCurrentText("region I draw")
    desk.viewer.reset_view()
    desk.bot.wait(50)
    desk.drag((2.0, 2.0), (20.0, 20.0))
    desk.run(region)
    layer = desk.viewer.layers.selection.active
    assert layer.name == "region to segment" and str(layer.mode) == "add_rectangle" and len(layer.data) == 0


def test_a_reopened_label_map_can_be_prompted(desk, make_result):
    """Its record names no model: the one chosen in the first tab outlines."""
    volume, result = make_result(BLOCKS, SHAPE)
    labels = replace(result, record=replace(result.record, model_name="labels"))
    review = desk.panel.host.show(volume, labels)
    segment = desk.panel.segment
    segment.model.setCurrentIndex(segment.model.findData("phantom-ct"))
    assert segment.model_for(review, "liver") == "phantom-ct"
    review.model = "abdomen-mr"
    assert segment.model_for(review, "liver") == "abdomen-mr"
    assert segment.model_for(review, "tumour") == "phantom-ct"  # which the other does not know


def test_compare_takes_two_that_differ(desk, make_result):
    volume, result = make_result(BLOCKS, SHAPE)
    compare = desk.panel.compare
    desk.panel.tabs.setCurrentIndex(3)
    desk.panel.host.show(volume, result, title="mine")
    desk.panel.tabs.setCurrentIndex(3)
    assert not compare.run.isEnabled() and "differ" in compare.run.toolTip()
    unnamed = replace(result.candidates, class_names=("label 1", "label 2"))
    desk.panel.host.show(volume, replace(result, candidates=unnamed), title="truth")
    desk.panel.tabs.setCurrentIndex(3)
    assert (compare.result.currentText(), compare.reference.currentText()) == ("mine", "truth")
    desk.click(compare.run)
    assert compare.table.rowCount() == 2 and compare.table.item(0, 0).text() == "liver = label 1"
    assert [compare.table.item(0, c).text() for c in range(1, 5)] == ["matched", "1.00", "+0.00", "0.0"]
    assert "2 matched" in desk.panel.message.text() and "differences" in desk.viewer.layers
    desk.viewer.dims.set_point(0, 0.0)
    at = compare.table.visualItemRect(compare.table.item(1, 0)).center()
    desk.click(compare.table.viewport(), at)
    assert -14 <= desk.viewer.dims.point[0] <= -10  # the tumour's slices
    choice = compare.classes.cellWidget(0, 1)
    desk.press_in(choice, "Home")
    desk.click(compare.run)
    assert {compare.table.item(row, 1).text() for row in range(3)} == {"matched", "missed", "only in the result"}
    desk.press_in(compare.reference, "Up")
    assert compare.reference.currentText() == "mine" and not compare.run.isEnabled()
