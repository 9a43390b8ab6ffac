"""Several looks at one scan, whose disagreement shows how unsure a model is: its folds, or changed images.

Three folds or more are looks of their own (deep ensembles; Lakshminarayanan et al. 2017). Otherwise each network sees
the image as it is, with less and with more contrast, and smoothed, and mirrored along the axes that are asked for
(test-time augmentation; Wang et al. 2019). None of these changes moves an object, so all looks lie on one grid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, avg_pool3d

from medmaskrcnn.hub.loaded_model import LoadedModel
from medmaskrcnn.models.averaged import AveragedRCNN
from medmaskrcnn.models.box_head import Detections
from medmaskrcnn.models.mask_rcnn import MaskRCNN, Watch, unwatched

_ENOUGH_FOLDS = 3
_CONTRASTS = (0.8, 1.25)


class ChangedView(AveragedRCNN):
    """A network that looks at changed images, with the interface of one for inference.

    Attributes:
        change: What is done to images.

    Args:
        network: The network.
        change: Maps images ``(B, C, *spatial)`` to images of the same shape, with every object in its place.
    """

    change: Callable[[Tensor], Tensor]

    def __init__(self, network: MaskRCNN, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__([network])
        self.change = change

    def detect(
        self,
        images: Tensor,
        image_shapes: Sequence[tuple[int, ...]] | None = None,
        *,
        post_nms_top_n: int | None = None,
        watch: Watch = unwatched,
    ) -> list[Detections]:
        """As :meth:`medmaskrcnn.models.mask_rcnn.MaskRCNN.detect`, on the changed images."""
        network = cast(MaskRCNN, self.members[0])
        return network.detect(self.change(images), image_shapes, post_nms_top_n=post_nms_top_n, watch=watch)


def looks(model: LoadedModel) -> list[LoadedModel]:
    """The looks of a model at a scan; the first is a single network on the image as it is."""
    network = model.network
    joined = AveragedRCNN([network]) if isinstance(network, MaskRCNN) else network
    members = [one for one in joined.members if isinstance(one, MaskRCNN)]
    found: list[MaskRCNN | AveragedRCNN] = list(members)
    if len(members) < _ENOUGH_FOLDS:
        for member in members:
            found += [ChangedView(member, change) for change in (*map(_contrast, _CONTRASTS), _smoothed)]
    for mirror in joined.mirrors:
        if mirror:
            one = AveragedRCNN(members)
            one.mirrors = [mirror]
            found.append(one)
    return [replace(model, network=one) for one in found]


def _contrast(factor: float) -> Callable[[Tensor], Tensor]:
    def changed(images: Tensor) -> Tensor:
        mean = images.mean(dim=tuple(range(2, images.ndim)), keepdim=True)
        return mean + (images - mean) * factor

    return changed


def _smoothed(images: Tensor) -> Tensor:
    """The mean with the neighbours in the plane."""
    if images.ndim == 4:
        return avg_pool2d(images, 3, stride=1, padding=1, count_include_pad=False)
    return avg_pool3d(images, (1, 3, 3), stride=1, padding=(0, 1, 1), count_include_pad=False)


class PooledFeatures:
    """A watch that keeps the mean and the maximum of each channel of each level of a network's pyramid."""

    def __init__(self) -> None:
        self.vectors: list[Tensor] = []

    def __call__(self, step: str, made: object) -> None:
        """Take the feature maps of a batch of images; other steps are passed over."""
        if step == "pyramid" and isinstance(made, list):
            flat = [level.flatten(2).float() for level in made]
            self.vectors.append(torch.cat([torch.cat([one.mean(2), one.amax(2)], dim=1) for one in flat], dim=1).cpu())

    def of_scan(self) -> Tensor:
        """``(F,)``: the mean over all images (slices or tiles) seen."""
        return torch.cat(self.vectors).mean(dim=0)
