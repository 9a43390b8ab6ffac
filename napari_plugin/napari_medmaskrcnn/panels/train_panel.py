"""Train a model: check the data, view the plan, start, watch the losses, stop, use the model.

It runs ``medmaskrcnn train`` as a separate process and reads the tables it writes: the code is that of the command
line, and a run started here can be resumed there.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from qtpy.QtCore import QProcess, QTimer
from qtpy.QtGui import QFontDatabase
from qtpy.QtWidgets import QComboBox, QDoubleSpinBox, QFileDialog, QLineEdit, QPlainTextEdit, QWidget

from medmaskrcnn.hub.model_file import shipped_models
from napari_medmaskrcnn.core.train_run import losses_of, model_of
from napari_medmaskrcnn.panels.controls import beside, button, column, form, named
from napari_medmaskrcnn.panels.host import Host
from napari_medmaskrcnn.panels.loss_plot import LossPlot

COMMAND = ("-P", "-c", "from medmaskrcnn.cli.main import main; main()", "train")
_LOOK_EVERY_MS = 2000
_PATIENCE_MS = 20_000
"""Time for a training to write its checkpoint before it is killed."""
FROM_NOTHING = "random weights"


class TrainPanel(QWidget):
    """The fifth tab.

    Args:
        host: What the panels share.
        use_model: Called with a model file that the user wants to segment with.
    """

    def __init__(self, host: Host, use_model: Callable[[Path], None]) -> None:
        super().__init__()
        self._host, self._use_model = host, use_model
        self._process: QProcess | None = None
        self._stopping = False
        self._run_folder = Path()
        self.manifest = named(QLineEdit(), "training data", "A manifest, or a folder of labelled data")
        self.folder = named(QLineEdit(), "run folder", "Where plan, losses and models go")
        self.hours = named(QDoubleSpinBox(), "hours", "How long to train")
        self.hours.setRange(0.01, 999)
        self.hours.setValue(1.0)
        self.hours.setSuffix(" h")
        self.start_from = named(QComboBox(), "start from", "The first weights: a model's, or none")
        self.start_from.addItems([FROM_NOTHING, *shipped_models()])
        self.check = button("Check the data", "Read every case and say what is wrong", self._check)
        self.plan = button("Show the plan", "What would be done, with the reasons", self._plan)
        self.train = button("Train", "Check, plan, and learn", self._train)
        self.stop = button("Stop", "End after this step; the run can be resumed", self.interrupt)
        self.use = button("Use the model", "Segment with the best model so far", self._use)
        self.plot = named(LossPlot(), "losses", "Loss by step")
        self.output = named(QPlainTextEdit(), "output", "What the training says")
        self.output.setReadOnly(True)
        self.output.setMaximumBlockCount(2000)
        self.output.setFont(QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont))
        self.output.setLineWrapMode(QPlainTextEdit.LineWrapMode.NoWrap)
        self._timer = QTimer(self)
        self._timer.setInterval(_LOOK_EVERY_MS)
        self._timer.timeout.connect(self.look)
        self._lay_out()
        self._show_running(False)

    def begin(self, arguments: Sequence[str]) -> None:
        """Run ``medmaskrcnn train`` with arguments, and show its output."""
        if self._process is not None:
            return
        if not self.manifest.text():
            self._host.show_message("Choose a manifest, or a folder of labelled data, first.", "Warning")
            return
        self.output.clear()
        process = QProcess(self)
        process.setProcessChannelMode(QProcess.ProcessChannelMode.MergedChannels)
        process.readyReadStandardOutput.connect(self._on_output)
        process.finished.connect(self._on_finished)
        self._process, self._stopping = process, False
        process.start(sys.executable, [*COMMAND, self.manifest.text(), *arguments])
        self._show_running(True)
        self._host.show_message("Working: see the output.")

    def interrupt(self) -> None:
        """Ask the process to end, as Ctrl-C does: it writes its checkpoint first."""
        pid = self._process.processId() if self._process is not None else 0
        if self._process is None or not pid:  # 0: it has already ended; a signal to pid 0 would reach the viewer
            return
        if os.name == "nt":
            self._process.terminate()
        else:
            os.kill(pid, signal.SIGINT)
        self._stopping = True
        self._host.show_message("Stopping after this step.")

    @property
    def running(self) -> bool:
        """Whether a check, a plan or a training runs."""
        return self._process is not None

    def end(self) -> None:
        """Panel or window goes: let the process write its checkpoint, and end it."""
        self._timer.stop()
        process = self._process
        if process is None:
            return
        process.finished.disconnect(self._on_finished)
        self.interrupt()
        if not process.waitForFinished(_PATIENCE_MS):
            process.kill()
            process.waitForFinished()
        self._process = None

    def look(self) -> None:
        """Draw the current losses."""
        self.plot.show_points(losses_of(self._run_folder))
        self.use.setEnabled(model_of(self._run_folder) is not None)

    def _check(self) -> None:
        self.begin(["--check"])

    def _plan(self) -> None:
        folder = self._chosen_folder()
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            self.begin(["-o", str(folder), "--plan-only", str(folder / "plan-shown.yaml")])

    def _train(self) -> None:
        folder = self._chosen_folder()
        if folder is None:
            return
        self._run_folder = folder
        arguments = ["-o", str(folder), "--hours", f"{self.hours.value():g}"]
        if self.start_from.currentText() != FROM_NOTHING:
            arguments += ["--start-from", self.start_from.currentText()]
        if (folder / "checkpoint.pt").exists():
            arguments.append("--resume")
        self.begin(arguments)
        self._timer.start()

    def _chosen_folder(self) -> Path | None:
        if not self.folder.text():
            self._host.show_message("Choose a folder for the run first.", "Warning")
            return None
        return Path(self.folder.text())

    def _use(self) -> None:
        model = model_of(self._run_folder)
        if model is not None:
            self._use_model(model)

    def _on_output(self) -> None:
        if self._process is not None:
            text = bytes(self._process.readAllStandardOutput().data()).decode("utf-8", "replace")
            self.output.appendPlainText(text.rstrip())

    def _on_finished(self, code: int, _: object) -> None:
        self._on_output()
        self._process = None
        self._timer.stop()
        self._show_running(False)
        self.look()
        shown = Path(self.folder.text() or ".") / "plan-shown.yaml"
        if shown.is_file():
            self.output.setPlainText(shown.read_text(encoding="utf-8"))
            shown.unlink()
        if self._stopping:
            self._host.show_message("Stopped. Train goes on where it was broken off.")
        elif code:
            self._host.show_message("The training ended with an error: see its output in the panel.", "Error")
        else:
            self._host.show_message("Done.")

    def _show_running(self, running: bool) -> None:
        for control in (self.check, self.plan, self.train):
            control.setEnabled(not running)
        self.stop.setEnabled(running)
        self.use.setEnabled(model_of(self._run_folder) is not None)

    def _lay_out(self) -> None:
        rows = (
            ("Data", beside(self.manifest, _browse("choose the data", self._ask_manifest), stretch=False)),
            ("Run", beside(self.folder, _browse("choose the run folder", self._ask_folder), stretch=False)),
            ("Duration", self.hours),
            ("Start", self.start_from),
        )
        buttons = (beside(self.check, self.plan, stretch=True), beside(self.train, self.stop, stretch=True))
        column([form(rows), *buttons, self.plot, self.use, self.output], self, stretch=False)

    def _ask_manifest(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Manifest", filter="Manifests (*.json)")
        if path:
            self.manifest.setText(path)

    def _ask_folder(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Folder of the run", self.folder.text())
        if folder:
            self.folder.setText(folder)


def _browse(name: str, ask: Callable[[], None]) -> QWidget:
    return named(button("...", name, ask), name)
