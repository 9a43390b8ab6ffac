"""Slices of phantom CTs with their objects, by torchvision's conventions: the data of the next examples."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from medmaskrcnn_datasets.phantom import PhantomSettings, make_phantom

CLASSES = ("liver", "spleen", "left kidney", "right kidney", "tumour")


class PhantomSlices(Dataset):
    """Axial slices as ``(1, H, W)`` images and dicts of ``boxes``, ``labels`` and ``masks``."""

    def __init__(self, seed: int) -> None:
        phantom = make_phantom(PhantomSettings(seed=seed, shape=(8, 64, 64), spacing_mm=(24.0, 6.0, 6.0)))
        self.images = ((torch.from_numpy(phantom.volume.array[0]).float() - 40) / 200).clamp(-1, 1)
        self.labels, self.meaning = phantom.labels, {i.value: i.class_name for i in phantom.instances}

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        values = [v for v in np.unique(self.labels[index]) if self.meaning.get(v) in CLASSES]
        masks = [self.labels[index] == value for value in values]
        target = {
            "boxes": torch.tensor([box_of(mask) for mask in masks]).reshape(-1, 4),
            "labels": torch.tensor([1 + CLASSES.index(self.meaning[value]) for value in values], dtype=torch.int64),
            "masks": torch.from_numpy(np.stack(masks) if masks else np.zeros((0, *self.labels[index].shape), bool)),
        }
        return self.images[index][None], target


def box_of(mask: np.ndarray) -> list[float]:
    """``x0, y0, x1, y1``: a box ends where its last pixel ends."""
    rows, columns = np.nonzero(mask)
    return [float(columns.min()), float(rows.min()), float(columns.max() + 1), float(rows.max() + 1)]


if __name__ == "__main__":
    for image, target in PhantomSlices(seed=0):
        print(tuple(image.shape), [CLASSES[label - 1] for label in target["labels"]])
