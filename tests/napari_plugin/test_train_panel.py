"""The Train tab with real clicks: the check, the plan, a training that is stopped, and its model at work."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medmaskrcnn.hub.model_file import read_model_settings
from napari_medmaskrcnn.core.train_run import losses_of

pytestmark = [
    pytest.mark.needs(display=True),
    pytest.mark.skipif(importlib.util.find_spec("napari") is None, reason="napari is not installed"),
]

SIDE = 64


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Three pictures of two bright discs each, labelled."""
    random = np.random.default_rng(0)
    row, column = np.mgrid[:SIDE, :SIDE]
    cases = []
    for number, split in enumerate(("train", "train", "val")):
        labels = np.zeros((SIDE, SIDE), np.uint8)
        for value in (1, 2):
            y, x = random.integers(14, SIDE - 14, 2)
            labels[(row - y) ** 2 + (column - x) ** 2 < 80] = value
        picture = random.normal(60, 8, labels.shape) + 100 * (labels > 0)
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(tmp_path / f"i{number}.png")
        Image.fromarray(labels).save(tmp_path / f"l{number}.png")
        objects = [{"value": int(value), "class": "cell"} for value in np.unique(labels) if value]
        files = {"image": f"i{number}.png", "label": f"l{number}.png"}
        cases.append({"id": f"c{number}", "patient": f"p{number}", "split": split, **files, "instances": objects})
    about = {"version": 1, "name": "discs", "modality": None, "licence": "CC0-1.0", "class_names": ["cell"]}
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps({**about, "cases": cases}))
    return path


@pytest.mark.slow
def test_check_plan_train_stop_and_use(open_panel, qtbot, manifest: Path, tmp_path: Path, artifact):
    from qtpy.QtCore import Qt

    viewer, panel = open_panel()
    tab = panel.train
    panel.tabs.setCurrentWidget(tab)

    def click(button) -> None:
        qtbot.mouseClick(button, Qt.MouseButton.LeftButton)

    def wait_for_the_end() -> None:
        qtbot.waitUntil(lambda: not tab.stop.isEnabled(), timeout=120_000)

    click(tab.check)
    assert "Choose a manifest" in panel.message.text() and tab.check.isEnabled()
    qtbot.keyClicks(tab.manifest, str(manifest))
    click(tab.check)
    assert tab.stop.isEnabled() and not tab.train.isEnabled()
    wait_for_the_end()
    assert "cell" in tab.output.toPlainText() and panel.message.text() == "Done."

    run = tmp_path / "run"
    click(tab.plan)
    assert "Choose a folder" in panel.message.text()
    qtbot.keyClicks(tab.folder, str(run))
    click(tab.plan)
    wait_for_the_end()
    assert "spatial_dims: 2" in tab.output.toPlainText() and list(run.iterdir()) == []

    assert not tab.use.isEnabled()
    click(tab.train)
    qtbot.waitUntil(lambda: len(losses_of(run)) >= 2, timeout=240_000)
    tab.look()
    viewer.add_image(np.asarray(Image.open(manifest.parent / "i2.png")), name="a validation picture")
    artifact(viewer, "train")
    click(tab.stop)
    assert "Stopping" in panel.message.text()
    wait_for_the_end()
    assert panel.message.text().startswith("Stopped"), tab.output.toPlainText()
    assert (run / "checkpoint.pt").is_file()

    click(tab.use)
    assert panel.tabs.currentIndex() == 0 and panel.segment.model.currentText() == "discs (last.safetensors)"
    assert read_model_settings(run / "last.safetensors").model.class_names == ("cell",)


def test_stopping_what_has_just_ended_leaves_the_viewer_alone(open_panel, qtbot, manifest: Path):
    """A process that has ended has number 0, and a signal to 0 goes to the sender's own group."""
    _, panel = open_panel(show=False)
    panel.train.manifest.setText(str(manifest))
    panel.train.begin(["--no-such-option"])
    process = panel.train._process
    assert process.waitForFinished(60_000) and panel.train._process is None
    assert "ended with an error" in panel.message.text()
    panel.train.interrupt()
    panel.train._process = process  # as it is for a moment between the end and the news of it
    panel.train.interrupt()
