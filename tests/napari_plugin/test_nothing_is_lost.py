"""Several reviews at once, unsaved work that is asked about, copies for a crash, and where results are saved."""

from __future__ import annotations

import importlib.util
import json
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from medmaskrcnn.export.write import write_result
from medmaskrcnn.structures.grid import Grid
from medmaskrcnn.structures.store import load_case
from medmaskrcnn.structures.volume import PHANTOM_GENERATOR, Provenance, Volume
from napari_medmaskrcnn.core.autosave import Autosave
from napari_medmaskrcnn.engine.client import Engine

pytestmark = [
    pytest.mark.needs(display=True),
    pytest.mark.skipif(importlib.util.find_spec("napari") is None, reason="napari is not installed"),
]

SHAPE = (8, 24, 30)
BLOCKS = [("liver", 0.9, (0, 1, 1), (4, 10, 10)), ("tumour", 0.8, (5, 12, 12), (2, 3, 3))]
ELSEWHERE = [("liver", 0.9, (0, 1, 1), (4, 10, 11)), ("tumour", 0.7, (5, 18, 20), (2, 3, 3))]
DISCARD, SAVE = "Close without saving", "Save and close"
WARM_UP, RUN = Engine.warm_up, Engine.run
"""The real ones; the module's desk starts no process."""


def of_file(volume, path: Path):
    return replace(volume, provenance=Provenance("NIfTI", files=(str(path),), generator=PHANTOM_GENERATOR))


@pytest.fixture
def case(make_result, tmp_path: Path):
    """A scan of a file and what a model finds in it."""
    volume, result = make_result(BLOCKS, SHAPE)
    return of_file(volume, tmp_path / "one.nii.gz"), result


def in_region(result, region=((0, 0, 0), (8, 24, 30))):
    return replace(result, record=replace(result.record, settings={"region": [list(c) for c in region]}))


def test_another_run_leaves_the_first_review_and_its_undo(desk, case):
    volume, result = case
    desk.scan(volume, "CT")
    desk.run(result)
    first = desk.panel.host.review
    desk.panel.host.select((2,))
    desk.click(desk.panel.correct.buttons["Reject"])
    desk.run(result)
    assert desk.panel.host.review is not first and len(desk.panel.host.reviews.all) == 2
    chooser = desk.panel.reviews.choice
    assert [chooser.itemText(row) for row in range(2)] == [
        "CT: phantom-ct (unsaved)",
        "CT: phantom-ct (2) (unsaved)",
    ]
    desk.press_in(chooser, "Up")
    assert desk.panel.host.review is first and first.items[2].verdict == "rejected"
    desk.key("Ctrl+Z")
    assert first.items[2].verdict == ""


def test_a_run_in_a_region_adds_to_the_result_and_asks_about_what_overlaps(desk, case, make_result):
    volume, result = case
    _, found = make_result(ELSEWHERE, SHAPE)
    desk.scan(volume, "CT")
    desk.run(result)
    review = desk.panel.host.review
    with desk.answering("Keep the old ones"):
        desk.run(in_region(found))
    assert desk.panel.host.review is review and len(desk.panel.host.reviews.all) == 1
    assert "1 of what was found" in desk.questions[0]
    names = [review.items[key].class_name for key in review.keys_in()]
    assert names == ["liver", "tumour", "tumour"] and review.items[1].mask.n_voxels == 400
    desk.key("Ctrl+Z")
    assert review.keys_in() == [1, 2]
    with desk.answering("Take the new ones"):
        desk.run(in_region(found))
    assert sorted(review.items[key].mask.n_voxels for key in review.keys_in()) == [18, 18, 440]
    before = len(review.items)
    with desk.answering("Cancel"):
        desk.run(in_region(found))
    assert len(review.items) == before


def test_closing_the_panel_with_unsaved_work_asks(desk, case):
    volume, result = case
    desk.scan(volume, "CT")
    desk.run(result)
    panel = desk.panel
    with desk.answering("Cancel"):
        desk.close_panel()
    assert panel.parent() is desk.dock and panel.isVisible() and "liver" in desk.viewer.layers
    with desk.answering(DISCARD):
        desk.close_panel()
    assert [layer.name for layer in desk.viewer.layers] == ["CT"]
    assert not list(panel.host.autosave.home.glob("*/instances.npz"))
    desk.open_panel()
    assert desk.panel.host.review is None and desk.panel.message.text() == ""


