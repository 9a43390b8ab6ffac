"""Mask R-CNN (He et al. 2017) in 2D and 3D: one code path with the spatial dims as a parameter.

Letters: ``B`` images, ``C`` channels, ``N`` objects, ``P`` proposals, ``R`` sampled regions, ``K`` classes,
``S`` spatial dims. Names: *anchors* -> *proposals* (RPN) -> *regions* (RoIAlign) -> *detections* (heads).
Without a mask head it is Faster R-CNN. Tensors that go in may be subclasses, such as MONAI's ``MetaTensor``; what comes
out is plain.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from medmaskrcnn.errors import MedMaskRCNNError, Remedy
from medmaskrcnn.models.anchors import grid_anchors
from medmaskrcnn.models.box_coder import clip_boxes, enlarge_boxes
from medmaskrcnn.models.box_head import BoxHead, Detections, MeanBoxHead, postprocess_batch, with_masks
from medmaskrcnn.models.conventions import LOSS_NAMES, class_maps, detections_as_dicts, targets_from
from medmaskrcnn.models.dense_part import Dense, DensePart, unflatten
from medmaskrcnn.models.fpn import Pyramid
from medmaskrcnn.models.images import batch_images
from medmaskrcnn.models.inference_backend import InferenceBackend
from medmaskrcnn.models.losses import Term
from medmaskrcnn.models.mask_head import MaskHead, select_class_logits
from medmaskrcnn.models.objective import Targets, box_terms, mask_terms, rpn_terms, select_training_samples
from medmaskrcnn.models.roi_pooler import pool_rois
from medmaskrcnn.models.rpn import RPNHead, candidates, filter_proposals, largest_logit
from medmaskrcnn.models.runtime.precision import Precision, autocast_context, channels_last, to_channels_last
from medmaskrcnn.models.semantic_head import SemanticHead, pool_own_class, semantic_term
from medmaskrcnn.settings import ModelSettings
from medmaskrcnn_kernels.plain import plain

Watch = Callable[[str, Any], None]
"""Called after a step of :meth:`MaskRCNN.detect` with its name and output."""


def unwatched(step: str, made: Any) -> None:
    """The default :data:`Watch`, which does nothing."""


_MASK_NUMBERS_PER_PASS = 1 << 25  # size of the mask head's largest map at inference: only bounds memory


class MaskRCNN(nn.Module):
    """The network. Build it with :func:`medmaskrcnn.models.build.build_model`.

    Attributes:
        settings: The settings from which it was built.
        precision: Precision of :meth:`detect` and :meth:`outline`; see :meth:`run_in`.
        compiled: Compiled :meth:`parts` that these methods use, or ``None`` for plain torch.
        mask_terms, select_class_logits: Loss terms of masks, and the selection of each region's mask; a subclass with
            another kind of masks replaces both.
    """

    compiled: InferenceBackend | None = None
    mask_terms = staticmethod(mask_terms)
    select_class_logits = staticmethod(select_class_logits)

    def __init__(
        self,
        pyramid: Pyramid,
        rpn_head: RPNHead,
        box_head: BoxHead | MeanBoxHead,
        mask_head: MaskHead | None,
        settings: ModelSettings,
        semantic_head: SemanticHead | None = None,
    ) -> None:
        super().__init__()
        self.pyramid = pyramid
        self.rpn_head = rpn_head
        self.box_head = box_head
        self.mask_head = mask_head
        self.semantic_head = semantic_head
        self.settings = settings
        self.precision: Precision = "fp32"

    def run_in(self, precision: Precision) -> MaskRCNN:
        """Set the precision of :meth:`detect` and :meth:`outline`; returns the network itself.

        bfloat16 changes the weights in place (rounded, frozen normalisation folded in): such a network must not be
        trained or saved any more.

        Raises:
            ValueError: if float32 is requested of a network whose weights are already rounded.
        """
        if precision == "fp32" and self.precision != "fp32":
            raise ValueError("the weights of this network are rounded to bf16 already; load the model again for fp32")
        if precision == "bf16" and self.precision != "bf16":
            self.pyramid.backbone.fold_norms()
            heads = (self.rpn_head.objectness, self.rpn_head.deltas, self.box_head.classes, self.box_head.deltas)
            masks = (head.logits for head in (self.mask_head, self.semantic_head) if head is not None)
            to_channels_last(self, exact=[*heads, *masks])
        self.precision = precision
        return self

    def parts(self) -> dict[str, nn.Module]:
        """The parts that other runtimes may run, as separate modules: copies, in evaluation mode.

        Returns:
            ``dense`` (:class:`~medmaskrcnn.models.dense_part.DensePart`), ``box_head`` and, if there is one,
            ``mask_head``; the heads map regions ``(R, C, *bins)`` to the output of their ``forward``.
        """
        heads = {"box_head": self.box_head, "mask_head": self.mask_head}
        own = {name: copy.deepcopy(head).eval() for name, head in heads.items() if head is not None}
        return {"dense": DensePart(self.pyramid, self.rpn_head).eval(), **own}

    def forward(
        self, images: Sequence[Tensor] | Tensor, targets: Sequence[Mapping[str, Tensor]] | None = None
    ) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """Call the network by torchvision's conventions (:mod:`medmaskrcnn.models.conventions`).

        Args:
            images: ``(C, *spatial)`` each, of any sizes, or a batch ``(B, C, *spatial)``: floating point numbers,
                normalised as in training. They are padded to the strides of the backbone, not resized.
            targets: In training mode a dict for each image: ``boxes`` ``(N, 2S)`` in x-y(-z) order, voxels; ``labels``
                ``(N,)`` int64, 1 is the first class; ``masks`` ``(N, *spatial)``. Not read in evaluation mode.

        Returns:
            In training mode the weighted loss terms, scalars by torchvision's names: train on their sum. In evaluation
            mode a dict for each image: ``boxes``, ``labels``, ``scores`` and, with a mask head, ``masks``
            ``(N, 1, *spatial)`` float32, probabilities. One such mask is as large as its image, so that whole scans
            are better segmented by :func:`medmaskrcnn.segment`.

        Raises:
            TypeError: if an image or a target has a wrong dtype.
            ValueError: if one does not fit the network, or training lacks targets; the message names it.
        """
        batch, shapes = batch_images(images, self.settings, self.box_head.classes.weight)
        if not self.training:
            return detections_as_dicts(self.detect(batch, shapes), shapes)
        if targets is None:
            raise ValueError("in training mode the network needs targets; call network.eval() first to detect objects")
        terms = self.losses(batch, targets_from(targets, shapes, self.settings, batch), shapes)
        return {LOSS_NAMES.get(name, f"loss_{name}"): term for name, term in terms.items()}

    def semantic(self, images: Sequence[Tensor] | Tensor) -> Tensor:
        """Maps of classes instead of objects, for what expects a network of semantic segmentation.

        MONAI's ``SlidingWindowInferer`` takes this method: ``inferer(image, network.semantic)``.

        Args:
            images: As for :meth:`forward`; of one size.

        Returns:
            ``(B, K, *spatial)`` float32: the probability that a voxel belongs to an object of each class, the largest
            of score times mask (or of the score in the box, without a mask head) over the objects of the class.
        """
        batch, shapes = batch_images(images, self.settings, self.box_head.classes.weight)
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
        """Detect the objects in a batch of images.

        Args:
            images: ``(B, C, *spatial)``, every axis a multiple of the coarsest backbone stride.
            image_shapes: Spatial shape of each image without its padding; by default there is no padding.
            post_nms_top_n: Maximum number of proposals per image; the settings' ``rpn.post_nms_top_n`` by default.
            watch: Called with the output of each step, which it must not change: ``"pyramid"`` (list of levels),
                ``"rpn"`` (objectness, deltas, anchors; a list of levels each), ``"proposals"`` (boxes of each image),
                ``"regions"`` (``(P, C, *bins)``), ``"scores"`` (class logits and box deltas), ``"found"`` (detections
                without masks).

        Returns:
            One :class:`Detections` per image, boxes in voxels of the input.

        Raises:
            ValueError: if the images have other dimensions or channels than the model.
            MedMaskRCNNError: if the network's output is not finite, which would otherwise look like "nothing found".
        """
        images = plain(images)
        shapes = self._shapes(images, image_shapes)
        with autocast_context(self.precision, images.device):
            pyramid, objectness, offsets = self._dense(images, watch)
            anchors = self._anchors(pyramid, images)
            watch("rpn", (objectness, offsets, anchors))
            boxes = self._filter_proposals(objectness, offsets, anchors, shapes, most=post_nms_top_n)
            watch("proposals", boxes)
            logits, deltas = self.classify(pyramid, boxes, watch)
            self.check_finite([*objectness, logits])
            found = postprocess_batch(logits, deltas, boxes, shapes, self.settings.detection)
            watch("found", found)
            return self._add_masks(pyramid, found, shapes)

    @torch.no_grad()
    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """The levels of the pyramid ``(B, C, *map)``, finest first, in the network's precision.

        Args:
            images: As for :meth:`detect`.
        """
        with autocast_context(self.precision, images.device):
            return self._dense(plain(images), unwatched)[0]

    @torch.no_grad()
    def outline(self, images: Tensor, boxes: Sequence[Tensor], labels: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Segment objects inside given boxes: runs only the mask head, without proposals and box head.

        Args:
            images: As for :meth:`detect`.
            boxes: For each image ``(N, 2S)`` float32, voxels of the input.
            labels: For each image ``(N,)`` int64, 0 is the first class.

        Returns:
            For each image the regions ``(N, 2S)`` that the masks cover, which are the boxes or larger, and the masks'
            probabilities ``(N, *(M,) * S)`` in their coordinates, as in ``Detections``.

        Raises:
            ValueError: if the images have other dimensions or channels than the model, or it has no mask head.
        """
        if self.mask_head is None:
            raise ValueError("outline needs a model with a mask head, this one finds boxes only")
        images = plain(images)
        shapes = self._shapes(images, None)
        with autocast_context(self.precision, images.device):
            regions = self.mask_boxes(list(map(plain, boxes)), shapes)
            pyramid = self._dense(images, unwatched)[0]
            masks = self.mask_probabilities(pyramid, regions, list(map(plain, labels)))
            return list(zip(regions, masks, strict=True))

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
            targets: The objects of each image; an image may have none.
            image_shapes: As for :meth:`detect`.
            seeds: For each image the seed for sampling anchors and regions; torch's generator by default.
            share_counts: In distributed training, maps the divisors ``(T,)`` of this process's terms to their mean over
                all processes, so that the mean of the processes' losses is the loss of one large batch.

        Returns:
            Scalars ``objectness``, ``rpn_box``, ``classification``, ``box`` and, with a mask head, ``mask`` (and
            ``mask_dice`` if it has a weight), and ``semantic`` with a semantic head.

        Raises:
            ValueError: if the images have other dimensions or channels than the model, an image lacks its targets,
                or the targets lack the masks that a mask head needs.
        """
        images = plain(images)
        if len(targets) != len(images):
            raise ValueError(f"losses needs one Targets per image, got {len(targets)} for {len(images)} images")
        shapes = self._shapes(images, image_shapes)
        randoms = [torch.Generator().manual_seed(s) for s in seeds] if seeds is not None else [None] * len(images)
        rpn, roi, loss = self.settings.rpn, self.settings.roi, self.settings.loss
        pyramid = self.pyramid(images)
        objectness, deltas = self.rpn_head.all_logits(pyramid)
        anchors = self._anchors(pyramid, images)
        per_cell = self.settings.anchors_per_cell
        terms = rpn_terms(objectness, deltas, anchors, targets, randoms, per_cell=per_cell, settings=rpn, loss=loss)
        with torch.no_grad():
            proposals = self._filter_proposals([largest_logit(o) for o in objectness], deltas, anchors, shapes)
            regions = select_training_samples(proposals, targets, randoms, roi)
        logits, offsets = self.box_head(self._align(pyramid, regions.boxes, roi.box_size))
        terms |= box_terms(logits, offsets, regions, targets, loss)
        if self.mask_head is not None:
            boxes, matched_idxs = regions.positives(roi.max_mask_rois)
            boxes = self.mask_boxes(boxes, shapes)
            logits = self.mask_head(self._align(pyramid, boxes, roi.mask_size))
            if self.semantic_head is None:
                terms |= self.mask_terms(logits, boxes, matched_idxs, targets, loss)
            else:
                semantic = self.semantic_head(pyramid[0])
                labels = torch.cat([t.labels[owner] for t, owner in zip(targets, matched_idxs, strict=True)])
                prior = self._pool_semantic(semantic, boxes, labels)
                terms |= self.mask_terms(logits, boxes, matched_idxs, targets, loss, prior)
                terms["semantic"] = semantic_term(semantic, targets)
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

    def candidates(
        self, images: Tensor, watch: Watch = unwatched
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor]]:
        """The pyramid of a batch of images, and what the RPN finds in each, before any suppression.

        Args:
            images: As for :meth:`detect`.
            watch: As there, for the steps ``"pyramid"`` and ``"rpn"``.

        Returns:
            The levels; for each image boxes ``(M, 2S)`` in voxels, their objectness ``(M,)`` in 0..1 and their level.

        Raises:
            ValueError: if the images have other dimensions or channels than the model.
            MedMaskRCNNError: if the network's output is not finite.
        """
        shapes = self._shapes(images, None)
        pyramid, objectness, deltas = self._dense(images, watch)
        self.check_finite(objectness)
        anchors = self._anchors(pyramid, images)
        watch("rpn", (objectness, deltas, anchors))
        found = [
            candidates([o[i] for o in objectness], [d[i] for d in deltas], anchors, shape, self.settings.rpn)
            for i, shape in enumerate(shapes)
        ]
        boxes, scores, levels = (list(part) for part in zip(*found, strict=True))
        return pyramid, boxes, scores, levels

    def check_finite(self, made: Sequence[Tensor]) -> None:
        """Raise a :class:`MedMaskRCNNError` if an output is not finite, which would look like "nothing found"."""
        if not torch.stack([values.isfinite().all() for values in made]).all():  # one GPU synchronisation
            raise MedMaskRCNNError(
                f"what the network makes of this scan in {self.precision} is not finite, so nothing can be said of it",
                Remedy.USE_FP32,
            )

    def _dense(self, images: Tensor, watch: Watch) -> Dense:
        """Backbone, FPN and RPN head at inference, run by the chosen runtime."""
        images = channels_last(images) if self.precision == "bf16" else images
        if self.compiled is not None:
            pyramid, objectness, deltas = unflatten(self.compiled.dense(images))
            watch("pyramid", pyramid)
            return pyramid, objectness, deltas
        pyramid = self.pyramid(images)
        watch("pyramid", pyramid)
        objectness, deltas = self.rpn_head(pyramid)
        return pyramid, objectness, deltas

    def _anchors(self, pyramid: Sequence[Tensor], images: Tensor) -> tuple[Tensor, ...]:
        return grid_anchors(
            self.settings.anchors,
            image=tuple(images.shape[2:]),
            maps=tuple(tuple(level.shape[2:]) for level in pyramid),
            strides=tuple(tuple(stride) for stride in self.pyramid.strides),
            device=images.device,
        )

    def _filter_proposals(
        self,
        objectness: list[Tensor],
        deltas: list[Tensor],
        anchors: Sequence[Tensor],
        shapes: list[tuple[int, ...]],
        *,
        most: int | None = None,
    ) -> list[Tensor]:
        rpn = self.settings.rpn
        rpn = rpn if most is None else rpn.model_copy(update={"post_nms_top_n": most})
        return [
            filter_proposals([o[i] for o in objectness], [d[i] for d in deltas], anchors, shape, rpn)
            for i, shape in enumerate(shapes)
        ]

    def classify(
        self, pyramid: Sequence[Tensor], proposals: list[Tensor], watch: Watch = unwatched
    ) -> tuple[Tensor, Tensor]:
        """RoIAlign and the box head: logits ``(P, K + 1)`` and deltas ``(P, K + 1, 2S)``."""
        regions = self._align(pyramid, proposals, self.settings.roi.box_size)
        watch("regions", regions)
        scores: tuple[Tensor, Tensor] = (self.compiled or self).box_head(regions)
        watch("scores", scores)
        return scores

    def _align(self, pyramid: Sequence[Tensor], boxes: Sequence[Tensor], bins: int) -> Tensor:
        """Pool each box from its own level to the heads' input: ``(R, C, *(bins,) * S)``."""
        levels = self.pyramid.region_levels
        read = pool_rois(
            pyramid[:levels], boxes, strides=self.pyramid.strides[:levels], bins=bins, roi=self.settings.roi
        )
        return self.pyramid.res5(read)

    def _add_masks(
        self, pyramid: Sequence[Tensor], found: list[Detections], shapes: Sequence[tuple[int, ...]]
    ) -> list[Detections]:
        if self.mask_head is None:
            return found
        regions = self.mask_boxes([d.boxes for d in found], shapes)
        masks = self.mask_probabilities(pyramid, regions, [d.labels for d in found])
        return with_masks(found, masks, regions if self.settings.roi.mask_margin else None)

    def mask_boxes(self, boxes: Sequence[Tensor], shapes: Sequence[tuple[int, ...]]) -> list[Tensor]:
        """The regions in which the masks of boxes are predicted."""
        margin = self.settings.roi.mask_margin
        return [
            clip_boxes(enlarge_boxes(own, margin), s) if margin else own for own, s in zip(boxes, shapes, strict=True)
        ]

    def _pool_semantic(self, semantic: Tensor, boxes: Sequence[Tensor], labels: Tensor) -> Tensor:
        assert self.semantic_head is not None
        return pool_own_class(semantic, boxes, labels, stride=self.semantic_head.stride, bins=self.settings.mask_bins)

    def mask_probabilities(
        self, pyramid: Sequence[Tensor], boxes: Sequence[Tensor], labels: Sequence[Tensor]
    ) -> list[Tensor]:
        """Run the mask head on the boxes of all images, in passes small enough to bound memory."""
        mask_head = (self.compiled or self).mask_head
        assert mask_head is not None
        roi, side = self.settings.roi, (self.settings.mask_bins,) * self.settings.spatial_dims
        per_pass = max(1, _MASK_NUMBERS_PER_PASS // (roi.mask_channels * prod(side)))
        counts = [len(own) for own in boxes]
        firsts = [sum(counts[:i]) for i in range(len(counts))]
        every = torch.cat(list(labels))
        parts = [torch.zeros((0, *side), device=every.device)]
        semantic = self.semantic_head(pyramid[0]) if self.semantic_head is not None and len(every) else None
        for start in range(0, len(every), per_pass):
            stop = start + per_pass
            own = [b[max(0, start - n) : max(0, stop - n)] for b, n in zip(boxes, firsts, strict=True)]
            logits = mask_head(self._align(pyramid, own, roi.mask_size))
            logits = self.select_class_logits(logits, every[start:stop])
            if semantic is not None:
                logits = logits + self._pool_semantic(semantic, own, every[start:stop])
            parts.append(logits.sigmoid())
        return list(torch.cat(parts).split(counts))
