"""Tells what the numbers of label maps without a description mean: objects, classes, or only inside and outside.

A map of objects (microscopy, LIDC) numbers them anew in every case; a map of classes gives one number the same meaning
in all cases; a mask (0 and 1, or 0 and 255) has one number for everything inside.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medmaskrcnn.errors import ReadError
from medmaskrcnn.structures.label_maps import NEIGHBOURS, label_windows
from medmaskrcnn_datasets.assemble import CountProgress
from medmaskrcnn_datasets.class_rules import SPECK
from medmaskrcnn_datasets.label_files import read_label_map

Numbering = Literal["mask", "objects", "classes"]

IGNORED_BY_CUSTOM = 255
"""Pascal VOC, Cityscapes and LIDC-like sets write it where nothing is to be learnt."""

_MOST_CLASSES = 40  # more numbers than this are objects
_CROWD = 10  # numbers in a case
_IN_ONE_PIECE = 0.9  # share of objects that are one connected part; slips make some of them several
_IN_PIECES = 0.5  # below it, numbers are surely no objects
_IN_FEW_CASES = 0.5  # share of cases that hold the number 2 where numbers count objects
_PIECES = 5  # numbers in one map, half of them in several tiny pieces, from which a map is no label map
_SCATTERED = 20  # numbers in one map, most of them scattered pixels, from which a map is no label map


@dataclass(frozen=True)
class CaseNumbers:
    """The numbers of one label map.

    Attributes:
        parts: Separate parts of each number above 0, specks not counted.
        touching: Some of its numbers touch each other.
        planar: It is a single image.
    """

    parts: dict[int, int]
    touching: bool
    planar: bool


@dataclass(frozen=True)
class Numbers:
    """The numbers of all label maps of a data set that can be read."""

    cases: tuple[CaseNumbers, ...]

    @property
    def values(self) -> tuple[int, ...]:
        """All numbers above 0, ascending."""
        return tuple(sorted({value for case in self.cases for value in case.parts}))

    def ignored_by_custom(self) -> tuple[int, ...]:
        """255 if it stands beside far smaller numbers in the same maps, as it does where it means voxels to ignore."""
        others = [value for value in self.values if value != IGNORED_BY_CUSTOM]
        holding = [case.parts for case in self.cases if IGNORED_BY_CUSTOM in case.parts]
        beside = sum(len(parts) > 1 for parts in holding)
        customary = others and max(others) < IGNORED_BY_CUSTOM // 2 and beside > len(holding) / 2
        return (IGNORED_BY_CUSTOM,) if customary else ()

    def meaning(self, *, ignore: Sequence[int] = (), likely: Numbering = "objects") -> Numbering:
        """What the numbers mean.

        Args:
            ignore: Numbers of voxels to ignore.
            likely: What they mean where they could be either.
        """
        cases = [{value: n for value, n in case.parts.items() if value not in ignore} for case in self.cases]
        values = set(self.values) - set(ignore)
        if len(values) <= 1 or (values <= {1, IGNORED_BY_CUSTOM} and max(map(len, cases)) == 1):
            return "mask"
        parts = [n for case in cases for n in case.values()]
        in_one_piece = sum(n == 1 for n in parts) / max(1, len(parts))
        if len(values) > _MOST_CLASSES or (max(map(len, cases), default=0) >= _CROWD and not _repeated(cases)):
            return "objects"
        if in_one_piece < _IN_PIECES or _with_gaps(cases):
            return "classes"
        several = [c for c, numbers in zip(self.cases, cases, strict=True) if len(numbers) > 1]
        counted = all(sorted(case) == list(range(1, len(case) + 1)) for case in cases)
        apart = not any(case.touching for case in several)
        seldom = len(several) <= _IN_FEW_CASES * sum(bool(case) for case in cases)
        if counted and apart and seldom and in_one_piece >= _IN_ONE_PIECE:
            return "objects"
        return likely


def numbers_of(values: NDArray[np.integer]) -> CaseNumbers:
    """The numbers of a label map ``(D, H, W)``.

    Raises:
        ValueError: if most of the numbers are pixels scattered over the map, as compression or interpolation does it.
    """
    parts, scattered, pieces = {}, 0, 0
    for value, window in label_windows(values).items():
        labelled, count = ndimage.label(values[window] == value, structure=NEIGHBOURS)
        sizes = np.bincount(labelled.ravel())[1:]
        parts[value] = int((sizes >= SPECK * sizes.max()).sum())
        pieces += bool(count > 1 and sizes.mean() < 3)
        scattered += bool(count > 1 and sizes.mean() < 3) or int(sizes.sum()) <= 2
    most = len(parts) / 2
    if (len(parts) >= _SCATTERED and scattered > most) or (len(parts) >= _PIECES and pieces >= most):
        raise ValueError(
            f"it holds {len(parts)} different numbers, many of them single pixels scattered over it. Lossy compression "
            "or resizing by interpolation does that to labels: save them without loss, resize by the nearest neighbour"
        )
    return CaseNumbers(parts, _touching(values), values.shape[0] == 1)


def survey(cases: Sequence[tuple[str, Path, Path]], *, progress: CountProgress | None = None) -> Numbers:
    """Look at the label map of every case (id, image, label map); those that cannot be read are passed over here.

    Raises:
        ReadError: if label maps hold numbers that compression or interpolation made; the message names one.
    """
    found, spoilt = [], []
    for done, (case, image, label) in enumerate(cases, start=1):
        try:
            values, _ = read_label_map(case, image, label)
            found.append(numbers_of(values))
        except ReadError:
            continue
        except ValueError as error:
            spoilt.append(f"{label} is no label map: {error}")
        finally:
            if progress:
                progress(done, len(cases))
    if spoilt:
        raise ReadError(spoilt[0] + (f" ({len(spoilt)} of {len(cases)} maps are like this)" if len(cases) > 1 else ""))
    return Numbers(tuple(found))


def _touching(values: NDArray[np.integer]) -> bool:
    """Whether two different numbers above 0 are neighbours along an axis."""
    for axis in range(values.ndim):
        one, other = np.moveaxis(values, axis, 0)[:-1], np.moveaxis(values, axis, 0)[1:]
        if ((one != other) & (one > 0) & (other > 0)).any():
            return True
    return False


def _with_gaps(cases: Sequence[dict[int, int]]) -> bool:
    """Whether a few numbers recur, and many cases lack one between others: a class is absent, an object is not."""
    counts = Counter(value for case in cases for value in case)
    filled = [case for case in cases if case]
    few = max(counts) <= _MOST_CLASSES // 2 and min(counts.values()) >= 0.1 * len(filled)
    gaps = sum(sorted(case) != list(range(1, len(case) + 1)) for case in filled)
    return few and gaps >= max(3, 0.1 * len(filled))


def _repeated(cases: Sequence[dict[int, int]]) -> bool:
    """Whether most cases hold nearly the same numbers, as classes do."""
    counts = Counter(value for case in cases for value in case)
    filled = sum(bool(case) for case in cases)
    return filled > 1 and sum(n >= 0.8 * filled for n in counts.values()) > 0.8 * len(counts)
