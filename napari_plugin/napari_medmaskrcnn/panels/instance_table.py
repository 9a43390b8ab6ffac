"""The table of instances: sort, filter, hide, jump to an instance, export."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QAbstractTableModel, QItemSelection, QItemSelectionModel, QModelIndex, QSortFilterProxyModel, Qt
from qtpy.QtGui import QColor
from qtpy.QtWidgets import (
    QAbstractItemView,
    QCheckBox,
    QHBoxLayout,
    QHeaderView,
    QLineEdit,
    QTableView,
    QVBoxLayout,
    QWidget,
)

from medmaskrcnn.report.units import in_volume_unit, volume_unit
from napari_medmaskrcnn.core.items import Item
from napari_medmaskrcnn.core.review_model import ReviewModel
from napari_medmaskrcnn.layers.colours import class_rgb
from napari_medmaskrcnn.panels.controls import named
from napari_medmaskrcnn.panels.host import Host

SORT_ROLE = Qt.ItemDataRole.UserRole
_CLASS_WIDTH = 126
_MEANINGS = (
    "class; tick to show or hide",
    "score, 0 to 1",
    "volume",
    "longest axial diameter",
    "diameter perpendicular to the longest",
    "mean intensity, in the scan's own units (HU for CT)",
)
_MARKS = {"accepted": " ✓", "rejected": " ✗", "": ""}


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
        return ("class", "score", volume_unit(unit), f"ø {unit}", f"⊥ {unit}", "mean")

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
        """The class cell has a check box: shown or hidden."""
        flags = super().flags(index)
        return flags | Qt.ItemFlag.ItemIsUserCheckable if index.column() == 0 else flags

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """The content of a cell."""
        if self.review is None or not index.isValid():
            return None
        item = self.review.items[self.keys[index.row()]]
        value = _values(item)[index.column()]
        if role == SORT_ROLE:
            return value if value is not None else -1.0
        if role == Qt.ItemDataRole.DisplayRole:
            return f"{value}{_MARKS[item.verdict]}" if index.column() == 0 else _text(value, index.column())
        if role == Qt.ItemDataRole.TextAlignmentRole and index.column():
            return Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        return self._first_cell(item, role) if index.column() == 0 else None

    def _first_cell(self, item: Item, role: int) -> Any:
        assert self.review is not None
        if role == Qt.ItemDataRole.DecorationRole:
            return QColor(*class_rgb(self.review.class_names, item.class_name))
        if role == Qt.ItemDataRole.CheckStateRole:
            shown = item.key not in self.review.hidden
            return Qt.CheckState.Checked if shown else Qt.CheckState.Unchecked
        if role == Qt.ItemDataRole.ToolTipRole:
            state = "in the result" if self.review.is_in(item.key) else "not in the result"
            return f"instance {item.key}, {item.verdict or 'not looked at'}, {state}"
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
        self.proxy.setFilterCaseSensitivity(Qt.CaseSensitivity.CaseInsensitive)
        self.view = named(QTableView(), "instances", "Click a row to fly to the instance; tick to show or hide it")
        self.filter = named(QLineEdit(), "filter", "Show only classes whose name contains this")
        self.all = named(
            QCheckBox("all candidates"), "all candidates", "List what is below the threshold or rejected too"
        )
        self._lay_out()
        self.filter.textChanged.connect(self.proxy.setFilterFixedString)
        self.all.toggled.connect(self._on_all)
        self.view.selectionModel().selectionChanged.connect(self._on_rows)
        self.view.clicked.connect(lambda _: self._fly())
        host.session_changed.connect(self._on_session)
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
        view.horizontalHeader().setSectionResizeMode(0, QHeaderView.ResizeMode.Interactive)
        view.setColumnWidth(0, _CLASS_WIDTH)
        self.filter.setPlaceholderText("filter by class")
        self.filter.setClearButtonEnabled(True)
        top = QHBoxLayout()
        top.addWidget(self.filter, 1)
        top.addWidget(self.all)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addLayout(top)
        layout.addWidget(view, 1)

    def _on_session(self) -> None:
        if self._host.review is not None:
            self._host.review.edited.connect(self.reload)
            self._host.review.shown_changed.connect(self.reload)
        self.reload()

    def _on_all(self, ticked: bool) -> None:
        self.model.with_all = ticked
        self.reload()

    def _on_rows(self, *_: object) -> None:
        if self._following:
            return
        rows = self.view.selectionModel().selectedRows()
        self._host.select(tuple(self.model.keys[self.proxy.mapToSource(row).row()] for row in rows))

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
        if last is not None:
            self.view.scrollTo(last)
        self._following = False


def _values(item: Item) -> tuple[Any, ...]:
    size = item.size
    lengths = (size.longest_axial_diameter, size.perpendicular_diameter)
    return (item.class_name, item.score, in_volume_unit(size.volume_unit3, size.unit), *lengths, size.mean_intensity)


def _text(value: float | None, column: int) -> str:
    if value is None:
        return ""
    return f"{value:.2f}" if column == 1 or abs(value) < 10 else f"{value:.1f}" if abs(value) < 1000 else f"{value:.0f}"