def test_closing_can_save(desk, case):
    volume, result = case
    desk.scan(volume, "CT")
    desk.run(result)
    desk.panel.host.select((2,))
    desk.click(desk.panel.correct.buttons["Delete"])
    with desk.answering(SAVE):
        desk.close_panel()
    saved = Path(volume.provenance.files[0]).parent / "one-medmaskrcnn"
    assert len(load_case(saved / "instances.npz").candidates) == 1
    assert [layer.name for layer in desk.viewer.layers] == ["CT"]


def test_nothing_is_asked_where_nothing_is_lost(desk, case):
    volume, result = case
    desk.scan(volume, "CT")
    desk.run(result)
    desk.save()
    assert not desk.panel.host.review.unsaved
    desk.close_panel()
    assert desk.questions == [] and desk.panel.guard.ended


def test_a_panel_that_a_script_removes_comes_back_if_the_user_wants(desk, case):
    volume, result = case
    desk.scan(volume, "CT")
    desk.run(result)
    desk.viewer.window.remove_dock_widget(desk.dock)
    with desk.answering("Cancel"):
        desk.bot.waitUntil(lambda: bool(desk.questions), timeout=2000)
    desk.bot.waitUntil(lambda: desk.panel.parent() is not None, timeout=2000)
    desk.dock = desk.panel.parent()
    assert "liver" in desk.viewer.layers and not desk.panel.guard.ended


def test_closing_the_window_with_unsaved_work_asks(desk, case):
    volume, result = case
    desk.scan(volume, "CT")
    desk.run(result)
    window = desk.viewer.window._qt_window
    with desk.answering("Cancel"):
        window.windowHandle().close()  # as the window's own button does
    assert window.isVisible() and desk.panel.host.review is not None
    with desk.answering("Cancel"):
        window.close()  # as File > Close Window does
    assert window.isVisible()


def test_what_runs_is_asked_about_and_ended(desk, case, monkeypatch):
    from napari_medmaskrcnn.engine.client import Cancelled

    ended = threading.Event()

    def run(self, job, report):
        assert ended.wait(10)
        raise Cancelled

    monkeypatch.setattr(Engine, "run", run)
    monkeypatch.setattr(Engine, "stop", lambda self: ended.set())
    desk.scan(case[0], "CT")
    desk.click(desk.panel.segment.run)
    assert desk.panel.worker.busy
    with desk.answering("Cancel"):
        desk.close_panel()
    assert desk.panel.worker.busy and not ended.is_set()
    with desk.answering("Close"):
        desk.close_panel()
    assert ended.is_set()


def test_closing_one_of_two_reviews_asks_only_for_that_one(desk, case):
    volume, result = case
    desk.scan(volume, "CT")
    desk.run(result)
    desk.run(result)
    with desk.answering(DISCARD):
        desk.click(desk.panel.reviews.close_one)
    assert [review.title for review in desk.panel.host.reviews.all] == ["CT: phantom-ct"]
    assert desk.panel.host.review is desk.panel.host.reviews.all[0] and "liver" in desk.viewer.layers


def as_if_ended(home: Path) -> Path:
    """The one copy there is, told to be that of a process that is gone."""
    (file,) = home.glob("*/review.json")
    told = json.loads(file.read_text())
    file.write_text(json.dumps({**told, "started": told["started"] - 1000}))
    return file.parent


def test_a_review_is_restored_after_a_crash(desk, case):
    volume, result = case
    desk.scan(volume, "CT")
    desk.run(result)
    desk.panel.host.select((2,))
    desk.click(desk.panel.correct.buttons["Reject"])
    home = desk.panel.host.autosave.home
    desk.bot.waitUntil(lambda: bool(list(home.glob("*/review.json"))), timeout=5000)  # by itself
    desk.panel.host.write_copies()
    desk.panel.host.autosave.wait()
    desk.panel.host.reviews.close(desk.panel.host.review)  # the copy stays, as after a crash
    copy = as_if_ended(home)
    desk.panel._offer_abandoned()
    assert "not saved before napari ended: CT: phantom-ct" in desk.panel.message.text()
    desk.click(desk.button_in(desk.panel.message, "Restore"))
    review = desk.panel.host.review
    assert review.title == "CT: phantom-ct" and review.unsaved
    assert [item.verdict for item in review.items.values()] == ["", "rejected"]
    desk.panel.host.autosave.wait()
    assert desk.panel.host.autosave.abandoned() == []  # it is this process's again
    assert review.volume is volume and copy.is_dir()
    desk.save()
    desk.bot.waitUntil(lambda: not copy.exists(), timeout=5000)  # saved: no copy is needed


