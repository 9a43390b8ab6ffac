"""The reviews that are open, of which the panels show one; without napari or Qt."""

from __future__ import annotations

from psygnal import Signal

from napari_medmaskrcnn.core.review_model import ReviewModel


class Reviews:
    """Open reviews in the order in which they were opened.

    Attributes:
        all: The reviews.
        current: The one that is shown; ``None`` if none is open.
    """

    changed = Signal()
    """Emitted when a review was opened or closed, or another one is shown."""

    def __init__(self) -> None:
        self.all: list[ReviewModel] = []
        self.current: ReviewModel | None = None

    def show(self, review: ReviewModel) -> None:
        """Show a review; it is opened if it is not open yet, and the others stay open."""
        if review not in self.all:
            review.title = _free_title(review.title, [one.title for one in self.all])
            self.all.append(review)
        self.current = review
        self.changed.emit()

    def close(self, review: ReviewModel) -> None:
        """Close a review without saving it; the one opened before it is shown in its place."""
        at = self.all.index(review)
        self.all.remove(review)
        if review is self.current:
            self.current = self.all[max(0, at - 1)] if self.all else None
        self.changed.emit()

    @property
    def unsaved(self) -> list[ReviewModel]:
        """The reviews with changes that are not saved."""
        return [review for review in self.all if review.unsaved]


def _free_title(title: str, taken: list[str]) -> str:
    """A title that no other review has: its number is added where needed."""
    names = (title, *(f"{title} ({n})" for n in range(2, len(taken) + 2)))
    return next(name for name in names if name not in taken)
