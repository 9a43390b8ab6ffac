"""Settings of the network: backbone, pyramid, anchors, proposals, heads and losses.

Axis order is that of arrays: D, H, W in 3D and H, W in 2D. Lengths are voxels of the network's input
(after preprocessing) unless a name says mm.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from medmaskrcnn.settings.base import Count, Fraction, Name, NotNegative, Positive, Settings

_STAGES = 4
_FIRST_STRIDES = (1, 2, 4)
_FPN_LEVELS = 5  # P2 to P6 (FPN, section 4.1)


class BackboneSettings(Settings):
    """The bottom-up network and its pyramid.

    Attributes:
        name: A ResNet (``"resnet10"`` to ``"resnet101"``), ``"light"`` (the same network with one block per
            stage and few channels), ``"mednext"`` (:mod:`medmaskrcnn.models.mednext`, which is no ResNet), ``"resenc"``
            (:mod:`medmaskrcnn.models.resenc`, for the weights of nnssl and OpenMind), or a name registered by
            :func:`medmaskrcnn.models.backbone.register_backbone`.
        light_channels: Channels of the four stages of ``"light"`` and ``"mednext"``.
        channels: Channels of the four stages, in place of those of ``name``, as pruning leaves them; a stage of
            bottlenecks outputs four times as many.
        norm: ``"group"`` or ``"frozen_batch"`` (affine constants from pretrained weights). Neither uses the batch.
        norm_eps: Epsilon of the normalisation; torchvision's COCO_V1 weights need 0.0.
        strides: Stride of P2..P5 per spatial axis, in voxels of the input; on the last axis 4, 8, 16, 32, as in FPN, or
            finer for small objects: 2, 4, 8, 16 or 1, 2, 4, 8 (then the stem subsamples less, or not at all).
        fpn_channels: Channels of every pyramid level.
        pyramid: Feature maps of the RPN and the heads. ``"fpn"``: P2..P6. ``"c4"``: the map before the last stage; the
            last stage runs on each region instead and halves its bins (Faster R-CNN's network; Mask R-CNN,
            figure 4, left). ``"c5"`` (one map of the coarsest stride) is built by the ablations only.
    """

    name: str = "resnet50"
    light_channels: tuple[Count, Count, Count, Count] = (24, 48, 96, 128)
    channels: tuple[Count, Count, Count, Count] | None = None
    norm: Literal["group", "frozen_batch"] = "group"
    norm_eps: NotNegative = 1e-5
    strides: tuple[tuple[Count, ...], ...] = ((4, 4), (8, 8), (16, 16), (32, 32))
    fpn_channels: Count = 256
    pyramid: Literal["fpn", "c4", "c5"] = "fpn"

    @model_validator(mode="after")
    def _check(self) -> BackboneSettings:
        if len(self.strides) != _STAGES or len({len(s) for s in self.strides}) != 1:
            raise ValueError(f"strides needs one entry per level P2..P5, all of one length, got {self.strides}")
        last = [s[-1] for s in self.strides]
        if last[0] not in _FIRST_STRIDES or last != [last[0] * 2**level for level in range(_STAGES)]:
            raise ValueError(
                f"on the last axis the strides must be 4, 8, 16, 32, or half or a quarter of these, got {self.strides}"
            )
        before = ((1,) * len(self.strides[0]), *self.strides)
        for level, (fine, coarse) in enumerate(zip(before, self.strides, strict=False)):
            factors = (1, 2) if level else _FIRST_STRIDES
            if any(c % f or c // f not in factors for f, c in zip(fine, coarse, strict=True)):
                raise ValueError(f"strides must grow by a factor of 1 or 2 a level, got {self.strides}")
        if self.name == "mednext" and (self.pyramid == "c4" or self.norm != "group"):
            raise ValueError("backbone mednext has instance normalisation alone and no last stage for regions")
        if self.name == "resenc" and (self.pyramid == "c4" or self.norm != "group" or self.channels is not None):
            raise ValueError(
                "backbone resenc has channels of its own, instance normalisation alone and no last stage for regions"
            )
        return self


class AnchorSettings(Settings):
    """Reference boxes of the RPN: one scale per level, or a few, and a few aspect ratios (FPN, section 4.1).

    Attributes:
        sizes: For each level P2..P6 the edge length per spatial axis; several for each level, all of P2 first, are as
            many for every level (RetinaNet, Lin et al. 2017, section 4). Without a pyramid any number of them, all on
            the one map (Faster R-CNN, section 3.1.1).
        ratios: Height over width at constant area; applied to the last two axes.
        offset: Position of an anchor's centre in its cell, in strides: 0.5 is the cell's centre; torchvision has 0.0.
        rounded: Round half edges to whole voxels, as torchvision does.
        stride_from_size: Space anchors by image size over map size, as torchvision does, instead of the level's
            stride; the two differ on P6 if P5 has an odd size.
    """

    sizes: tuple[tuple[Positive, ...], ...] = ((32, 32), (64, 64), (128, 128), (256, 256), (512, 512))
    ratios: tuple[Positive, ...] = (0.5, 1.0, 2.0)
    offset: Fraction = 0.5
    rounded: bool = False
    stride_from_size: bool = False

    @model_validator(mode="after")
    def _check(self) -> AnchorSettings:
        if len({len(s) for s in self.sizes}) != 1:
            raise ValueError(f"anchor sizes need at least one entry, all of one length, got {self.sizes}")
        return self


class RPNSettings(Settings):
    """Region proposal network (Faster R-CNN, section 3.1).

    Attributes:
        pre_nms_top_n: Anchors kept per level by objectness before non-maximum suppression.
        post_nms_top_n: Proposals kept per image after it.
        nms_iou: IoU above which the lower-scoring proposal is dropped.
        min_size: Proposals with an edge below this are dropped.
        matcher: How anchors are matched to objects in training: by IoU thresholds, or ATSS (Zhang et al. 2020).
        foreground_iou, background_iou: Thresholds of the IoU matcher.
        batch_per_image: Anchors sampled per image for the loss.
        positive_fraction: Largest share of positives among them.
        negatives: Sampled at random, or at random among those with the highest objectness (hard negative mining).
        objectness: ``"shared"``: one logit per anchor for all classes, as in Faster R-CNN. ``"per_class"``: one per
            class, of which a proposal's score is the largest, for cases in which not all classes were annotated: an
            anchor without an object is then background only for the classes that were (``docs/decisions/021``).
    """

    pre_nms_top_n: Count = 1000
    post_nms_top_n: Count = 1000
    nms_iou: Fraction = 0.7
    min_size: NotNegative = 1e-3
    matcher: Literal["iou", "atss"] = "iou"
    foreground_iou: Fraction = 0.7
    background_iou: Fraction = 0.3
    batch_per_image: Count = 256
    positive_fraction: Fraction = 0.5
    negatives: Literal["random", "hard"] = "random"
    objectness: Literal["shared", "per_class"] = "shared"


class RoISettings(Settings):
    """RoIAlign (Mask R-CNN, section 3) and the two heads that follow it.

    Attributes:
        pooler: RoIAlign, or RoIPool with its rounding (Fast R-CNN) for comparison.
        box_size, mask_size: Bins per axis of the input of the box head and the mask head; the mask head
            doubles them (14 to 28). With ``"c4"`` the last stage halves them first.
        sampling_ratio: Samples per bin and axis; 0 adapts to the box.
        aligned: Continuous coordinates (half-voxel shift); torchvision's detection models use False.
        canonical_size, canonical_level: A box of this size goes to the level of stride 2 to the power
            ``canonical_level``, one of twice the size to the next (FPN, eq. 1).
        box_hidden: Width of the box head's two fully connected layers.
        mask_channels, mask_convs: Channels and number of the mask head's convolutions; with ``"c4"`` there are none
            before the transposed one.
        mask_activation: ``"sigmoid"``: classes do not compete for voxels. ``"softmax"`` (they do; Mask R-CNN,
            table 2b) is built by the ablations only.
        foreground_iou: A proposal with at least this IoU with an object is a positive.
        batch_per_image, positive_fraction: RoIs sampled per image for the loss, and the largest share of positives.
        max_mask_rois: Positives per image that the mask head is trained on; bounds memory in 3D.
        mask_margin: The mask is predicted in the box enlarged by this share of its edge on every side, so that it can
            leave a box that is too small; the detection's box is then the mask's. 0 keeps the box.
    """

    pooler: Literal["align", "pool"] = "align"
    box_size: Count = 7
    mask_size: Count = 14
    sampling_ratio: Annotated[int, Field(ge=0)] = 2
    aligned: bool = True
    canonical_size: Positive = 224.0
    canonical_level: Count = 4
    box_hidden: Count = 1024
    mask_channels: Count = 256
    mask_convs: Count = 4
    mask_activation: Literal["sigmoid", "softmax"] = "sigmoid"
    foreground_iou: Fraction = 0.5
    batch_per_image: Count = 512
    positive_fraction: Fraction = 0.25
    max_mask_rois: Count = 128
    mask_margin: NotNegative = 0.0


class SemanticSettings(Settings):
    """A semantic head on the finest map: a logit of every class for every voxel, whichever object it belongs to.

    It learns from every voxel of a window, the mask head from sampled regions only (the auxiliary task of Retina U-Net,
    Jaeger et al. 2020). The logits of a region's class are added to those of its mask head.

    Attributes:
        channels: Channels of its convolutions.
        finer: Whether its output has half the stride of P2 on the axes where that is above 1.
    """

    channels: Count = 32
    finer: bool = True


class DetectionSettings(Settings):
    """Postprocessing of the detections.

    Attributes:
        score_thresh: Candidates below it are dropped; lower than any threshold that a user will choose.
        nms_iou: IoU above which the lower-scoring of two candidates of one class is dropped.
        detections_per_img: Candidates kept per image or tile.
        mask_threshold: A voxel belongs to an instance if its mask probability reaches this.
    """

    score_thresh: Fraction = 0.05
    nms_iou: Fraction = 0.5
    detections_per_img: Count = 100
    mask_threshold: Fraction = 0.5


class LossSettings(Settings):
    """Weight and form of each term of the multi-task loss (Mask R-CNN, section 3).

    Attributes:
        objectness, rpn_box, classification, box, mask: Weights.
        mask_dice: Weight of a Dice term (Milletari et al. 2016) added to the masks' cross-entropy; 0 omits it.
        semantic: Weight of the semantic head's loss, cross-entropy and Dice.
        focal: Exponent of the focal loss (Lin et al. 2017, eq. 4) in both classifications; 0 is cross-entropy.
    """

    objectness: NotNegative = 1.0
    rpn_box: NotNegative = 1.0
    classification: NotNegative = 1.0
    box: NotNegative = 1.0
    mask: NotNegative = 1.0
    mask_dice: NotNegative = 0.0
    semantic: NotNegative = 1.0
    focal: NotNegative = 0.0


class ModelSettings(Settings):
    """Settings from which :func:`medmaskrcnn.models.build.build_model` builds a Mask R-CNN.

    Attributes:
        spatial_dims: 2 or 3.
        image_channels: Channels of the preprocessed image (one per intensity window, or 3 for colour).
        context_slices: 2.5D: number of neighbouring slices on each side, added as channels. Needs 2 dims.
        class_names: Names of the classes without the background.
        with_masks: False gives a Faster R-CNN.
        semantic: The semantic head, or ``None``. It needs masks and a pyramid.
    """

    spatial_dims: Literal[2, 3] = 2
    image_channels: Count = 1
    context_slices: Annotated[int, Field(ge=0)] = 0
    class_names: tuple[Name, ...]
    with_masks: bool = True
    backbone: BackboneSettings = BackboneSettings()
    anchors: AnchorSettings = AnchorSettings()
    rpn: RPNSettings = RPNSettings()
    roi: RoISettings = RoISettings()
    semantic: SemanticSettings | None = None
    detection: DetectionSettings = DetectionSettings()
    loss: LossSettings = LossSettings()

    @model_validator(mode="after")
    def _check(self) -> ModelSettings:
        if not self.class_names or len(set(self.class_names)) != len(self.class_names):
            raise ValueError(f"class_names must be distinct and at least one, got {self.class_names}")
        if self.context_slices and self.spatial_dims != 2:
            raise ValueError("context_slices (2.5D) needs spatial_dims=2")
        for what, got in (("strides", self.backbone.strides[0]), ("anchor sizes", self.anchors.sizes[0])):
            if len(got) != self.spatial_dims:
                raise ValueError(f"{what} must have {self.spatial_dims} values a level, got {got}")
        if self.backbone.pyramid == "fpn" and len(self.anchors.sizes) % _FPN_LEVELS:
            raise ValueError(f"anchor sizes need one entry per level P2..P6, or several, got {self.anchors.sizes}")
        if self.semantic and not (self.with_masks and self.backbone.pyramid == "fpn"):
            raise ValueError("a semantic head needs with_masks and the pyramid fpn")
        if self.backbone.pyramid == "c4" and (self.roi.box_size % 2 or self.roi.mask_size % 2):
            raise ValueError("with pyramid c4, whose last stage halves them, roi.box_size and mask_size must be even")
        return self

    @property
    def input_channels(self) -> int:
        """Input channels of the network's first layer: image channels times slices per input."""
        return self.image_channels * (2 * self.context_slices + 1)

    @property
    def anchors_per_cell(self) -> int:
        """Anchors per location of a map: one per ratio and size of the level."""
        levels = _FPN_LEVELS if self.backbone.pyramid == "fpn" else 1
        return len(self.anchors.ratios) * len(self.anchors.sizes) // levels

    @property
    def objectness_logits(self) -> int:
        """Objectness logits per anchor: one, or one per class."""
        return 1 if self.rpn.objectness == "shared" else len(self.class_names)

    @property
    def mask_bins(self) -> int:
        """Bins per axis of a predicted mask."""
        return self.roi.mask_size * (1 if self.backbone.pyramid == "c4" else 2)
