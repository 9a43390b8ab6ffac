"""Training samples: sample ``i`` depends only on the seed and on ``i``, whichever process draws it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from medmaskrcnn.data.cases import LabelledCase, open_prepared
from medmaskrcnn.models.objective import Targets
from medmaskrcnn.structures.mask import Mask
from medmaskrcnn.training.augment import Augmenter, Transform
from medmaskrcnn.training.plan import Plan
from medmaskrcnn.training.warp import Crop, dense
from medmaskrcnn.training.windows import INSIDE, choose_window, cut, objects_within, part_within

_NOTHING = np.zeros((0, 0), np.uint8)
_LEAST_VOXELS = 4  # objects with fewer voxels in the window are left out


@dataclass(frozen=True, eq=False)
class Sample:
    """One training sample.

    Attributes:
        case_id: The case it was drawn from.
        image: ``(C, *spatial)`` float32, with neighbouring slices as channels in 2.5D.
        targets: Its objects; boxes are tight around the voxels that are at least half filled.
        seed: Seed for the anchors and regions that the loss samples.
    """

    case_id: str
    image: Tensor
    targets: Targets
    seed: int


class Samples(Dataset[Sample]):
    """All samples of a training; in every ``len(files)`` samples each case is drawn once, or by its weight.

    Args:
        files: Prepared cases (:func:`medmaskrcnn.data.cases.prepare_cases`).
        plan: The training plan.
        weights: How often each case is drawn, relative to the others; all alike by default.
        transform: A user-defined transform, applied last.
    """

    def __init__(
        self,
        files: Sequence[Path],
        plan: Plan,
        *,
        weights: Sequence[float] | None = None,
        transform: Transform | None = None,
    ) -> None:
        self.files, self.plan = list(files), plan
        self.shares = None if weights is None or len(set(weights)) == 1 else np.divide(weights, np.sum(weights))
        self.augmenter = Augmenter(plan.augment, spatial_dims=plan.model.spatial_dims, transform=transform)
        self.opened: dict[Path, LabelledCase] = {}

    def __getitem__(self, index: int) -> Sample:
        seed = self.plan.train.seed, 1 + index // len(self.files), index
        return draw_sample(self._open(self.files[self.case_of(index)]), self.plan, self.augmenter, seed)

    def case_of(self, index: int) -> int:
        """Place in ``files`` of the case from which sample ``index`` is drawn."""
        turn, place = divmod(index, len(self.files))
        return int(self._order(np.random.default_rng((self.plan.train.seed, turn)))[place])

    def _order(self, random: np.random.Generator) -> np.ndarray:
        """Cases of one turn: as many as there are, each as often as its share says, rounded at random."""
        cases = len(self.files)
        if self.shares is None:
            return random.permutation(cases)
        ends = np.cumsum(self.shares) * cases  # systematic sampling: a case of share 2 / cases comes twice
        return random.permutation(np.minimum(np.searchsorted(ends, np.arange(cases) + random.random()), cases - 1))

    def _open(self, path: Path) -> LabelledCase:
        if path not in self.opened:
            self.opened[path] = open_prepared(path)
        return self.opened[path]


def draw_sample(case: LabelledCase, plan: Plan, augmenter: Augmenter, seed: Sequence[int]) -> Sample:
    """Draw one window of a case and augment it.

    Args:
        case: The case.
        plan: The training plan.
        augmenter: The augmentation.
        seed: Seed of all random numbers.
    """
    random, model = np.random.default_rng(list(seed)), plan.model
    context = model.context_slices
    start, shape = choose_window(case, plan.augment, model.class_names, random, context_slices=context)
    margin = (0, *augmenter.margin(shape)[1:]) if model.spatial_dims == 2 else augmenter.margin(shape)
    low, size = (
        [a - m for a, m in zip(start, margin, strict=True)],
        [n + 2 * m for n, m in zip(shape, margin, strict=True)],
    )
    image = cut(case.image, low, size)
    labels, parts = objects_within(case, low, size)
    if case.ignored is not None:  # augmented as one more object
        parts = [*parts, part_within(case.ignored, low, size)]
    if model.spatial_dims == 2:
        image = image.flatten(0, 1)
    crops = [_crop(part, None if model.spatial_dims == 3 else context) for part in parts]
    image, crops = augmenter(image, crops, random, shape[-model.spatial_dims :])
    targets = _targets(labels, crops[: len(labels)], image.shape[1:])
    if case.ignored is not None:
        targets = _with_ignored(targets, dense(crops[-1:], image.shape[1:])[0])
    if case.annotated is not None:
        targets = replace(targets, annotated=torch.tensor(case.annotated))
    return Sample(case.id, image, targets, int(random.integers(2**31)))


class ResumableBatchSampler(Sampler[list[int]]):
    """Sample indices of each pass of one process, starting at a given pass.

    Args:
        passes: Passes of the whole training.
        batch: Samples per pass, over all processes together.
        first: The first pass.
        rank, world: Rank of this process and number of processes; each takes an equal share of a pass.
    """

    def __init__(self, passes: int, batch: int, *, first: int, rank: int = 0, world: int = 1) -> None:
        self.passes, self.batch, self.first, self.rank, self.share = passes, batch, first, rank, batch // world

    def __len__(self) -> int:
        return max(0, self.passes - self.first)

    def __iter__(self) -> Iterator[list[int]]:
        for number in range(self.first, self.passes):
            start = number * self.batch + self.rank * self.share
            yield list(range(start, start + self.share))


def _crop(part: Mask, plane: int | None) -> Crop:
    """A part of an object as a crop: whole, or its cut through the slice ``plane`` in 2D."""
    if plane is None:
        return Crop(part.start, torch.tensor(part.array))
    inside = 0 <= plane - part.start[0] < len(part.array)
    return Crop(part.start[1:], torch.tensor(part.array[plane - part.start[0]] if inside else _NOTHING))


def _targets(labels: Tensor, crops: Sequence[Crop], shape: Sequence[int]) -> Targets:
    boxes, kept = [], []
    for i, crop in enumerate(crops):
        inside = torch.nonzero(crop.values >= INSIDE)
        if len(inside) >= _LEAST_VOXELS:
            start = torch.tensor(crop.start)
            boxes.append(torch.cat([inside.amin(0) + start, inside.amax(0) + start + 1]).float())
            kept.append(i)
    stacked = torch.stack(boxes) if boxes else torch.zeros((0, 2 * len(shape)))
    return Targets(stacked, labels[kept], dense([crops[i] for i in kept], shape))


def _with_ignored(targets: Targets, mask: Tensor) -> Targets:
    """The same with ignored voxels ``(*spatial)``, each connected part of which is an ignored object."""
    parts, _ = ndimage.label((mask >= INSIDE).numpy(), np.ones((3,) * mask.ndim))
    windows = ndimage.find_objects(parts)
    if not windows:
        return targets
    boxes = [[float(s.start) for s in window] + [float(s.stop) for s in window] for window in windows]
    return replace(targets, ignored_boxes=torch.tensor(boxes), ignored_mask=mask)
