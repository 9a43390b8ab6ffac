"""The table of instances: sort, filter, hide, jump to an instance, export."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QAbstractTableModel, QItemSelection, QItemSelectionModel, QModelIndex, QSortFilterProxyModel, Qt
from qtpy.QtGui import QColor, QKeySequence
from qtpy.QtWidgets import (
    QAbstractItemView,
    QApplication,
    QCheckBox,
    QHBoxLayout,
    QHeaderView,
    QLineEdit,
    QMenu,
    QTableView,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from medmaskrcnn.report.units import in_volume_unit, volume_unit
from medmaskrcnn.structures.instances import Removal
from napari_medmaskrcnn.core.items import Item
from napari_medmaskrcnn.core.review_model import ReviewModel
from napari_medmaskrcnn.layers.colours import class_rgb
from napari_medmaskrcnn.panels.controls import named
from napari_medmaskrcnn.panels.host import Host

SORT_ROLE = Qt.ItemDataRole.UserRole
NUMBER, CLASS = 0, 1
"""Columns of the instance's number, as messages name it, and of its class."""

_FURTHER = (5, 6)
"""Columns that are shown on demand, for which the narrow panel has no room beside the class."""

_MEANINGS = (
    "number of the instance; tick to show or hide",
    "class",
    "score, 0 to 1",
    "volume",
    "longest axial diameter",
    "diameter perpendicular to the longest",
    "mean intensity, in the scan's own units (HU for CT)",
)
_MARKS = {"accepted": " ✓", "rejected": " ✗", "": ""}
_REMOVALS = {
    Removal.NONE: "",
    Removal.CONTAINED: "removed: better ones of its class contain it",
    Removal.DUPLICATE: "removed: a body has one, and another is better",
}


_BOXES = """
QTableView::indicator {width: 11px; height: 11px; border: 1px solid palette(text); border-radius: 2px;}
QTableView::indicator:checked {background: palette(highlight);}
QHeaderView::section {padding: 1px 2px; font-size: 8pt;}
"""
"""napari's dark theme draws a box that is not ticked in the colour of the background; narrow heads fit the panel."""


class InstanceModel(QAbstractTableModel):
    """A review's instances as rows: those in the result, or all candidates."""

    def __init__(self) -> None:
        super().__init__()
        self.review: ReviewModel | None = None
        self.keys: list[int] = []
        self.with_all = False

    def load(self, review: ReviewModel | None) -> None:
        """Show another review, or the same one after a change."""
        self.beginResetModel()
        self.review = review
        if review is None:
            self.keys = []
        else:
            kept = review.keys_in()
            others = sorted(review.items.keys() - set(kept), key=lambda k: -review.items[k].score)
            self.keys = [*kept, *(others if self.with_all else [])]
        self.endResetModel()

    def columns(self) -> tuple[str, ...]:
        """Column headers; sizes include their unit."""
        known = self.review is None or self.review.volume.grid.spacing_known
        unit = "mm" if known else "px"
        return ("no.", "class", "score", volume_unit(unit), f"ø {unit}", f"⊥ {unit}", "mean")

    def rowCount(self, parent: QModelIndex | None = None) -> int:
        """Number of rows."""
        return len(self.keys)

    def columnCount(self, parent: QModelIndex | None = None) -> int:
        """Number of columns."""
        return len(self.columns())

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """A column's header, and its explanation."""
        if orientation != Qt.Orientation.Horizontal:
            return None
        if role == Qt.ItemDataRole.DisplayRole:
            return self.columns()[section]
        return _MEANINGS[section] if role in (Qt.ItemDataRole.ToolTipRole, Qt.ItemDataRole.AccessibleTextRole) else None

    def flags(self, index: QModelIndex) -> Qt.ItemFlag:
        """The first cell has a check box: shown or hidden."""
        flags = super().flags(index)
        return flags | Qt.ItemFlag.ItemIsUserCheckable if index.column() == NUMBER else flags

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """The content of a cell."""
        if self.review is None or not index.isValid():
            return None
        item = self.review.items[self.keys[index.row()]]
        value = _values(item)[index.column()]
        if role == SORT_ROLE:
            return value if value is not None else -1.0
        if role == Qt.ItemDataRole.DisplayRole:
            return f"{value}{_MARKS[item.verdict]}" if index.column() == CLASS else _text(value, index.column())
        if role == Qt.ItemDataRole.TextAlignmentRole and index.column() > CLASS:
            return Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        if role == Qt.ItemDataRole.DecorationRole and index.column() == CLASS:
            return QColor(*class_rgb(self.review.class_names, item.class_name))
        if role == Qt.ItemDataRole.CheckStateRole and index.column() != NUMBER:
            return None
        return self._first_cell(item, role) if index.column() in (NUMBER, CLASS) else None

    def _first_cell(self, item: Item, role: int) -> Any:
        assert self.review is not None
        if role == Qt.ItemDataRole.CheckStateRole:
            shown = item.key not in self.review.hidden
            return Qt.CheckState.Checked if shown else Qt.CheckState.Unchecked
        if role == Qt.ItemDataRole.ToolTipRole:
            state = "in the result" if self.review.is_in(item.key) else "not in the result"
            return ", ".join(
                filter(None, (f"instance {item.key}", item.verdict or "not looked at", state, _REMOVALS[item.removed]))
            )
        return None

    def setData(self, index: QModelIndex, value: Any, role: int = Qt.ItemDataRole.EditRole) -> bool:
        """Show or hide an instance when its box is ticked."""
        if role != Qt.ItemDataRole.CheckStateRole or self.review is None:
            return False
        shown = Qt.CheckState(value) == Qt.CheckState.Checked
        self.review.set_hidden([self.keys[index.row()]], hidden=not shown)
        return True


