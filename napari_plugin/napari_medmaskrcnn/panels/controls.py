"""Small Qt helpers: every control gets a name for screen readers, a tool tip and, if it has one, its shortcut."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QFormLayout,
    QFrame,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

Control = TypeVar("Control", bound=QWidget)

_MESSAGE_LINES = 3

_COLOURS = {"": "", "Warning": "#b8860b", "Error": "#c0392b"}


def named(control: Control, name: str, tip: str = "") -> Control:
    """Give a control its name for screen readers (and tests) and its tool tip; returns it."""
    control.setAccessibleName(name)
    control.setObjectName(name)
    control.setToolTip(tip or name)
    if tip:
        control.setAccessibleDescription(tip)
    return control


def button(text: str, tip: str, clicked: Callable[[], object], key: str = "") -> QPushButton:
    """A push button; its tool tip names its shortcut, which the caller must bind."""
    made = named(QPushButton(text), text, f"{tip} ({key})" if key else tip)
    made.clicked.connect(lambda _=False: clicked())
    made.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
    return made


def note(text: str = "") -> QLabel:
    """A paragraph of explanation that wraps."""
    label = QLabel(text)
    label.setWordWrap(True)
    label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    return label


def column(widgets: Iterable[QWidget], parent: QWidget | None = None, *, stretch: bool = True) -> QWidget:
    """Controls stacked vertically."""
    holder = parent or QWidget()
    layout = QVBoxLayout(holder)
    layout.setContentsMargins(6, 6, 6, 6)
    layout.setSpacing(5)
    for widget in widgets:
        layout.addWidget(widget)
    if stretch:
        layout.addStretch(1)
    return holder


def beside(first: QWidget, second: QWidget, *, stretch: bool) -> QWidget:
    """Two controls in a row; the second is as wide as the first if it may stretch."""
    holder = QWidget()
    layout = QHBoxLayout(holder)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.addWidget(first, 1)
    layout.addWidget(second, int(stretch))
    return holder


def form(rows: Iterable[tuple[str, QWidget]]) -> QWidget:
    """Controls with their labels to the left; each label holds the keyboard mnemonic of its control."""
    holder = QWidget()
    layout = QFormLayout(holder)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setVerticalSpacing(4)
    layout.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
    for text, control in rows:
        label = QLabel(text)
        label.setBuddy(control)
        layout.addRow(label, control)
    return holder


def line() -> QFrame:
    """A thin rule between groups."""
    rule = QFrame()
    rule.setFrameShape(QFrame.Shape.HLine)
    return rule


class Message(QWidget):
    """The place where a panel shows messages: plain, warning or error, with buttons where something can be done.

    Its height never changes, so that nothing moves under the mouse; a longer text scrolls. The kind is given in words
    as well as by colour, and the text can be selected and copied.
    """

    def __init__(self) -> None:
        super().__init__()
        self._label = note()
        self._label.setContentsMargins(4, 2, 4, 2)
        named(self._label, "message", "What happened last")
        self._buttons = QVBoxLayout()
        self._buttons.setContentsMargins(0, 0, 0, 0)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(6, 0, 6, 2)
        layout.addWidget(fixed_height(self._label, _MESSAGE_LINES), 1)
        layout.addLayout(self._buttons)
        self.setFixedHeight(_MESSAGE_LINES * self.fontMetrics().lineSpacing() + 8)

    def text(self) -> str:
        """The message that is shown."""
        return self._label.text()

    def show_message(self, text: str, kind: str = "") -> None:
        """Show a sentence; ``kind`` is ``""``, ``"Warning"`` or ``"Error"``."""
        colour = _COLOURS[kind]
        self._label.setStyleSheet(f"border-left: 4px solid {colour}; padding-left: 6px;" if colour else "")
        self._label.setText(f"{kind}: {text}" if kind else text)
        self._label.setAccessibleDescription(self._label.text())
        while (item := self._buttons.takeAt(0)) is not None:
            if (old := item.widget()) is not None:
                old.hide()
                old.deleteLater()

    def offer(self, text: str, actions: Mapping[str, Callable[[], object]]) -> None:
        """Show a sentence with buttons for what can be done about it."""
        self.show_message(text)
        for name, action in actions.items():
            made = button(name, text, action)
            made.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
            self._buttons.addWidget(made)
        self._buttons.addStretch(1)


def fixed_height(label: QLabel, lines: int) -> QScrollArea:
    """A label in a place of a fixed number of lines, so that nothing below it moves; a longer text scrolls."""
    label.setAlignment(Qt.AlignmentFlag.AlignTop | Qt.AlignmentFlag.AlignLeft)
    scroll = QScrollArea()
    scroll.setWidgetResizable(True)
    scroll.setFrameShape(QFrame.Shape.NoFrame)
    scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    scroll.setWidget(label)
    scroll.setFixedHeight(lines * label.fontMetrics().lineSpacing() + 6)
    return scroll


def keep_place(control: Control) -> Control:
    """A control that keeps its place while it is hidden, so that nothing below it moves; returns it."""
    policy = control.sizePolicy()
    policy.setRetainSizeWhenHidden(True)
    control.setSizePolicy(policy)
    return control