def test_a_copy_that_is_given_up_is_deleted(desk, case):
    volume, result = case
    desk.panel.host.show(volume, result)
    desk.panel.host.write_copies()
    desk.panel.host.autosave.wait()
    desk.panel.host.reviews.close(desk.panel.host.review)
    copy = as_if_ended(desk.panel.host.autosave.home)
    desk.panel._offer_abandoned()
    desk.click(desk.button_in(desk.panel.message, "Discard"))
    assert not copy.exists() and desk.panel.message.text() == ""


def test_a_living_process_s_copies_are_its_own(make_result, tmp_path: Path):
    from napari_medmaskrcnn.core.review_model import ReviewModel

    autosave = Autosave(tmp_path / "copies")
    review = ReviewModel(*make_result(BLOCKS, SHAPE), title="CT", saved=False)
    autosave.keep(review)
    autosave.wait()
    assert autosave.abandoned() == [] and (tmp_path / "copies").stat().st_mode & 0o077 == 0
    (tmp_path / "copies" / "damaged").mkdir()
    (tmp_path / "copies" / "damaged" / "review.json").write_text("{")
    as_if_ended_folder = next(p for p in (tmp_path / "copies").glob("*/run.json")).parent
    told = json.loads((as_if_ended_folder / "review.json").read_text())
    (as_if_ended_folder / "review.json").write_text(json.dumps({**told, "pid": 2**22 + 1}))
    (found,) = autosave.abandoned()
    assert found.title == "CT" and len(load_case(found.folder / "instances.npz").candidates) == 2


def test_the_folder_follows_the_scan(desk, make_result, tmp_path: Path):
    volume, result = make_result(BLOCKS, SHAPE)
    for name in ("anna", "bert"):
        desk.scan(of_file(volume, tmp_path / f"{name}.nii.gz"), name)
        desk.run(result)
        assert desk.panel.save.folder.text() == str(tmp_path / f"{name}-medmaskrcnn")
    desk.press_in(desk.panel.reviews.choice, "Up")
    assert desk.panel.save.folder.text() == str(tmp_path / "anna-medmaskrcnn")
    desk.panel.save.folder.clear()
    desk.bot.keyClicks(desk.panel.save.folder, str(tmp_path / "mine"))
    desk.press_in(desk.panel.reviews.choice, "Down")
    desk.press_in(desk.panel.reviews.choice, "Up")
    assert desk.panel.save.folder.text() == str(tmp_path / "mine")


@pytest.mark.parametrize("kind", ["files", "series"])
def test_another_scan_s_result_is_not_replaced_unasked(desk, make_result, tmp_path: Path, kind):
    volume, result = make_result(BLOCKS, SHAPE)
    scans = [of_file(volume, tmp_path / name) for name in ("anna.nii.gz", "bert.nii.gz")]
    if kind == "series":
        scans = [replace(volume, provenance=Provenance("memory", series_uid=uid)) for uid in ("1.2.3", "1.2.4")]
    sources = [{"series_uid": one.provenance.series_uid} for one in scans]
    results = [replace(result, record=replace(result.record, source=source)) for source in sources]
    taken = tmp_path / "results"
    write_result(results[0], scans[0], taken, formats=[])
    before = (taken / "run.json").read_bytes()
    desk.panel.host.show(scans[1], results[1])
    desk.panel.tabs.setCurrentIndex(2)
    desk.panel.save.folder.clear()
    desk.bot.keyClicks(desk.panel.save.folder, str(taken))
    with desk.answering("Cancel"):
        desk.save()
    assert "another scan" in desk.questions[-1] and (taken / "run.json").read_bytes() == before
    assert desk.panel.host.review.unsaved and "Not saved" in desk.panel.message.text()
    with desk.answering("Replace it"):
        desk.save()
    assert (taken / "run.json").read_bytes() != before or kind == "series"
    assert not desk.panel.host.review.unsaved
    desk.save()  # our own result is replaced without a question
    assert len(desk.questions) == 2