class InstanceTable(QWidget):
    """The table with its filter.

    Args:
        host: What the panels share.
    """

    def __init__(self, host: Host) -> None:
        super().__init__()
        self._host = host
        self._following = False
        self.model = InstanceModel()
        self.proxy = QSortFilterProxyModel()
        self.proxy.setSourceModel(self.model)
        self.proxy.setSortRole(SORT_ROLE)
        self.proxy.setFilterKeyColumn(CLASS)
        self.proxy.setFilterCaseSensitivity(Qt.CaseSensitivity.CaseInsensitive)
        self.view = named(QTableView(), "instances", "Click a row to fly to the instance; tick to show or hide it")
        self.filter = named(QLineEdit(), "filter", "Show only classes whose name contains this")
        self.all = named(
            QCheckBox("all candidates"), "all candidates", "List what is below the threshold, rejected or removed too"
        )
        self._lay_out()
        self.filter.textChanged.connect(self.proxy.setFilterFixedString)
        self.all.toggled.connect(self._on_all)
        self.view.selectionModel().selectionChanged.connect(self._on_rows)
        self.view.clicked.connect(lambda _: self._fly())
        host.session_changed.connect(self._on_session)
        host.edited.connect(self.reload)
        host.shown_changed.connect(self.reload)
        host.selection_changed.connect(self._mark_selected)

    def keys_in_view(self) -> list[int]:
        """Keys of the rows, in the order they are shown."""
        rows = range(self.proxy.rowCount())
        return [self.model.keys[self.proxy.mapToSource(self.proxy.index(row, 0)).row()] for row in rows]

    def reload(self, *_: object) -> None:
        """Update the table from the review."""
        self._following = True
        self.model.load(self._host.review)
        self._following = False
        self._mark_selected()

    def _lay_out(self) -> None:
        view = self.view
        view.setModel(self.proxy)
        view.setSortingEnabled(True)
        view.horizontalHeader().setSortIndicator(-1, Qt.SortOrder.AscendingOrder)
        view.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        view.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        view.setMinimumHeight(120)
        view.verticalHeader().hide()
        view.verticalHeader().setDefaultSectionSize(22)
        view.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        view.horizontalHeader().setSectionResizeMode(CLASS, QHeaderView.ResizeMode.Stretch)
        view.horizontalHeader().setMinimumSectionSize(28)
        view.setStyleSheet(_BOXES)
        view.setContextMenuPolicy(Qt.ContextMenuPolicy.ActionsContextMenu)
        self.filter.setPlaceholderText("filter by class")
        self.filter.setClearButtonEnabled(True)
        self.more = named(QToolButton(), "more of the table", "Show only some, accept all, copy, choose columns")
        self.more.setText("...")
        self.more.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self.more.setMenu(self._menu())  # after the view has its model, whose columns it hides
        top = QHBoxLayout()
        top.addWidget(self.filter, 1)
        top.addWidget(self.all)
        top.addWidget(self.more)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addLayout(top)
        layout.addWidget(view, 1)

    def show_only_selected(self) -> None:
        """Hide all instances but the selected ones."""
        review, chosen = self._host.review, set(self._host.selected)
        if review is not None and chosen:
            review.set_hidden(chosen, hidden=False)
            review.set_hidden(review.items.keys() - chosen, hidden=True)

    def show_all(self) -> None:
        """Show all instances again."""
        if self._host.review is not None:
            self._host.review.set_hidden(list(self._host.review.hidden), hidden=False)

    def accept_all(self) -> None:
        """Accept every instance that the table lists and that is in the result."""
        review = self._host.review
        if review is not None:
            review.decide([key for key in self.keys_in_view() if review.is_in(key)], "accepted")

    def copy(self) -> None:
        """Copy the selected rows, or all, with the header, as spreadsheets paste them."""
        view = self.view
        rows = sorted({index.row() for index in view.selectionModel().selectedRows()}) or range(self.proxy.rowCount())
        shown = [c for c in range(self.proxy.columnCount()) if not view.isColumnHidden(c)]
        lines = [[self.model.columns()[c] for c in shown]]
        lines += [[str(self.proxy.index(row, c).data() or "") for c in shown] for row in rows]
        QApplication.clipboard().setText("\n".join("\t".join(line) for line in lines))

    def _menu(self) -> QMenu:
        menu = QMenu(self)
        menu.addAction("Show only the selected ones", self.show_only_selected)
        menu.addAction("Show all", self.show_all)
        menu.addAction("Accept all in the list", self.accept_all)
        copy = menu.addAction("Copy", self.copy)
        copy.setShortcut(QKeySequence(QKeySequence.StandardKey.Copy))
        copy.setShortcutContext(Qt.ShortcutContext.WidgetShortcut)
        self.view.addActions(menu.actions())
        self.by_instance = menu.addAction("A colour for each instance")
        self.by_instance.setCheckable(True)
        self.by_instance.triggered.connect(self._on_colours)
        columns = menu.addMenu("Columns")
        for place, meaning in enumerate(_MEANINGS):
            shown = columns.addAction(meaning.partition(";")[0].partition(",")[0])
            shown.setCheckable(True)
            shown.setChecked(place not in _FURTHER)
            shown.setEnabled(place != NUMBER)
            shown.toggled.connect(lambda on, place=place: self.view.setColumnHidden(place, not on))
            self.view.setColumnHidden(place, place in _FURTHER)
        return menu

    def _on_colours(self, on: bool) -> None:
        if self._host.canvas is not None:
            self._host.canvas.colour_by_instance(on)

    def _on_session(self) -> None:
        if self._host.canvas is not None:
            self.by_instance.setChecked(self._host.canvas.by_instance)
        self.reload()

    def _on_all(self, ticked: bool) -> None:
        self.model.with_all = ticked
        self.reload()

    def _on_rows(self, *_: object) -> None:
        if self._following:
            return
        rows = self.view.selectionModel().selectedRows()
        self._host.select(tuple(self.model.keys[self.proxy.mapToSource(row).row()] for row in rows))
        if len(rows) == 1 and self.view.hasFocus():  # the arrow keys go from one instance to the next
            self._fly()

    def _fly(self) -> None:
        if self._host.canvas is not None and self._host.selected:
            self._host.canvas.center_on(self._host.selected[-1])

    def _mark_selected(self) -> None:
        self._following = True
        chosen = QItemSelection()
        last = None
        for row, key in enumerate(self.keys_in_view()):
            if key in self._host.selected:
                last = self.proxy.index(row, 0)
                chosen.select(last, self.proxy.index(row, self.proxy.columnCount() - 1))
        self.view.selectionModel().select(chosen, QItemSelectionModel.SelectionFlag.ClearAndSelect)
        if last is not None:  # where the arrow keys and Space go on from
            self.view.selectionModel().setCurrentIndex(last, QItemSelectionModel.SelectionFlag.NoUpdate)
            self.view.scrollTo(last)
        self._following = False


def _values(item: Item) -> tuple[Any, ...]:
    size = item.size
    lengths = (size.longest_axial_diameter, size.perpendicular_diameter)
    return (
        item.key,
        item.class_name,
        item.score,
        in_volume_unit(size.volume_unit3, size.unit),
        *lengths,
        size.mean_intensity,
    )


def _text(value: float | None, column: int) -> str:
    if value is None:
        return ""
    if column == NUMBER:
        return str(value)
    return f"{value:.2f}" if column == 2 or abs(value) < 10 else f"{value:.1f}" if abs(value) < 1000 else f"{value:.0f}"
