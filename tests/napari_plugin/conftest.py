"""A small synthetic CT as DICOM, the panel in a viewer, and screenshots as artifacts.

Screenshots go into the folder that ``MEDMASKRCNN_ARTIFACTS`` names, by default into the test's own.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchvision  # noqa: F401 - before any viewer: Triton's LLVM, loaded after that of Mesa, ends the process

from medmaskrcnn.io.read import read_volume
from medmaskrcnn.structures.case_result import CaseResult, Measurement, RunRecord
from medmaskrcnn.structures.grid import Grid
from medmaskrcnn.structures.instances import Instances
from medmaskrcnn.structures.mask import Mask
from medmaskrcnn.structures.volume import PHANTOM_GENERATOR, Provenance, Volume

SIZE = Measurement("mm", 1.0, 1.0, 1.0, (0.0, 0.0, 0.0), 1.0, 1.0, 1.0)
RECORD = RunRecord("medmaskrcnn 0", "phantom-ct", "0" * 64, "CC0", "cpu", "fp32")

UP = np.array([[0, 0, -1.0, 0], [0, -1.0, 0, 0], [2.0, 0, 0, 0], [0, 0, 0, 1]])
"""Slices run up, 2 mm apart; rows to the back, columns to the left, 1 mm."""

Block = tuple[str, float, tuple[int, int, int], tuple[int, int, int]]


def solid_result(blocks: list[Block], shape: tuple[int, int, int], threshold: float = 0.5) -> tuple[Volume, CaseResult]:
    """A CT and solid blocks in it: (class, score, first voxel, extent)."""
    from medmaskrcnn.inference.measure import measure_instances

    names = tuple(dict.fromkeys(name for name, *_ in blocks))
    grid = Grid(shape, UP)
    array = np.full((1, *shape), -50, np.int16)
    for number, (_, _, start, extent) in enumerate(blocks):
        array[(0, *(slice(a, a + n) for a, n in zip(start, extent, strict=True)))] = 40 + 20 * number
    volume = Volume(array, grid, modality="CT", provenance=Provenance(generator=PHANTOM_GENERATOR))
    instances = Instances(
        grid=grid,
        class_names=names,
        labels=np.array([names.index(name) for name, *_ in blocks], np.int64),
        scores=np.array([score for _, score, *_ in blocks], np.float32),
        boxes=np.array([[*s, *np.add(s, e)] for *_, s, e in blocks], np.float32).reshape(-1, 6),
        masks=tuple(Mask(s, np.ones(e, bool)) for *_, s, e in blocks),
    )
    return volume, CaseResult(instances, threshold, measure_instances(volume, instances), RECORD)


@pytest.fixture(scope="session")
def make_result() -> Callable[..., tuple[Volume, CaseResult]]:
    return solid_result


@pytest.fixture(scope="session")
def small_ct(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The upper belly in slices of 5 mm, as DICOM, one file a slice."""
    from medmaskrcnn_datasets.dicom_series import write_dicom_series
    from medmaskrcnn_datasets.phantom import PhantomSettings, make_phantom

    folder = tmp_path_factory.mktemp("study") / "ct"
    settings = PhantomSettings(seed=1, shape=(22, 110, 110), spacing_mm=(5.0, 2.9, 2.9), offset_mm=(0.0, 0.0, -45.0))
    write_dicom_series(make_phantom(settings), folder)
    return folder


@pytest.fixture(scope="session")
def small_volume(small_ct: Path) -> Volume:
    return read_volume(small_ct)


