"""A line chart as SVG that fills its container; the axis ends are given in the caption, readable on a phone."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

_WIDTH, _HEIGHT = 600, 180


def line_chart(
    steps: Sequence[float], values: Sequence[float], *, label: str, top: float, smooth: Sequence[float] = ()
) -> str:
    """Values over steps, from 0 to ``top``.

    Args:
        steps: Ascending steps.
        values: One per step; drawn faint if a smoothed line is given.
        label: Text alternative for screen readers.
        top: Value at the upper edge; higher ones are clipped.
        smooth: A second line over the same steps.
    """
    lines = [(values, "raw" if smooth else "main"), *([(smooth, "main")] if smooth else [])]
    drawn = "".join(f'<polyline class="{kind}" points="{_points(steps, line, top)}"/>' for line, kind in lines)
    grid = "".join(f'<line x1="0" x2="{_WIDTH}" y1="{y}" y2="{y}"/>' for y in (0, _HEIGHT // 2, _HEIGHT))
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" preserveAspectRatio="none" role="img" aria-label="{escape(label)}" '
        f'class="chart">{grid}{drawn}</svg>'
    )


def moving_mean(values: Sequence[float], window: int) -> list[float]:
    """The mean of up to ``window`` values, ending at each value."""
    means, total = [], 0.0
    for i, value in enumerate(values):
        total += value - (values[i - window] if i >= window else 0.0)
        means.append(total / min(i + 1, window))
    return means


def _points(steps: Sequence[float], values: Sequence[float], top: float) -> str:
    if len(steps) == 1:  # a line would be invisible
        steps, values = [0.0, 1.0], [values[0], values[0]]
    first, last = (steps[0], steps[-1]) if steps else (0.0, 1.0)
    across, up = _WIDTH / max(last - first, 1e-9), _HEIGHT / max(top, 1e-12)
    return " ".join(
        f"{(step - first) * across:.1f},{_HEIGHT - min(max(value, 0), top) * up:.1f}"
        for step, value in zip(steps, values, strict=True)
    )
