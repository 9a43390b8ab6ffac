"""Mask R-CNN (He et al. 2017) in 2D and 3D: one code path, spatial dims are a parameter.

Letters: ``B`` images, ``C`` channels, ``N`` objects, ``P`` proposals, ``R`` sampled regions, ``K`` classes,
``S`` spatial dims. Names: *anchors* -> *proposals* (RPN) -> *regions* (RoIAlign) -> *detections* (heads).
Without a mask head it is Faster R-CNN.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from medmaskrcnn.config import ModelSettings
from medmaskrcnn.models.anchors import grid_anchors
from medmaskrcnn.models.box_head import BoxHead, Detections, MeanBoxHead, select_detections
from medmaskrcnn.models.fpn import Pyramid
from medmaskrcnn.models.losses import Term
from medmaskrcnn.models.mask_head import MaskHead, own_log_odds
from medmaskrcnn.models.objective import Targets, box_terms, draw_regions, mask_terms, rpn_terms
from medmaskrcnn.models.regions import read_regions
from medmaskrcnn.models.rpn import RPNHead, propose

Watch = Callable[[str, Any], None]
"""Called after a step of :meth:`MaskRCNN.detect` with its name and what it made."""

_MASKS_PER_PASS = 32  # regions a pass of the mask head at inference: bounds memory, changes nothing


class MaskRCNN(nn.Module):
    """The network. Build it with :func:`medmaskrcnn.models.build.build_model`.

    Attributes:
        settings: What it was built from.
    """

    def __init__(
        self,
        pyramid: Pyramid,
        rpn_head: RPNHead,
        box_head: BoxHead | MeanBoxHead,
        mask_head: MaskHead | None,
        settings: ModelSettings,
    ) -> None:
        super().__init__()
        self.pyramid = pyramid
        self.rpn_head = rpn_head
        self.box_head = box_head
        self.mask_head = mask_head
        self.settings = settings

    @torch.no_grad()
    def detect(
        self,
        images: Tensor,
        image_shapes: Sequence[tuple[int, ...]] | None = None,
        *,
        watch: Watch = lambda step, made: None,
    ) -> list[Detections]:
        """Find the objects of a batch.

        Args:
            images: ``(B, C, *spatial)``, every axis a multiple of the coarsest backbone stride.
            image_shapes: Spatial shape of each image without its padding; by default nothing is padding.
            watch: Is shown what each step hands to the next, and must not change it: ``"pyramid"`` (list of levels),
                ``"rpn"`` (objectness, deltas, anchors; a list of levels each), ``"proposals"`` (boxes of each image),
                ``"regions"`` (``(P, C, *bins)``), ``"scores"`` (class logits and box deltas), ``"found"`` (detections
                without masks).

        Returns:
            One :class:`Detections` per image, boxes in voxels of the input.

        Raises:
            ValueError: if the images have other dimensions or channels than the model.
        """
        shapes = self._shapes(images, image_shapes)
        pyramid = self.pyramid(images)
        watch("pyramid", pyramid)
        objectness, offsets, anchors = self._rpn(pyramid, images)
        watch("rpn", (objectness, offsets, anchors))
        proposals = self._propose(objectness, offsets, anchors, shapes)
        watch("proposals", proposals)
        logits, deltas = self._classify(pyramid, proposals, watch)
        counts = [len(p) for p in proposals]
        found = [
            select_detections(lo, de, boxes, shape, self.settings.detection)
            for lo, de, boxes, shape in zip(logits.split(counts), deltas.split(counts), proposals, shapes, strict=True)
        ]
        watch("found", found)
        return self._add_masks(pyramid, found)

    @torch.no_grad()
    def outline(self, images: Tensor, boxes: Sequence[Tensor], labels: Sequence[Tensor]) -> list[Tensor]:
        """Outline objects inside boxes that are given: the mask head alone, without proposals and box head.

        Args:
            images: As for :meth:`detect`.
            boxes: For each image ``(N, 2S)`` float32, voxels of the input.
            labels: For each image ``(N,)`` int64, 0 is the first class.

        Returns:
            For each image ``(N, *(M,) * S)`` probabilities in box coordinates, as in ``Detections.mask_probabilities``.

        Raises:
            ValueError: if the images have other dimensions or channels than the model, or it has no mask head.
        """
        if self.mask_head is None:
            raise ValueError("outline needs a model with a mask head, this one finds boxes only")
        self._shapes(images, None)
        return self._mask_probabilities(self.pyramid(images), boxes, labels)

    def losses(
        self,
        images: Tensor,
        targets: Sequence[Targets],
        image_shapes: Sequence[tuple[int, ...]] | None = None,
        *,
        seeds: Sequence[int] | None = None,
        share_counts: Callable[[Tensor], Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """The weighted terms of the multi-task loss; train on their sum.

        Args:
            images: ``(B, C, *spatial)``.
            targets: The objects of each image; an image without objects is fine.
            image_shapes: As for :meth:`detect`.
            seeds: For each image the seed of the anchors and regions that are drawn; torch's generator by default.
            share_counts: Where several processes train: makes of the counts ``(T,)`` that this one's terms are divided
                by their mean over the processes, so that the mean of the processes' losses is that of one large batch.

        Returns:
            Scalars ``objectness``, ``rpn_box``, ``classification``, ``box`` and, with a mask head, ``mask`` (and
            ``mask_dice`` where it has a weight).

        Raises:
            ValueError: if the images have other dimensions or channels than the model, an image lacks its targets,
                or the targets lack the masks that a mask head needs.
        """
        if len(targets) != len(images):
            raise ValueError(f"losses needs one Targets per image, got {len(targets)} for {len(images)} images")
        shapes = self._shapes(images, image_shapes)
        randoms = [torch.Generator().manual_seed(s) for s in seeds] if seeds is not None else [None] * len(images)
        rpn, roi, loss = self.settings.rpn, self.settings.roi, self.settings.loss
        pyramid = self.pyramid(images)
        objectness, deltas, anchors = self._rpn(pyramid, images)
        per_cell = self.settings.anchors_per_cell
        terms = rpn_terms(objectness, deltas, anchors, targets, randoms, per_cell=per_cell, settings=rpn, loss=loss)
        with torch.no_grad():
            regions = draw_regions(self._propose(objectness, deltas, anchors, shapes), targets, randoms, roi)
        logits, offsets = self.box_head(self._align(pyramid, regions.boxes, roi.box_size))
        terms |= box_terms(logits, offsets, regions, targets, loss)
        if self.mask_head is not None:
            boxes, owners = regions.positives(roi.max_mask_rois)
            logits = self.mask_head(self._align(pyramid, boxes, roi.mask_size))
            terms |= mask_terms(logits, boxes, owners, targets, loss, activation=roi.mask_activation)
        return self._weighted(terms, share_counts)

    def _weighted(self, terms: dict[str, Term], share_counts: Callable[[Tensor], Tensor] | None) -> dict[str, Tensor]:
        counts = torch.tensor([float(term.count) for term in terms.values()])
        divisors = (share_counts(counts) if share_counts else counts).tolist()
        weights = self.settings.loss
        return {
            name: term.total / (divisor or 1.0) * getattr(weights, name)
            for (name, term), divisor in zip(terms.items(), divisors, strict=True)
        }

    def _shapes(self, images: Tensor, given: Sequence[tuple[int, ...]] | None) -> list[tuple[int, ...]]:
        if images.ndim != self.settings.spatial_dims + 2 or images.shape[1] != self.settings.input_channels:
            expected = f"(B, {self.settings.input_channels}, {'D, ' if self.settings.spatial_dims == 3 else ''}H, W)"
            raise ValueError(f"images must have shape {expected}, got {tuple(images.shape)}")
        return [tuple(s) for s in given] if given is not None else [tuple(images.shape[2:])] * len(images)

    def _rpn(self, pyramid: Sequence[Tensor], images: Tensor) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        objectness, deltas = self.rpn_head(pyramid)
        anchors = grid_anchors(
            self.settings.anchors,
            image=images.shape[2:],
            maps=[level.shape[2:] for level in pyramid],
            strides=self.pyramid.strides,
            device=images.device,
        )
        return objectness, deltas, anchors

    def _propose(
        self, objectness: list[Tensor], deltas: list[Tensor], anchors: list[Tensor], shapes: list[tuple[int, ...]]
    ) -> list[Tensor]:
        return [
            propose([o[i] for o in objectness], [d[i] for d in deltas], anchors, shape, self.settings.rpn)
            for i, shape in enumerate(shapes)
        ]

    def _classify(self, pyramid: Sequence[Tensor], proposals: list[Tensor], watch: Watch) -> tuple[Tensor, Tensor]:
        """RoIAlign and the box head: logits ``(P, K + 1)`` and deltas ``(P, K + 1, 2S)``."""
        regions = self._align(pyramid, proposals, self.settings.roi.box_size)
        watch("regions", regions)
        scores: tuple[Tensor, Tensor] = self.box_head(regions)
        watch("scores", scores)
        return scores

    def _align(self, pyramid: Sequence[Tensor], boxes: Sequence[Tensor], bins: int) -> Tensor:
        """Each box read from its own level, as the heads are given it: ``(R, C, *(bins,) * S)``."""
        levels = self.pyramid.region_levels
        read = read_regions(
            pyramid[:levels], boxes, strides=self.pyramid.strides[:levels], bins=bins, roi=self.settings.roi
        )
        return self.pyramid.of_regions(read)

    def _add_masks(self, pyramid: Sequence[Tensor], found: list[Detections]) -> list[Detections]:
        if self.mask_head is None:
            return found
        masks = self._mask_probabilities(pyramid, [d.boxes for d in found], [d.labels for d in found])
        return [replace(d, mask_probabilities=m) for d, m in zip(found, masks, strict=True)]

    def _mask_probabilities(
        self, pyramid: Sequence[Tensor], boxes: Sequence[Tensor], labels: Sequence[Tensor]
    ) -> list[Tensor]:
        assert self.mask_head is not None
        roi, side = self.settings.roi, (self.settings.mask_bins,) * self.settings.spatial_dims
        masks = []
        for i, own in enumerate(boxes):
            parts = [torch.zeros((0, *side), device=own.device)]
            for start in range(0, len(own), _MASKS_PER_PASS):
                chunk = slice(start, start + _MASKS_PER_PASS)
                regions = [b[chunk] if j == i else b[:0] for j, b in enumerate(boxes)]
                logits = self.mask_head(self._align(pyramid, regions, roi.mask_size))
                parts.append(own_log_odds(logits, labels[i][chunk], roi.mask_activation).sigmoid())
            masks.append(torch.cat(parts))
        return masks