def test_reopening_the_panel_leaves_one_process(desk, tmp_path: Path, monkeypatch):
    """Real processes, of a program that does nothing."""
    from napari_medmaskrcnn.engine import client, per_viewer

    (tmp_path / "idle_program.py").write_text("import sys\nsys.stdin.buffer.read()\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(client, "MODULE", "idle_program")
    monkeypatch.setattr(client.Engine, "warm_up", WARM_UP)
    monkeypatch.setattr(per_viewer, "GRACE_MS", 200)

    def processes() -> list[int]:
        children = psutil.Process().children(recursive=True)
        return [one.pid for one in children if "idle_program" in " ".join(one.cmdline())]

    for _ in range(10):
        desk.close_panel()
        desk.open_panel()
    assert len(processes()) == 1
    desk.close_panel()
    desk.bot.waitUntil(lambda: processes() == [], timeout=5000)
    desk.open_panel()
    assert len(processes()) == 1
    per_viewer.end_engine(desk.viewer)
    assert processes() == []


def test_a_process_that_hangs_is_told_not_raised(monkeypatch):
    import subprocess

    from napari_medmaskrcnn.engine import client
    from napari_medmaskrcnn.engine.messages import SegmentJob

    class Hanging:
        def poll(self):
            return None

        def send(self, fields, arrays=()):
            raise OSError("gone")

        def wait(self, timeout_s=None):
            raise subprocess.TimeoutExpired("python", timeout_s or 0)

        def close(self):
            pass

    monkeypatch.setattr(client, "ChildProcess", lambda module: Hanging())
    monkeypatch.setattr(client.Engine, "warm_up", WARM_UP)
    monkeypatch.setattr(client.Engine, "run", RUN)
    engine = client.Engine()
    engine.warm_up()
    with pytest.raises(client.JobFailed, match="does not answer"):
        engine.run(SegmentJob(None, "m"), lambda _: None)
    engine.stop()


def test_masks_of_a_restored_review_are_those_that_were_copied(make_result, tmp_path: Path):
    from napari_medmaskrcnn.core.review_model import ReviewModel

    volume, result = make_result(BLOCKS, SHAPE)
    review = ReviewModel(volume, result, saved=True)
    assert not review.unsaved
    review.decide([1], "rejected")
    assert review.unsaved
    review.undo()
    assert not review.unsaved  # as it was saved
    review.set_threshold(0.85)
    assert review.unsaved
    review.mark_saved(tmp_path)
    assert not review.unsaved and review.folder == tmp_path
    np.testing.assert_array_equal(review.items[1].mask.array, result.candidates.masks[0].array)


KILLED = """
import os, signal
import napari, numpy as np
from qtpy.QtCore import QTimer
from medmaskrcnn.structures.grid import Grid
from medmaskrcnn.structures.mask import Mask
from medmaskrcnn.structures.volume import Volume
from napari_medmaskrcnn.core.new_review import empty_result
from napari_medmaskrcnn.engine.client import Engine
from napari_medmaskrcnn.panels.panel import MedMaskPanel

Engine.warm_up = lambda self: None
viewer = napari.Viewer()
panel = MedMaskPanel(viewer)
viewer.window.add_dock_widget(panel)
volume = Volume(np.zeros((1, 4, 20, 20), np.int16), Grid((4, 20, 20), np.eye(4)))
review = panel.host.show(volume, empty_result(volume, ("liver",)), title="killed")
QTimer.singleShot(0, lambda: review.add("liver", Mask((1, 2, 3), np.ones((2, 4, 5), bool))))
QTimer.singleShot(5000, lambda: os.kill(os.getpid(), signal.SIGKILL))
napari.run()
"""


@pytest.mark.slow
def test_a_killed_viewer_loses_no_more_than_five_seconds(desk, copies: Path, tmp_path: Path):
    import os
    import subprocess
    import sys

    (tmp_path / "killed.py").write_text(KILLED)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "XDG_CONFIG_HOME": str(tmp_path / "config")}
    ended = subprocess.run([sys.executable, tmp_path / "killed.py"], env=env, capture_output=True, timeout=240)
    assert ended.returncode == -9, ended.stderr.decode()
    desk.panel.host.autosave.home = copies  # where the killed one kept its copies
    desk.panel._offer_abandoned()
    assert "killed" in desk.panel.message.text()
    volume = Volume(np.zeros((1, 4, 20, 20), np.int16), Grid((4, 20, 20), np.eye(4)))
    desk.scan(volume, "again")
    desk.click(desk.button_in(desk.panel.message, "Restore"))
    (item,) = desk.panel.host.review.items.values()
    assert item.class_name == "liver" and item.mask.start == (1, 2, 3) and item.mask.n_voxels == 40
