"""A small plot of the loss over steps, drawn with Qt alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

from qtpy.QtCore import QPointF, QRectF, Qt
from qtpy.QtGui import QPainter, QPaintEvent, QPen, QPolygonF
from qtpy.QtWidgets import QWidget

_MARGIN = 34
_SMOOTHED = 20


class LossPlot(QWidget):
    """The total loss by step: single values faint, the moving mean bold, on a logarithmic axis."""

    def __init__(self) -> None:
        super().__init__()
        self.points: list[tuple[float, float]] = []
        self.setMinimumHeight(130)

    def show_points(self, points: Sequence[tuple[float, float]]) -> None:
        """Draw (step, loss) pairs; losses that are not positive are left out."""
        self.points = [(step, loss) for step, loss in points if loss > 0 and math.isfinite(loss)]
        last = f"step {self.points[-1][0]:g}, loss {self.points[-1][1]:.3g}" if self.points else "no losses yet"
        self.setAccessibleDescription(last)
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw frame, both lines, and the ends of the axes."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        area = QRectF(self.rect()).adjusted(_MARGIN, 6, -6, -18)
        text = self.palette().windowText().color()
        painter.setPen(text)
        painter.drawRect(area)
        if len(self.points) < 2:
            painter.drawText(area, Qt.AlignmentFlag.AlignCenter, "losses appear here")
            return
        steps, losses = zip(*self.points, strict=True)
        low, high = min(losses), max(losses)
        self._draw(painter, area, self.points, low, high, QPen(text, 0.6))
        self._draw(painter, area, smoothed(self.points), low, high, QPen(self.palette().highlight().color(), 2.0))
        painter.setPen(text)
        painter.drawText(QPointF(2, area.top() + 10), f"{high:.2g}")
        painter.drawText(QPointF(2, area.bottom()), f"{low:.2g}")
        painter.drawText(QPointF(area.left(), area.bottom() + 15), f"step {steps[0]:g}")
        painter.drawText(
            QRectF(area.left(), area.bottom() + 2, area.width(), 16), Qt.AlignmentFlag.AlignRight, f"{steps[-1]:g}"
        )

    def _draw(
        self,
        painter: QPainter,
        area: QRectF,
        points: Sequence[tuple[float, float]],
        low: float,
        high: float,
        pen: QPen,
    ) -> None:
        first, last = self.points[0][0], self.points[-1][0]
        span = math.log(high / low) or 1.0
        line = QPolygonF(
            [
                QPointF(
                    area.left() + area.width() * (step - first) / max(last - first, 1),
                    area.bottom() - area.height() * math.log(loss / low) / span,
                )
                for step, loss in points
            ]
        )
        painter.setPen(pen)
        painter.drawPolyline(line)


def smoothed(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Moving mean of the last steps."""
    found, window = [], []
    for step, loss in points:
        window.append(loss)
        recent = window[-_SMOOTHED:]
        found.append((step, sum(recent) / len(recent)))
    return found
