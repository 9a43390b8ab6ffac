"""Who draws a result: registered by the package's face, since this room imports no drawing code.

``medmaskrcnn/__init__.py`` registers :mod:`medmaskrcnn.report.case_view`, which is loaded when a result is first shown.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from medmaskrcnn.structures.case_result import CaseResult
    from medmaskrcnn.structures.volume import Volume


class Renderer(Protocol):
    """Draws results."""

    def html(self, result: CaseResult) -> str:
        """A result as an HTML fragment with a picture and a table, for a notebook."""

    def figure(self, result: CaseResult, volume: Volume | None) -> Figure:
        """A result as a figure of matplotlib, on its scan if that is given or can be read again."""


_registered: list[Callable[[], Renderer]] = []


def register_renderer(load: Callable[[], Renderer]) -> None:
    """Register the renderer that results are drawn by; ``load`` is called when one is first drawn."""
    _registered[:] = [load]


def renderer() -> Renderer:
    """The registered renderer.

    Raises:
        RuntimeError: if none was registered.
    """
    if not _registered:
        raise RuntimeError("no renderer is registered; import medmaskrcnn first")
    return _registered[0]()
