"""What every label reader hands over: masks with class names, gathered as instances of one scan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medmaskrcnn.structures.grid import Grid
from medmaskrcnn.structures.instances import BoolArray, Instances


@dataclass(frozen=True, eq=False)
class LabelSet:
    """Labels of one scan and what reading them took.

    Attributes:
        instances: On the scan's grid, in the file's order, each with score 1.
        notes: What was left out, cut off, united or interpolated, one sentence each.
    """

    instances: Instances
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class LabelledMask:
    """One object: its class, the voxel index D, H, W of the crop's first voxel, and the tight crop ``(d, h, w)``."""

    class_name: str
    start: tuple[int, int, int]
    mask: BoolArray


def collect(
    grid: Grid,
    found: Sequence[LabelledMask],
    notes: Sequence[str] = (),
    *,
    class_names: Sequence[str] | None = None,
) -> LabelSet:
    """Objects as instances; classes are numbered in the order in which they first occur, or as ``class_names``.

    Objects of classes that ``class_names`` lacks are left out.
    """
    if class_names is not None:
        found = [one for one in found if one.class_name in class_names]
    class_names = tuple(class_names or dict.fromkeys(one.class_name for one in found))
    starts = np.array([one.start for one in found], np.int64).reshape(-1, 3)
    shapes = np.array([one.mask.shape for one in found], np.int64).reshape(-1, 3)
    instances = Instances(
        grid=grid,
        class_names=class_names,
        labels=np.array([class_names.index(one.class_name) for one in found], np.int64),
        scores=np.ones(len(found), np.float32),
        boxes=np.concatenate([starts, starts + shapes], axis=1).astype(np.float32),
        mask_starts=starts,
        masks=tuple(one.mask for one in found),
    )
    return LabelSet(instances, tuple(dict.fromkeys(notes)))
