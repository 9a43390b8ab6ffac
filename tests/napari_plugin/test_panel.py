"""The panel: what goes wrong is said in it, every control has a name and a key, and it fits a small screen."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medmaskrcnn.settings import SegmentOptions
from medmaskrcnn.structures.volume import Provenance
from napari_medmaskrcnn.layers.image_layers import volume_to_layer

pytestmark = [
    pytest.mark.needs(display=True),
    pytest.mark.skipif(importlib.util.find_spec("napari") is None, reason="napari is not installed"),
]

SHAPE = (8, 24, 30)
BLOCKS = [
    ("liver", 0.9, (0, 1, 1), (4, 10, 10)),
    ("tumour", 0.8, (1, 3, 3), (2, 4, 4)),
    ("tumour", 0.6, (5, 12, 12), (2, 3, 3)),
    ("tumour", 0.3, (5, 12, 20), (2, 3, 3)),
]


@pytest.fixture
def quiet_engine(monkeypatch):
    """No process: what is asked of it is kept."""
    from napari_medmaskrcnn.engine.client import Engine

    asked = []
    monkeypatch.setattr(Engine, "warm_up", lambda self: None)
    monkeypatch.setattr(Engine, "run", lambda self, job, report: asked.append(job))
    return asked


@pytest.fixture
def reviewed(open_panel, quiet_engine, make_result):
    viewer, panel = open_panel(show=False)
    panel.host.show(*make_result(BLOCKS, SHAPE))
    return viewer, panel


def test_what_cannot_be_segmented_is_said_in_the_panel(open_panel, quiet_engine):
    viewer, panel = open_panel(show=False)
    panel.segment.start()
    assert panel.message.text().startswith("Error: There is no image layer")
    viewer.add_image(np.zeros((7, 4, 5, 6)), name="time")
    panel.segment.start()
    assert "time has 4 axes (7 volumes" in panel.message.text() and "Split Stack" in panel.message.text()
    viewer.add_image(np.zeros((4, 5, 6)), name="scan")
    panel.segment.scan.setCurrentIndex(0)
    for action in panel.segment.classes.menu().actions():
        action.setChecked(False)
    panel.segment.start()
    assert "No class is chosen" in panel.message.text() and panel.segment.classes.text() == "none"
    panel.segment.where.setCurrentText("region I draw")
    for action in panel.segment.classes.menu().actions():
        action.setChecked(True)
    panel.segment.start()
    assert "No region is drawn yet" in panel.message.text()
    assert quiet_engine == [] and not panel.worker.busy


def test_all_choices_are_handed_to_the_engine(open_panel, quiet_engine):
    viewer, panel = open_panel(show=False)
    viewer.add_image(np.zeros((4, 5, 6)), name="scan", units=("mm",) * 3)
    panel.segment.precision.setCurrentText("bf16")
    panel.segment.engine.setCurrentText("torch")
    panel.segment.domain.setChecked(True)
    job = panel.segment.settings.to_job(None, None)
    assert job.options == SegmentOptions(precision="bf16", engine="torch", allow_out_of_domain=True)
    panel.segment.start()
    assert panel.host.options == job.options  # boxes are outlined as the scan was segmented


def test_what_was_not_foreseen_is_shown_with_its_traceback(open_panel, quiet_engine):
    _, panel = open_panel(show=False)
    panel.worker.failed.emit("Something unforeseen", "Traceback: line 3")
    assert "Traceback" in panel.message.text() and panel.segment.run.isEnabled()


def test_a_damaged_model_file_is_refused_when_it_is_chosen(open_panel, quiet_engine, tmp_path: Path):
    _, panel = open_panel(show=False)
    before = panel.segment.model.count()
    (tmp_path / "bad.safetensors").write_bytes(b"not a model at all")
    panel.segment.add_model(tmp_path / "bad.safetensors")
    assert "is not a readable model file" in panel.message.text() and panel.segment.model.count() == before


def test_formats_that_the_scan_cannot_have_are_not_offered(reviewed):
    _, panel = reviewed
    seg = panel.save.formats["DICOM SEG"]
    assert not seg.isEnabled() and "belongs to a DICOM series" in seg.toolTip()  # this scan is none
    assert panel.save.formats["NIfTI"].isChecked()


def test_a_folder_that_cannot_be_written_is_told(reviewed, locked_folder: Path):
    _, panel = reviewed
    panel.save.folder.setText(str(locked_folder / "out"))
    for box in panel.save.formats.values():
        box.setChecked(False)
    panel.save.write()
    assert panel.message.text().startswith("Error: cannot write the result") and "permission" in panel.message.text()
    panel.save.folder.setText("")
    panel.save.write()
    assert "Choose a folder" in panel.message.text()


def test_the_chosen_place_and_model_reach_the_engine(open_panel, quiet_engine, make_result, qtbot):
    viewer, panel = open_panel(show=False)
    volume, _ = make_result(BLOCKS, SHAPE)
    data, settings, _ = volume_to_layer(volume, "CT")
    viewer.add_image(data, **settings)
    assert panel.segment.model.currentData() == "phantom-ct"
    viewer.dims.set_point(0, -4.0)  # stored slice 2
    panel.segment.where.setCurrentText("current slice")
    with qtbot.waitSignal(panel.worker.finished):
        panel.segment.start()
    (job,) = quiet_engine
    assert job.volume is volume and job.options.region == ((2, 0, 0), (3, 24, 30)) and job.options.classes is None
    panel.segment.where.setCurrentText("region I draw")
    drawing = viewer.layers["region to segment"]
    drawing.add(np.array([[3, 2.5, 4.5], [3, 2.5, 9.5], [3, 6.5, 9.5], [3, 6.5, 4.5]]), shape_type="rectangle")
    with qtbot.waitSignal(panel.worker.finished):
        panel.segment.start()
    assert quiet_engine[1].options.region == ((0, 3, 5), (8, 7, 10))


def test_a_model_is_suggested_for_the_scan(open_panel, quiet_engine, make_result):
    viewer, panel = open_panel(show=False)
    volume, _ = make_result(BLOCKS, SHAPE)
    for modality, expected in (("MR", "abdomen-mr"), ("CT", "phantom-ct")):
        data, settings, _ = volume_to_layer(replace(volume, modality=modality), modality)
        viewer.add_image(data, **settings)
        panel.segment.scan.setCurrentIndex(panel.segment.scan.findText(modality))
        assert panel.segment.model.currentData() == expected
    assert "Limit:" in panel.segment.card.text()
    real = replace(volume, provenance=Provenance(), modality="CT")
    data, settings, _ = volume_to_layer(real, "real CT")
    viewer.add_image(data, **settings)


def test_the_table_sorts_filters_hides_and_lists_candidates(reviewed):
    from qtpy.QtCore import Qt

    _, panel = reviewed
    table, review = panel.table, panel.host.review
    assert table.keys_in_view() == [1, 2, 3]
    table.view.sortByColumn(3, Qt.SortOrder.AscendingOrder)
    assert table.keys_in_view() == [3, 2, 1]
    table.filter.setText("TUM")
    assert table.keys_in_view() == [3, 2]
    table.filter.setText("")
    table.all.setChecked(True)
    assert set(table.keys_in_view()) == {1, 2, 3, 4}
    first = table.proxy.index(0, 0)
    key = table.keys_in_view()[0]
    assert table.proxy.setData(first, Qt.CheckState.Unchecked, Qt.ItemDataRole.CheckStateRole)
    assert review.hidden == {key}
    texts = [table.proxy.index(table.keys_in_view().index(1), c).data() for c in range(7)]
    assert texts[:4] == ["1", "liver", "0.90", "0.80"]  # 400 voxels of 2 mm³


def test_every_tool_has_its_key_and_acts(reviewed):
    from napari_medmaskrcnn.panels.correct_panel import KEYS

    viewer, panel = reviewed
    review = panel.host.review
    assert all(panel.correct.buttons[name].toolTip().endswith(f"({key})") for name, key in KEYS.items())
    assert all(name in panel.correct.hint.text().replace("\u00a0", " ") for name in KEYS)
    panel.host.select((4,))
    press(viewer, "Shift-Y")
    assert review.items[4].verdict == "accepted"
    press(viewer, "Control-Z")
    assert review.items[4].verdict == ""
    press(viewer, "Control-Shift-Z")
    assert review.items[4].verdict == "accepted"
    press(viewer, "Shift-N")
    assert review.items[4].verdict == "rejected"
    panel.host.select((3, 2))
    press(viewer, "Shift-M")
    assert 3 not in review.items and panel.host.selected == (2,)
    press(viewer, "Shift-S")
    assert len(panel.host.selected) == 2
    press(viewer, "Shift-D")
    assert panel.host.selected == () and review.keys_in() == [1]
    press(viewer, "Shift-S")
    assert "Select one instance" in panel.message.text()


def press(viewer, key: str) -> None:
    from app_model.types import KeyBinding

    wanted = KeyBinding.from_str(key.replace("Control", "Ctrl").replace("-", "+"))
    bound = {KeyBinding.validate(k): act for k, act in viewer.layers["boxes"].keymap.items()}
    bound[wanted](viewer.layers["boxes"])


def test_painting_chooses_napari_s_brush_on_the_instance(reviewed):
    viewer, panel = reviewed
    panel.host.select((2,))
    panel.correct.paint()
    layer = viewer.layers.selection.active
    assert layer.name == "tumour" and str(layer.mode) == "paint" and layer.selected_label == 2
    panel.host.select(())
    panel.correct.class_name.setCurrentText("cyst")
    panel.correct.paint()
    layer = viewer.layers.selection.active
    assert layer.name == "cyst" and layer.selected_label == panel.host.review.unused_key()


def test_a_class_has_a_slider_of_its_own(reviewed):
    _, panel = reviewed
    panel.thresholds.each.setChecked(True)
    panel.thresholds.slider("tumour").setValue(25)
    assert panel.host.review.keys_in() == [1, 2, 3, 4]
    panel.thresholds.slider().setValue(95)
    assert panel.host.review.keys_in() == [2, 3, 4] and panel.thresholds.slider("tumour").value() == 25
    panel.thresholds.each.setChecked(False)
    assert panel.host.review.keys_in() == [] and panel.host.review.class_thresholds == {}


def test_every_control_has_a_name_for_screen_readers(reviewed):
    from qtpy.QtWidgets import (
        QAbstractButton,
        QAbstractItemView,
        QAbstractSlider,
        QAbstractSpinBox,
        QComboBox,
        QLineEdit,
        QPlainTextEdit,
        QScrollBar,
        QTabBar,
    )

    _, panel = reviewed
    kinds = (
        QAbstractButton, QAbstractItemView, QAbstractSlider, QAbstractSpinBox, QComboBox, QLineEdit, QPlainTextEdit,
    )  # fmt: skip
    controls = [one for kind in kinds for one in panel.findChildren(kind)]
    own = [one for one in controls if not isinstance(one, QScrollBar) and not _is_part_of_another(one, kinds)]
    nameless = [one for one in own if not (one.accessibleName() and one.toolTip())]
    assert len(own) > 45 and nameless == []
    assert panel.findChildren(QTabBar)


def _is_part_of_another(control, kinds) -> bool:
    """Qt builds combo boxes, spin boxes and tables out of further widgets, and names them itself."""
    from qtpy.QtWidgets import QTabBar, QTabWidget

    parent = control.parent()
    while parent is not None and parent.objectName() != "steps":
        if isinstance(parent, (*kinds, QTabBar)):
            return True
        parent = parent.parent()
    return isinstance(control.parent(), QTabWidget)


def test_it_fits_a_screen_of_1366_by_768(open_panel, quiet_engine, make_result):
    _, panel = open_panel(show=True)
    panel.hint_button.click()
    panel.host.show(*make_result(BLOCKS, SHAPE))
    for tab in range(panel.tabs.count()):
        panel.tabs.setCurrentIndex(tab)
        assert panel.minimumSizeHint().height() <= 640 and panel.minimumSizeHint().width() <= 480


def test_the_first_steps_are_shown_once(open_panel, quiet_engine):
    from napari_medmaskrcnn.panels.panel import MedMaskPanel

    viewer, panel = open_panel(show=False)
    assert not panel.hint.isHidden()
    panel.hint_button.click()
    assert panel.hint.isHidden()
    again = MedMaskPanel(viewer)
    assert again.hint.isHidden() and again.hint_button.isHidden()


def test_a_training_that_fails_says_so(open_panel, quiet_engine, tmp_path: Path, qtbot):
    _, panel = open_panel(show=False)
    panel.train.begin(["--check"])
    assert "Choose a manifest" in panel.message.text()
    (tmp_path / "m.json").write_text("{}")
    panel.train.manifest.setText(str(tmp_path / "m.json"))
    panel.train.begin(["--check"])
    assert panel.train.stop.isEnabled()
    qtbot.waitUntil(lambda: panel.train.check.isEnabled(), timeout=120_000)
    assert "ended with an error" in panel.message.text() and panel.train.output.toPlainText()


def test_a_model_of_several_sequences_takes_a_layer_for_each(open_panel, quiet_engine, tmp_path: Path):
    from two_sequences import save_model_of_two

    viewer, panel = open_panel(show=False)
    shown = {name: np.full((4, 5, 6), number, np.int16) for number, name in enumerate(("other", "my flair", "my t1"))}
    for name, array in shown.items():
        viewer.add_image(array, name=name)
    panel.segment.add_model(save_model_of_two(tmp_path / "two.safetensors"))
    assert list(panel.segment.sequences.lists) == ["FLAIR"]
    assert panel.segment.sequences.lists["FLAIR"].currentText() == "my flair"
    panel.segment.scan.setCurrentText("my t1")
    panel.segment.start()
    (job,) = quiet_engine
    assert job.volume.channel_names == ("T1", "FLAIR")
    assert [int(channel.mean()) for channel in job.volume.array] == [2, 1]
    panel.segment.model.setCurrentIndex(0)
    assert not panel.segment.sequences.lists
