"""Several networks, and mirrored copies of an image, whose outputs are averaged: folds and test-time augmentation.

A *view* is one network on one way of mirroring the image. All views look at the same boxes, so that what they say of a
box can be averaged, instead of matching detections afterwards:

    each view's RPN -> proposals of all views, suppressed together -> each view's box head on each of them
    -> mean of class probabilities and of box deltas -> detections -> each view's mask head on each of them -> mean

The pyramids of all views are kept meanwhile: memory and time grow with the number of views, weights with that of
networks. Letters as in :mod:`medmaskrcnn.models.mask_rcnn`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor, nn

from medmaskrcnn.models.box_coder import clip_boxes
from medmaskrcnn.models.box_head import Detections, postprocess_batch, with_masks
from medmaskrcnn.models.conventions import class_maps, detections_as_dicts
from medmaskrcnn.models.images import batch_images
from medmaskrcnn.models.inference_backend import InferenceBackend
from medmaskrcnn.models.mask_rcnn import MaskRCNN, Watch, unwatched
from medmaskrcnn.models.runtime.precision import Precision, autocast_context
from medmaskrcnn_kernels import batched_nms
from medmaskrcnn_kernels.plain import plain

Axes = tuple[int, ...]
"""Spatial axes that are mirrored; none for the image as it is."""


@dataclass(frozen=True, eq=False)
class _View:
    """One network on one way of mirroring the images, with its feature maps of them."""

    network: MaskRCNN
    mirror: Axes
    pyramid: list[Tensor]
    size: tuple[int, ...]

    def boxes(self, boxes: Tensor) -> Tensor:
        """Boxes ``(..., 2S)`` of the image as boxes of the mirrored one, and the other way round."""
        return mirror_boxes(boxes, self.mirror, self.size)


class AveragedRCNN(nn.Module):
    """Networks of one architecture that are run together, with the interface of one for inference.

    Attributes:
        members: The networks.
        mirrors: Ways of mirroring; the first is none at all.
        settings: Those that all were built from.
    """

    def __init__(self, members: Sequence[MaskRCNN], flips: Axes = ()) -> None:
        """Join networks.

        Args:
            members: At least one, all built from the same settings.
            flips: Spatial axes to mirror, each in all combinations with the others.

        Raises:
            ValueError: if the networks differ in their settings, or an axis is not there.
        """
        super().__init__()
        if not members or any(one.settings != members[0].settings for one in members):
            raise ValueError("networks that are averaged must be of the same settings, and at least one")
        self.settings = members[0].settings
        if any(not 0 <= axis < self.settings.spatial_dims for axis in flips):
            raise ValueError(f"axes to mirror must be 0 to {self.settings.spatial_dims - 1}, got {flips}")
        self.members = nn.ModuleList(members)
        self.mirrors = [axes for n in range(len(flips) + 1) for axes in combinations(sorted(set(flips)), n)]

    def networks(self) -> Iterator[MaskRCNN]:
        """The networks, one by one."""
        for member in self.members:
            assert isinstance(member, MaskRCNN)
            yield member

    @property
    def precision(self) -> Precision:
        """That of all networks."""
        return next(self.networks()).precision

    @property
    def compiled(self) -> InferenceBackend | None:
        """What runs the layers of the networks in place of torch, if something does: one kind for all."""
        return next(self.networks()).compiled

    def run_in(self, precision: Precision) -> AveragedRCNN:
        """As :meth:`MaskRCNN.run_in`, for all networks."""
        for network in self.networks():
            network.run_in(precision)
        return self

    def forward(self, images: Sequence[Tensor] | Tensor) -> list[dict[str, Tensor]]:
        """As :meth:`MaskRCNN.forward` in evaluation mode.

        Raises:
            ValueError: in training mode, since each network is trained alone.
        """
        if self.training:
            raise ValueError("networks that are averaged are trained one by one; call eval() to detect objects")
        batch, shapes = self._batch(images)
        return detections_as_dicts(self.detect(batch, shapes), shapes)

    def semantic(self, images: Sequence[Tensor] | Tensor) -> Tensor:
        """As :meth:`MaskRCNN.semantic`."""
        batch, shapes = self._batch(images)
        return class_maps(self.detect(batch, shapes), shapes, len(self.settings.class_names))

    @torch.no_grad()
    def detect(
        self,
        images: Tensor,
        image_shapes: Sequence[tuple[int, ...]] | None = None,
        *,
        post_nms_top_n: int | None = None,
        watch: Watch = unwatched,
    ) -> list[Detections]:
        """As :meth:`MaskRCNN.detect`; steps of the single networks are watched once for each view."""
        images = plain(images)
        shapes = [tuple(images.shape[2:])] * len(images) if image_shapes is None else [tuple(s) for s in image_shapes]
        with autocast_context(self.precision, images.device):
            views, found = [], []
            for network, mirror in self._views():
                view, candidates_in = _look(network, mirror, images, watch)
                views.append(view)
                found.append(candidates_in)
            most = post_nms_top_n or self.settings.rpn.post_nms_top_n
            proposals = [self._proposals([own[i] for own in found], shape, most) for i, shape in enumerate(shapes)]
            watch("proposals", proposals)
            logits, deltas = self._classify(views, proposals, watch)
            detections = postprocess_batch(logits, deltas, proposals, shapes, self.settings.detection)
            watch("found", detections)
            if not self.settings.with_masks:
                return detections
            regions = self._regions([d.boxes for d in detections], shapes)
            masks = self._masks(views, regions, [d.labels for d in detections])
            return with_masks(detections, masks, regions if self.settings.roi.mask_margin else None)

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """As :meth:`MaskRCNN.feature_maps`, of the first network, on the images as they are."""
        return next(self.networks()).feature_maps(images)

    @torch.no_grad()
    def outline(self, images: Tensor, boxes: Sequence[Tensor], labels: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """As :meth:`MaskRCNN.outline`: the mean over all views."""
        if not self.settings.with_masks:
            raise ValueError("outline needs a model with a mask head, this one finds boxes only")
        images = plain(images)
        with autocast_context(self.precision, images.device):
            views = [_look(network, mirror, images)[0] for network, mirror in self._views()]
            regions = self._regions(list(map(plain, boxes)), [tuple(images.shape[2:])] * len(images))
            return list(zip(regions, self._masks(views, regions, list(map(plain, labels))), strict=True))

    def _batch(self, images: Sequence[Tensor] | Tensor) -> tuple[Tensor, list[tuple[int, ...]]]:
        return batch_images(images, self.settings, next(self.networks()).box_head.classes.weight)

    def _views(self) -> Iterator[tuple[MaskRCNN, Axes]]:
        return ((network, mirror) for network in self.networks() for mirror in self.mirrors)

    def _proposals(self, found: Sequence[tuple[Tensor, Tensor, Tensor]], shape: tuple[int, ...], most: int) -> Tensor:
        """Proposals of one image from the candidates of all views, as :func:`filter_proposals` makes those of one."""
        boxes, scores, levels = (torch.cat(parts) for parts in zip(*found, strict=True))
        boxes = clip_boxes(boxes, shape)
        dims = len(shape)
        large = torch.nonzero((boxes[:, dims:] - boxes[:, :dims] >= self.settings.rpn.min_size).all(dim=1)).flatten()
        boxes, scores, levels = boxes[large], scores[large], levels[large]
        return boxes[batched_nms(boxes, scores, levels, self.settings.rpn.nms_iou)[:most]]

    def _classify(self, views: Sequence[_View], proposals: list[Tensor], watch: Watch) -> tuple[Tensor, Tensor]:
        """Logarithm of the mean class probabilities ``(P, K + 1)``, and mean deltas ``(P, K + 1, 2S)``."""
        probabilities, offsets = [], []
        for view in views:
            logits, deltas = view.network.classify(view.pyramid, [view.boxes(own) for own in proposals], watch)
            view.network.check_finite([logits])
            probabilities.append(logits.softmax(dim=-1))
            offsets.append(_mirror_deltas(deltas, view.mirror))
        return torch.stack(probabilities).mean(dim=0).log(), torch.stack(offsets).mean(dim=0)

    def _regions(self, boxes: list[Tensor], shapes: Sequence[tuple[int, ...]]) -> list[Tensor]:
        return next(self.networks()).mask_boxes(boxes, shapes)

    def _masks(self, views: Sequence[_View], boxes: list[Tensor], labels: list[Tensor]) -> list[Tensor]:
        """Mean mask probabilities of each image's detections."""
        total: list[Tensor] = []
        for view in views:
            masks = view.network.mask_probabilities(view.pyramid, [view.boxes(own) for own in boxes], labels)
            turned = [mask.flip([axis + 1 for axis in view.mirror]) for mask in masks]
            total = turned if not total else [a + b for a, b in zip(total, turned, strict=True)]
        return [mask / len(views) for mask in total]


