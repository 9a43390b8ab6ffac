"""A review as a document: a scan, every candidate, thresholds, the user's decisions, undo, and whether it is saved.

Independent of napari and Qt: widgets call its methods, and the canvas and the table follow its two signals.
:mod:`.reviews` holds those that are open, :mod:`.autosave` keeps a copy of each on the disk.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal

from medmaskrcnn.inference.measure import measure_instances
from medmaskrcnn.structures.case_result import CaseResult, Measurement, Review, RunRecord
from medmaskrcnn.structures.instances import Removal
from medmaskrcnn.structures.mask import Mask
from medmaskrcnn.structures.volume import Volume
from napari_medmaskrcnn.core.items import Item, Verdict, divided, to_instances

NO_SIZE = Measurement("mm", 0.0, None, None, None, None, None, None)
"""Placeholder for a measurement not made yet."""


class ReviewModel:
    """A result under review.

    Attributes:
        volume: The scan.
        record: Provenance of the result.
        run: The part of the provenance that varies from run to run.
        items: Every instance by key, including those below the threshold, rejected or removed.
        class_names: The classes; those of the model come first.
        threshold: Score from which an instance is in the result.
        class_thresholds: The thresholds of single classes, where they differ.
        hidden: Keys that the user has hidden; they stay in the result.
        title: What it is called in the panels; it must not contain patient data.
        model: The model that it was made with, a name or a file; "" if it is not known.
        folder: Where it was saved, or came from; ``None`` while it has no place.
    """

    edited = Signal(object)
    """Emitted with the set of keys whose items changed, came or went."""
    shown_changed = Signal()
    """Emitted when thresholds or hiding changed which instances are in or shown; items are the same."""

    def __init__(self, volume: Volume, result: CaseResult, *, title: str = "", saved: bool = True) -> None:
        if volume.grid != result.candidates.grid:
            raise ValueError("the result was not made on this scan: their grids differ")
        self.volume = volume
        self.title = title or result.record.model_name
        self.model = ""
        self.folder: Path | None = None
        self.record: RunRecord = result.record
        self.run: dict[str, Any] = result.run
        self.class_names = result.candidates.class_names
        self.threshold = float(result.score_threshold)
        self.class_thresholds = dict(result.review.class_thresholds) if result.review else {}
        self.hidden: set[int] = set()
        self.items: dict[int, Item] = {item.key: item for item in _items_of(result)}
        self._next_key = len(self.items) + 1
        self._done: list[tuple[str, dict[int, Item]]] = []
        self._undone: list[tuple[str, dict[int, Item]]] = []
        self._saved = self.state() if saved else None

    @property
    def unsaved(self) -> bool:
        """Whether it differs from what was last saved or opened; a new result is unsaved until it is written."""
        return self._saved != self.state()

    def mark_saved(self, folder: Path | None = None, state: tuple[object, ...] | None = None) -> None:
        """The present state, or that which :meth:`state` gave before, is on the disk, in ``folder``."""
        self._saved = state or self.state()
        self.folder = folder or self.folder

    def to_result(self) -> CaseResult:
        """The review as a result: all candidates by descending score, with the user's decisions."""
        items = sorted(self.items.values(), key=lambda item: (-item.score, item.key))
        review = Review(
            accepted=tuple(i for i, item in enumerate(items) if item.verdict == "accepted"),
            rejected=tuple(i for i, item in enumerate(items) if item.verdict == "rejected"),
            changed=tuple(i for i, item in enumerate(items) if item.changed),
            class_thresholds=dict(sorted(self.class_thresholds.items())),
        )
        return CaseResult(
            candidates=to_instances(self.volume.grid, self.class_names, items),
            score_threshold=self.threshold,
            measurements=tuple(item.size for item in items),
            record=self.record,
            run=self.run,
            review=None if review == Review() else review,
        )

    def is_in(self, key: int) -> bool:
        """Whether an instance is in the result: by the user's decision, else by its score if it was not removed."""
        item = self.items[key]
        if item.verdict:
            return item.verdict == "accepted" and not item.mask.is_empty
        threshold = self.class_thresholds.get(item.class_name, self.threshold)
        counts = item.removed == Removal.NONE and not item.mask.is_empty
        return counts and bool(np.float32(item.score) >= np.float32(threshold))

    def keys_in(self) -> list[int]:
        """Keys of the result's instances, ordered by class, then by descending score."""
        order = {name: i for i, name in enumerate(self.class_names)}
        found = (self.items[key] for key in self.items if self.is_in(key))
        return [i.key for i in sorted(found, key=lambda i: (order[i.class_name], -i.score, i.key))]

    def keys_shown(self) -> set[int]:
        """Keys of the instances to draw: in the result and not hidden."""
        return {key for key in self.items if key not in self.hidden and self.is_in(key)}

    def set_threshold(self, score: float, class_name: str | None = None) -> None:
        """Set the score threshold of a class, or of all that have none of their own."""
        if class_name is None:
            self.threshold = float(score)
        else:
            self.class_thresholds[class_name] = float(score)
        self.shown_changed.emit()

    def clear_class_thresholds(self) -> None:
        """Let one threshold hold for all classes."""
        self.class_thresholds.clear()
        self.shown_changed.emit()

    def set_hidden(self, keys: Iterable[int], hidden: bool) -> None:
        """Hide instances from view, or show them again."""
        self.hidden = self.hidden | set(keys) if hidden else self.hidden - set(keys)
        self.shown_changed.emit()

    def decide(self, keys: Iterable[int], verdict: Verdict) -> None:
        """Accept or reject instances, or let their score decide again."""
        new = {key: replace(self.items[key], verdict=verdict) for key in keys}
        if not new:
            return
        self._apply({"accepted": "accept", "rejected": "reject", "": "undecide"}[verdict], new)

    def relabel(self, keys: Iterable[int], class_name: str) -> None:
        """Give instances another class; a new name is added to the classes. Whoever names them accepts them."""
        name = self._class(class_name)
        new = {k: replace(self.items[k], class_name=name, changed=True, verdict="accepted") for k in keys}
        self._apply(f"relabel as {name}", new)

    def delete(self, keys: Iterable[int]) -> None:
        """Delete instances; unlike rejected ones they are not saved."""
        self._apply("delete", {}, gone=set(keys))

    def merge(self, keys: Iterable[int]) -> int:
        """Merge several instances into one, with the class of the highest score; returns its key.

        Raises:
            ValueError: if fewer than two instances with voxels are given.
        """
        chosen = (self.items[k] for k in set(keys))
        parts = sorted((item for item in chosen if not item.mask.is_empty), key=lambda item: (-item.score, item.key))
        if len(parts) < 2:
            raise ValueError("Select two or more instances to merge.")
        whole = self._reshaped(parts[0], parts[0].mask.union(*(part.mask for part in parts[1:])))
        self._apply("merge", {whole.key: whole}, gone={part.key for part in parts[1:]})
        return whole.key

    def split(self, key: int) -> list[int]:
        """Split an instance into its connected components, or in two at its narrowest place; returns their keys.

        Raises:
            ValueError: if it has fewer than two voxels.
        """
        whole = self.items[key]
        if whole.mask.n_voxels < 2:
            raise ValueError("An instance of a single voxel cannot be split.")
        pieces = divided(whole.mask, self.volume.grid.voxel_size)
        keys = [key, *range(self._next_key, self._next_key + len(pieces) - 1)]
        self._next_key += len(pieces) - 1
        new = {k: self._reshaped(replace(whole, key=k), piece) for k, piece in zip(keys, pieces, strict=True)}
        self._apply("split", new)
        return keys

    def add(self, class_name: str, mask: Mask, box: NDArray[np.float32] | None = None) -> int:
        """Add an instance that a person drew; returns its key.

        Args:
            class_name: Its class.
            mask: Its voxels.
            box: ``(6,)``, minima D, H, W, then maxima, in voxels; by default the box around the mask.

        Raises:
            ValueError: if the mask has no voxel.
        """
        if mask.is_empty:
            raise ValueError("There is nothing in this place to add.")
        key = self._next_key
        self._next_key += 1
        item = self._reshaped(Item(key, self._class(class_name), 1.0, mask.box, mask, NO_SIZE, "accepted"), mask)
        self._apply("add", {key: item if box is None else replace(item, box=box)})
        return key

    def overlapping(self, found: CaseResult) -> dict[int, set[int]]:
        """What another result of this scan holds that is here already, at least in half, as the same class.

        Returns:
            Index of each such candidate of ``found``, and the keys of the instances that it lies on.
        """
        return self._lying_on(found, found.kept, self.keys_in())

    def extend(self, found: CaseResult, *, leave_out: Iterable[int] = (), in_place_of: Iterable[int] = ()) -> list[int]:
        """Add what another run found on this scan, as one change; returns the keys.

        Args:
            found: The other result. Of its candidates below the threshold those are added that are not here already.
            leave_out: Indices of candidates not to be added.
            in_place_of: Keys of instances that are deleted.
        """
        others = [i for i in range(len(found.candidates)) if i not in found.kept]
        without = {*leave_out, *self._lying_on(found, others, self.items)}
        new: dict[int, Item] = {}
        for i in (i for i in (*found.kept, *others) if i not in without):
            some = found.candidates
            name = self._class(some.class_names[some.labels[i]])
            size, score, removed = found.measurements[i], float(some.scores[i]), Removal(some.removed[i])
            item = Item(self._next_key, name, score, some.boxes[i], some.masks[i], size, removed=removed)
            new[self._next_key] = item
            self._next_key += 1
        warnings = dict.fromkeys((*self.record.warnings, *found.record.warnings))
        out = self.record.out_of_domain or found.record.out_of_domain
        self.record = replace(self.record, warnings=tuple(warnings), out_of_domain=out)
        if new or in_place_of:
            self._apply("add a region", new, gone=in_place_of)
        return list(new)

    def repaint(self, masks: Mapping[int, tuple[str, Mask]]) -> None:
        """Apply masks that the user painted, by key, with their classes. A new key is a new instance.

        An instance without any voxels left is deleted.
        """
        new: dict[int, Item] = {}
        gone: set[int] = set()
        for key, (class_name, mask) in masks.items():
            if mask.is_empty:
                gone |= {key} & set(self.items)
                continue
            base = self.items.get(key) or Item(key, self._class(class_name), 1.0, mask.box, mask, NO_SIZE, "accepted")
            new[key] = self._reshaped(base, mask)
            self._next_key = max(self._next_key, key + 1)
        if new or gone:
            self._apply("paint", new, gone=gone)

    def unused_key(self) -> int:
        """The key that a new instance will get."""
        return self._next_key

    @property
    def undo_text(self) -> str:
        """Description of the change that undo would revert, ``""`` if there is none."""
        return self._done[-1][0] if self._done else ""

    @property
    def redo_text(self) -> str:
        """Description of the change that redo would repeat, ``""`` if there is none."""
        return self._undone[-1][0] if self._undone else ""

    def undo(self) -> None:
        """Undo the last change; nothing happens if there is none."""
        self._travel(self._done, self._undone)

    def redo(self) -> None:
        """Redo the change that was last undone; nothing happens if there is none."""
        self._travel(self._undone, self._done)

    def _lying_on(self, found: CaseResult, candidates: Iterable[int], keys: Iterable[int]) -> dict[int, set[int]]:
        """The candidates of a result that lie on instances of the same class, at least with half of the smaller one."""
        lie_on: dict[int, set[int]] = {}
        old, some = [self.items[key] for key in keys], found.candidates
        for i in candidates:
            name, mask = some.class_names[some.labels[i]], some.masks[i]
            for item in (item for item in old if item.class_name == name):
                least = min(mask.n_voxels, item.mask.n_voxels)
                if least and 2 * mask.overlap(item.mask) >= least:
                    lie_on.setdefault(i, set()).add(item.key)
        return lie_on

    def state(self) -> tuple[object, ...]:
        """What a file of it holds. Items are replaced, never changed: they are equal if they are the same object."""
        return self.items, self.threshold, dict(self.class_thresholds)

    def _travel(self, from_: list[tuple[str, dict[int, Item]]], to: list[tuple[str, dict[int, Item]]]) -> None:
        if not from_:
            return
        what, items = from_.pop()
        to.append((what, self.items))
        before, self.items = self.items, items
        self.edited.emit(_differing(before, items))

    def _apply(self, what: str, new: Mapping[int, Item], gone: Iterable[int] = ()) -> None:
        before, without = self.items, set(gone)
        self.items = {key: item for key, item in {**before, **new}.items() if key not in without}
        self._done.append((what, before))
        self._undone.clear()
        self.edited.emit(_differing(before, self.items))

    def _class(self, name: str) -> str:
        name = name.strip()
        if not name:
            raise ValueError("Give the class a name.")
        if name not in self.class_names:
            self.class_names = (*self.class_names, name)
        return name

    def _reshaped(self, item: Item, mask: Mask) -> Item:
        """An item with a mask that a person gave it, hence accepted: measured again, with a tight box around it."""
        tight = mask.tight()
        shaped = replace(item, mask=tight, box=tight.box, changed=True, verdict="accepted", removed=Removal.NONE)
        (size,) = measure_instances(self.volume, to_instances(self.volume.grid, (item.class_name,), [shaped]))
        return replace(shaped, size=size)


def _items_of(result: CaseResult) -> list[Item]:
    found, review = result.candidates, result.review or Review()
    accepted, rejected, changed = (set(some) for some in (review.accepted, review.rejected, review.changed))
    return [
        Item(
            key=i + 1,
            class_name=found.class_names[found.labels[i]],
            score=float(found.scores[i]),
            box=found.boxes[i],
            mask=found.masks[i],
            size=result.measurements[i],
            verdict="accepted" if i in accepted else "rejected" if i in rejected else "",
            changed=i in changed,
            removed=Removal(found.removed[i]),
        )
        for i in range(len(found))
    ]


def _differing(before: Mapping[int, Item], after: Mapping[int, Item]) -> set[int]:
    return {key for key in before.keys() | after.keys() if before.get(key) is not after.get(key)}
