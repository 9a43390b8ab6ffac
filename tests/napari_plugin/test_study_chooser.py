"""Opening a study: series are listed with their pictures, chosen, and read without stopping the window."""

from __future__ import annotations

import importlib.util
import time
from pathlib import Path

import numpy as np
import pytest

from napari_medmaskrcnn.io.study import THUMBNAIL_PX, series_of, small_picture

pytestmark = [
    pytest.mark.needs(display=True),
    pytest.mark.skipif(importlib.util.find_spec("napari") is None, reason="napari is not installed"),
]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two series of one patient, and a file that is no scan."""
    from medmaskrcnn_datasets.dicom_series import write_dicom_series
    from medmaskrcnn_datasets.phantom import PhantomSettings, make_phantom

    folder = tmp_path_factory.mktemp("DOE^JANE")
    for seed, slices in ((1, 5), (2, 4)):
        settings = PhantomSettings(seed=seed, shape=(slices, 40, 48), spacing_mm=(40.0, 9.0, 8.0), tumours=0)
        write_dicom_series(make_phantom(settings), folder / f"series{seed}")
    (folder / "notes.txt").write_text("not a scan")
    return folder


def test_series_are_described(study: Path):
    first, second = series_of(study)
    assert [one.size for one in (first, second)] == ["5 x 40 x 48", "4 x 40 x 48"]
    assert first.name == "CT 1" and second.name == "CT 2" and "DOE" not in first.name + first.description
    assert first.thumbnail.dtype == np.uint8 and max(first.thumbnail.shape) <= THUMBNAIL_PX
    assert np.ptp(first.thumbnail) > 100


@pytest.mark.parametrize("shape", [(300, 200), (7, 64, 64), (50, 60, 3), (2, 50, 60, 3)])
def test_a_small_picture_of_any_image(shape):
    picture = small_picture(np.arange(np.prod(shape)).reshape(shape))
    assert picture.ndim == 2 and max(picture.shape) <= THUMBNAIL_PX


def test_a_series_is_chosen_and_read_in_the_background(desk, study: Path):
    from qtpy.QtCore import QTimer
    from qtpy.QtWidgets import QApplication

    from napari_medmaskrcnn.panels.study_chooser import SeriesChooser

    opener = desk.panel.segment.open
    seen = []

    def choose() -> None:
        dialog = QApplication.activeModalWidget()
        if not isinstance(dialog, SeriesChooser):
            return
        timer.stop()
        seen.append([dialog.table.item(row, 4).text() for row in range(dialog.table.rowCount())])
        assert not dialog.table.item(0, 0).icon().isNull()
        desk.click(dialog.table.viewport(), dialog.table.visualItemRect(dialog.table.item(1, 2)).center())
        desk.click(dialog.open)

    timer = QTimer()
    timer.setInterval(20)
    timer.timeout.connect(choose)
    timer.start()
    opener.open_study(study)
    assert len(desk.viewer.layers) == 0 and opener.background.running == 1  # it has returned at once
    desk.bot.waitUntil(lambda: len(desk.viewer.layers) == 1, timeout=10_000)
    assert seen == [["5 x 40 x 48", "4 x 40 x 48"]]
    assert desk.viewer.layers[0].data.shape == (4, 40, 48) and desk.panel.segment.scan.currentText() == "CT 2"


def test_a_single_series_needs_no_choice_and_a_failure_is_told(desk, study: Path, tmp_path: Path):
    desk.panel.segment.open.open_study(study / "series1")
    desk.bot.waitUntil(lambda: len(desk.viewer.layers) == 1, timeout=10_000)
    desk.panel.segment.open.open_study(tmp_path / "nowhere")
    desk.bot.waitUntil(lambda: desk.panel.message.text().startswith("Error"), timeout=10_000)
    assert "nowhere" in desk.panel.message.text()


def test_the_window_stays_free_while_work_is_done(desk):
    ticks, answers = [], []
    background = desk.panel.segment.open.background
    began = time.monotonic()
    background.start("waiting", lambda: time.sleep(0.5), answers.append, answers.append)
    while not answers:
        desk.bot.wait(10)
        ticks.append(time.monotonic())
    assert answers == [None] and len(ticks) > 5 and time.monotonic() - began < 10