def _look(
    network: MaskRCNN, mirror: Axes, images: Tensor, watch: Watch = unwatched
) -> tuple[_View, list[tuple[Tensor, Tensor, Tensor]]]:
    """A view of images, and for each image its RPN's candidates: boxes as in the image itself, scores and levels."""
    size = tuple(images.shape[2:])
    pyramid, boxes, scores, levels = network.candidates(images.flip([axis + 2 for axis in mirror]), watch)
    if network.compiled is not None:  # an engine may write into its outputs when it is called again
        pyramid = [level.clone() for level in pyramid]
    view = _View(network, mirror, pyramid, size)
    return view, [(view.boxes(b), s, lv) for b, s, lv in zip(boxes, scores, levels, strict=True)]


def mirror_boxes(boxes: Tensor, axes: Axes, size: Sequence[int]) -> Tensor:
    """Boxes ``(..., 2S)`` in an image of ``size`` that is mirrored along ``axes``."""
    dims = len(size)
    turned = boxes.clone()
    for axis in axes:
        turned[..., axis] = size[axis] - boxes[..., dims + axis]
        turned[..., dims + axis] = size[axis] - boxes[..., axis]
    return turned


def _mirror_deltas(deltas: Tensor, axes: Axes) -> Tensor:
    """Deltas ``(..., 2S)`` of a mirrored box for the box itself: the shift of its centre changes sign."""
    turned = deltas.clone()
    for axis in axes:
        turned[..., axis] = -deltas[..., axis]
    return turned
