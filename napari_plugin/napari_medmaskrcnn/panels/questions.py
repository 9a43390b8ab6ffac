"""Questions to the user that have to be answered before anything happens."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtWidgets import QMessageBox, QWidget

from napari_medmaskrcnn.panels.controls import named

CANCEL = "Cancel"


def ask(parent: QWidget | None, question: str, explanation: str, choices: Sequence[str]) -> str:
    """Ask, and wait for the answer.

    Args:
        parent: The widget that the question belongs to.
        question: One sentence.
        explanation: What each choice does, or what it is about.
        choices: The answers as buttons, the safest first: it is chosen by Return. Cancel is always added.

    Returns:
        The chosen one, or :data:`CANCEL`, also where the window was closed.
    """
    box = named(QMessageBox(parent), "question", question)
    box.setWindowTitle("medmaskrcnn")
    box.setIcon(QMessageBox.Icon.Question)
    box.setText(question)
    box.setInformativeText(explanation)
    buttons = {box.addButton(text, QMessageBox.ButtonRole.AcceptRole): text for text in choices}
    cancel = box.addButton(CANCEL, QMessageBox.ButtonRole.RejectRole)
    box.setDefaultButton(next(iter(buttons), cancel))
    box.setEscapeButton(cancel)
    box.exec()
    return buttons.get(box.clickedButton(), CANCEL)