@pytest.fixture
def artifact(tmp_path: Path) -> Callable[[Any, str], Path]:
    """``artifact(viewer, name)``: a screenshot of the whole window; it must show something."""
    folder = Path(os.environ.get("MEDMASKRCNN_ARTIFACTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)

    def save(viewer: Any, name: str) -> Path:
        from qtpy.QtWidgets import QApplication

        for _ in range(5):
            QApplication.processEvents()
        path = folder / f"{name}.png"
        picture = viewer.window._qt_window.grab()
        assert picture.save(str(path))
        canvas = viewer.screenshot(canvas_only=True, flash=False)
        assert len(np.unique(canvas[..., :3].reshape(-1, 3), axis=0)) > 20, f"{name}: the canvas is blank"
        return path

    return save


@pytest.fixture(autouse=True)
def copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where copies of unsaved reviews go; not the user's."""
    monkeypatch.setenv("MEDMASKRCNN_REVIEWS", str(tmp_path / "reviews"))
    return tmp_path / "reviews"


@pytest.fixture
def open_panel(make_napari_viewer: Any, tmp_path: Path, qtbot: Any) -> Iterator[Callable[..., tuple[Any, Any]]]:
    """``viewer, panel = open_panel()``: napari at 1366 x 768 with the panel; settings are not the user's."""
    from qtpy.QtCore import QSettings

    from napari_medmaskrcnn.panels.panel import MedMaskPanel

    QSettings.setPath(QSettings.Format.IniFormat, QSettings.Scope.UserScope, str(tmp_path / "settings"))
    panels = []

    def make(*, show: bool = True) -> tuple[Any, Any]:
        viewer = make_napari_viewer(show=show)
        viewer.window._qt_window.resize(1366, 768)
        panel = MedMaskPanel(viewer)
        viewer.window.add_dock_widget(panel, name="medmaskrcnn", area="right")
        panels.append(panel)
        return viewer, panel

    yield make
    for panel in panels:
        if not panel.guard.ended:
            panel.guard.finish(window_gone=True)


@pytest.fixture(scope="module")
def module_desk(tmp_path_factory: pytest.TempPathFactory, qapp: Any) -> Iterator[Any]:
    """A viewer and panel for all tests of a module, with an engine that starts no process."""
    import napari
    from app_model import Application
    from napari._app_model._app import NapariApplication, _napari_names
    from napari._qt._qapp_model.qactions import init_qactions
    from napari._qt.qt_viewer import QtViewer
    from napari.plugins import _initialize_plugins
    from napari_desk import Desk
    from qtpy.QtCore import QSettings

    from napari_medmaskrcnn.engine.client import Engine

    home = tmp_path_factory.mktemp("home")
    QSettings.setPath(QSettings.Format.IniFormat, QSettings.Scope.UserScope, str(home / "settings"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDMASKRCNN_REVIEWS", str(home / "reviews"))
        # an application of its own, as make_napari_viewer has: commands can be registered with each only once
        app = NapariApplication("desk")
        app.injection_store.namespace = _napari_names
        patch.setattr(NapariApplication, "get_app_model", lambda *_: app)
        _initialize_plugins.cache_clear()
        init_qactions.cache_clear()
        patch.setattr("napari._qt.threads.status_checker.StatusChecker.start", lambda *_: None)
        patch.setattr(Engine, "warm_up", lambda self: None)
        patch.setattr(Engine, "run", lambda self, job, report: (made.asked.append(job), made.answers.pop(0))[1])
        viewer = napari.Viewer(show=True, show_welcome_screen=False)
        viewer.window._qt_window.resize(1366, 768)
        made = Desk(viewer)
        for _ in range(5):
            qapp.processEvents()
        # from here events arrive as usual, but nothing is drawn: software drawing takes most of a test's time
        viewer.window._qt_viewer.canvas.native.setUpdatesEnabled(False)
        yield made
        if not made.panel.guard.ended:
            made.panel.guard.finish(window_gone=True)
        patch.setattr(viewer.window._qt_window, "_save_current_window_settings", lambda: None)
        viewer.close()
        del viewer, made.viewer, made.panel, made.dock
        Application.destroy("desk")
        _initialize_plugins.cache_clear()
        init_qactions.cache_clear()
    gc.collect()
    QtViewer._instances.clear()  # what Qt deletes later is no leak of the next module's viewer


@pytest.fixture
def desk(module_desk: Any, qtbot: Any) -> Iterator[Any]:
    """The module's desk, cleared."""
    module_desk.bot = qtbot
    module_desk.clear()
    yield module_desk
    module_desk.clear()
