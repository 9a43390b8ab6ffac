"""Every setting of a model, in one place: validated on creation, frozen, saved inside the model's file.

Axis order is that of arrays: D, H, W in 3D and H, W in 2D. Lengths are voxels of the network's input
(after preprocessing) unless a name says mm. Unknown keys are refused, so a misspelt setting cannot pass.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]

_STAGES = 4
_FPN_LEVELS = 5  # P2 to P6 (FPN, section 4.1)


class Settings(BaseModel):
    """Base of all settings: immutable, and refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class PreprocessSettings(Settings):
    """From a scan's voxels to the network's tensor.

    Attributes:
        orientation: ``"SPL"`` (axes run up, to the back, to the left), ``"acquisition"`` (the thickest axis comes
            first, the other two keep the order of SPL) or ``"as_stored"`` (photographs).
        spacing_mm: Target spacing along the network's D, H, W; ``None`` keeps the scan's own along that axis.
        resize_min_max: torchvision's rule for pictures: scale so that the shorter side has the first size,
            unless the longer would pass the second. Excludes ``spacing_mm``.
        antialias: Low-pass filter when shrinking.
        windows: Raw value ranges; each becomes one channel in which the range is mapped to [0, 1] and clipped.
        percentiles: Without ``windows``: this range of each channel's own percentiles is mapped to [0, 1].
        ceiling: After ``percentiles``: values are clipped to [0, ceiling]. With a low upper percentile and a high
            ceiling the brightness of organs does not depend on how much bright fluid lies in the scan.
        value_range: Without either: this raw range is mapped to [0, 1] without clipping.
        mean, std: Per channel after that mapping: ``(x - mean) / std``. One value serves all channels.
        pad_multiple: The tensor is padded with zeros at the far end to multiples of these, per spatial axis.
    """

    orientation: Literal["SPL", "acquisition", "as_stored"] = "SPL"
    spacing_mm: tuple[Positive | None, Positive | None, Positive | None] = (None, None, None)
    resize_min_max: tuple[Count, Count] | None = None
    antialias: bool = True
    windows: tuple[tuple[float, float], ...] = ()
    percentiles: tuple[float, float] | None = None
    ceiling: Positive = 1.0
    value_range: tuple[float, float] = (0.0, 1.0)
    mean: tuple[float, ...] = (0.0,)
    std: tuple[Positive, ...] = (1.0,)
    pad_multiple: tuple[Count, ...] = (32, 32)

    @model_validator(mode="after")
    def _check(self) -> PreprocessSettings:
        ranges = [*self.windows, self.value_range, *([self.percentiles] if self.percentiles else [])]
        if any(low >= high for low, high in ranges):
            raise ValueError(f"each intensity range must be (low, high) with low < high, got {ranges}")
        if self.windows and self.percentiles:
            raise ValueError("give either windows or percentiles, not both")
        if self.resize_min_max and any(self.spacing_mm):
            raise ValueError("give either spacing_mm or resize_min_max, not both")
        return self


class BackboneSettings(Settings):
    """The bottom-up network and its pyramid.

    Attributes:
        name: A MONAI ResNet (``"resnet10"`` to ``"resnet101"``), ``"light"`` (the same network with one block a
            stage and few channels), or what :func:`medmaskrcnn.models.backbone.register_backbone` was given.
        light_channels: Channels of the four stages of ``"light"``.
        channels: Of the four stages, in place of those that ``name`` stands for; a bottleneck's stage gives out four
            times as many. What pruning leaves.
        norm: ``"group"`` or ``"frozen_batch"`` (affine constants from pretrained weights). Neither uses the batch.
        norm_eps: Epsilon of the normalisation; torchvision's COCO_V1 weights want 0.0.
        strides: Stride of P2..P5 per spatial axis, in voxels of the input; on the last axis 4, 8, 16, 32.
        fpn_channels: Channels of every pyramid level.
        pyramid: What anchors and regions look at. ``"fpn"``: P2..P6. ``"c5"``: one map of the coarsest stride, with
            ``fpn_channels`` and the same heads. ``"c4"``: the map before the last stage as it is; the last stage runs
            on each region instead and halves its bins (Faster R-CNN's network; Mask R-CNN, figure 4, left).
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
        if [s[-1] for s in self.strides] != [4, 8, 16, 32]:
            raise ValueError(f"on the last axis the strides must be 4, 8, 16, 32, got {self.strides}")
        for fine, coarse in zip(((1,) * len(self.strides[0]), *self.strides), self.strides, strict=False):
            factors = (1, 2, 4) if fine[-1] == 1 else (1, 2)
            if any(c % f or c // f not in factors for f, c in zip(fine, coarse, strict=True)):
                raise ValueError(f"strides must grow by a factor of 1 or 2 a level, got {self.strides}")
        return self


class AnchorSettings(Settings):
    """Reference boxes of the RPN: one scale a level and a few shapes (FPN, section 4.1).

    Attributes:
        sizes: For each level P2..P6 the edge length per spatial axis; without a pyramid as many as one likes, all of
            which lie on the one map (Faster R-CNN, section 3.1.1).
        ratios: Height over width at constant area; applied to the last two axes.
        offset: Where in its cell an anchor's centre lies, in strides: 0.5 is the cell's centre, 0.0 torchvision's.
        rounded: Round half edges to whole voxels, as torchvision does.
        stride_from_size: Space anchors by the image's size divided by the map's, as torchvision does, in place of
            the level's stride; they differ on P6 where P5 has an odd size.
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
        nms_iou: Overlap above which the weaker proposal is dropped.
        min_size: Proposals with an edge below this are dropped.
        matcher: How anchors meet objects in training: fixed IoU thresholds, or ATSS (Zhang et al. 2020).
        foreground_iou, background_iou: Thresholds of the IoU matcher.
        batch_per_image: Anchors sampled per image for the loss.
        positive_fraction: Largest share of positives among them.
        negatives: Drawn at random, or at random among those that look most like objects (hard negative mining).
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


class RoISettings(Settings):
    """RoIAlign (Mask R-CNN, section 3) and the two heads behind it.

    Attributes:
        pooler: How a region is read from a map: RoIAlign, or RoIPool with its rounding (Fast R-CNN), to compare.
        box_size, mask_size: Bins per axis that the box head and the mask head are given; the mask head
            doubles it (14 to 28). On ``"c4"`` the last stage has halved it before.
        sampling_ratio: Samples per bin and axis; 0 adapts to the box.
        aligned: Continuous coordinates (half-voxel shift); False is torchvision's detection models' choice.
        canonical_size, canonical_level: A box of this size goes to level P``canonical_level`` (FPN, eq. 1).
        box_hidden: Width of the box head's two fully connected layers.
        mask_channels, mask_convs: Channels and number of the mask head's convolutions; on ``"c4"`` there are none
            before the one that doubles.
        mask_activation: ``"sigmoid"``: classes do not compete for voxels. ``"softmax"``: they do, and the background
            with them (Mask R-CNN, table 2b).
        foreground_iou: A proposal that overlaps an object at least so much is a positive.
        batch_per_image, positive_fraction: RoIs sampled per image for the loss, and the largest share of positives.
        max_mask_rois: Positives per image that the mask head is trained on; bounds memory in 3D.
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


class DetectionSettings(Settings):
    """What becomes of the box head's scores.

    Attributes:
        candidate_score: Candidates below it are dropped; lower than any threshold a user will ask for.
        nms_iou: Overlap above which the weaker of two candidates of one class is dropped.
        per_image: Candidates kept per image or tile.
        mask_threshold: A voxel belongs to an instance where its mask probability reaches this.
    """

    candidate_score: Fraction = 0.05
    nms_iou: Fraction = 0.5
    per_image: Count = 100
    mask_threshold: Fraction = 0.5


class LossSettings(Settings):
    """Weight of each term of the multi-task loss (Mask R-CNN, section 3), and its form.

    Attributes:
        objectness, rpn_box, classification, box, mask: Weights.
        mask_dice: Weight of a Dice term on the masks beside the cross-entropy (Milletari et al. 2016); 0 leaves it out.
        focal: Exponent of the focal loss (Lin et al. 2017, eq. 4) in both classifications; 0 is cross-entropy.
    """

    objectness: NotNegative = 1.0
    rpn_box: NotNegative = 1.0
    classification: NotNegative = 1.0
    box: NotNegative = 1.0
    mask: NotNegative = 1.0
    mask_dice: NotNegative = 0.0
    focal: NotNegative = 0.0


class ModelSettings(Settings):
    """A Mask R-CNN, from which :func:`medmaskrcnn.models.build.build_model` makes the network.

    Attributes:
        spatial_dims: 2 or 3.
        image_channels: Channels of the preprocessed image (one per intensity window, or 3 for colour).
        context_slices: 2.5D: so many neighbouring slices on each side are further channels. Needs 2 dims.
        class_names: Names of the classes without background.
        with_masks: False gives Faster R-CNN.
    """

    spatial_dims: Literal[2, 3] = 2
    image_channels: Count = 1
    context_slices: Annotated[int, Field(ge=0)] = 0
    class_names: tuple[str, ...]
    with_masks: bool = True
    backbone: BackboneSettings = BackboneSettings()
    anchors: AnchorSettings = AnchorSettings()
    rpn: RPNSettings = RPNSettings()
    roi: RoISettings = RoISettings()
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
        if self.backbone.pyramid == "fpn" and len(self.anchors.sizes) != _FPN_LEVELS:
            raise ValueError(f"anchor sizes need one entry per level P2..P6, got {self.anchors.sizes}")
        if self.backbone.pyramid == "c4" and (self.roi.box_size % 2 or self.roi.mask_size % 2):
            raise ValueError("with pyramid c4, whose last stage halves them, roi.box_size and mask_size must be even")
        return self

    @property
    def input_channels(self) -> int:
        """Channels of the network's first layer: image channels times slices seen at once."""
        return self.image_channels * (2 * self.context_slices + 1)

    @property
    def anchors_per_cell(self) -> int:
        """Anchors at each place of a map: every ratio, and without a pyramid every size."""
        return len(self.anchors.ratios) * (1 if self.backbone.pyramid == "fpn" else len(self.anchors.sizes))

    @property
    def mask_bins(self) -> int:
        """Bins per axis of a predicted mask."""
        return self.roi.mask_size * (1 if self.backbone.pyramid == "c4" else 2)


class InferenceSettings(Settings):
    """How a scan larger than one forward pass is walked through.

    Attributes:
        tile: Largest tile in voxels of the network's grid, per axis D, H, W (3D models).
        tile_overlap: Share of a tile that it shares with its neighbour.
        merge_iou: Two detections of neighbouring tiles are one object if their masks agree so well where both saw.
        tiles_per_batch: Tiles a forward pass (3D models): more keep a GPU busy, and take its memory.
        slices_per_batch: Slices a forward pass (2D and 2.5D models).
        proposals: Proposals a tile or slice, at most: fewer is faster; ``None`` leaves it at ``rpn.post_nms_top_n``.
        link_iou: Masks on neighbouring slices are one object from this overlap on (2D and 2.5D models).
        link_gap: Slices in between that may lack the object.
        covered: An object is dropped if better ones of its class hold more than this share of its voxels (2D and 2.5D
            models: slice by slice, before they are linked); ``None`` drops none.
        score: Default score threshold of the result.
        single: Names of classes of which a body has one: only the best candidate is kept.
        precision: What ``auto`` means for this model: the rule of :mod:`medmaskrcnn.runtime.precision`, or a precision
            that was found to be worth it (``medmaskrcnn optimize``); ``int8`` goes with engine ``openvino``.
        engine: What runs the layers where the user names nothing; ``openvino`` holds on a CPU, ``torch-compile`` on a
            GPU.
    """

    tile: tuple[Count, Count, Count] = (160, 160, 160)
    tile_overlap: Annotated[float, Field(ge=0, lt=1)] = 0.25
    merge_iou: Fraction = 0.3
    tiles_per_batch: Count = 1
    slices_per_batch: Count = 8
    proposals: Count | None = None
    link_iou: Fraction = 0.3
    link_gap: Annotated[int, Field(ge=0)] = 1
    covered: Fraction | None = None
    score: Fraction = 0.5
    single: tuple[str, ...] = ()
    precision: Literal["auto", "fp32", "bf16", "int8"] = "auto"
    engine: Literal["torch", "openvino", "torch-compile"] = "torch"

    @model_validator(mode="after")
    def _check(self) -> InferenceSettings:
        if self.precision == "int8" and self.engine != "openvino":
            raise ValueError("inference.precision int8 needs inference.engine openvino")
        return self


class LabelCode(Settings):
    """What a class is in coded terms, each ``(scheme, value, meaning)``, e.g. ``("SCT", "10200004", "Liver")``.

    Attributes:
        type: What it is.
        category: What kind of thing that is; anatomy where not given.
        modifier: Its side.
        region: Where a change of tissue (a tumour) lies.
    """

    type: tuple[str, str, str]
    category: tuple[str, str, str] | None = None
    modifier: tuple[str, str, str] | None = None
    region: tuple[str, str, str] | None = None


class ModelCard(Settings):
    """What a user must know before trusting a model; printed by ``medmaskrcnn models``.

    Attributes:
        name: Short name, as in ``--model NAME``.
        summary: One sentence.
        modality: DICOM modality the model was made for, or ``None`` for any.
        domain: Generator (:attr:`Provenance.generator`) that its scans must come from; ``None`` for real scans.
        data: What it was trained on.
        licence: Licence of the weights.
        attribution: Credit that the data's licence asks for.
        scores: Measured figures, name to sentence.
        limits: What it cannot do.
        made_by: The command that made it.
        codes: Coded terms of classes that :mod:`medmaskrcnn.dicom.codes` does not know, or knows otherwise, by class
            name; the DICOM exports use them.
    """

    name: str
    summary: str = ""
    modality: str | None = None
    domain: str | None = None
    data: str = ""
    licence: str = ""
    attribution: str = ""
    scores: dict[str, str] = {}
    limits: tuple[str, ...] = ()
    made_by: str = ""
    codes: dict[str, LabelCode] = {}


class ModelFileSettings(Settings):
    """All that a model's file holds beside its weights."""

    format_version: Literal[1] = 1
    card: ModelCard
    model: ModelSettings
    preprocess: PreprocessSettings = PreprocessSettings()
    inference: InferenceSettings = InferenceSettings()
    training: dict[str, str | int | float] = {}

    @model_validator(mode="after")
    def _check(self) -> ModelFileSettings:
        model, preprocess = self.model, self.preprocess
        if model.spatial_dims == 2 and preprocess.spacing_mm[0] is not None:
            raise ValueError("a 2D model keeps the scan's slices: spacing_mm[0] must be None")
        if len(preprocess.pad_multiple) != model.spatial_dims or any(
            pad % stride for pad, stride in zip(preprocess.pad_multiple, model.backbone.strides[-1], strict=True)
        ):
            raise ValueError(
                f"pad_multiple must be multiples of the strides {model.backbone.strides[-1]} of P5, "
                f"got {preprocess.pad_multiple}"
            )
        channels = model.image_channels
        if len(preprocess.mean) not in (1, channels) or len(preprocess.std) not in (1, channels):
            raise ValueError(
                f"mean and std must have one value or one per image channel ({channels}), "
                f"got {preprocess.mean} and {preprocess.std}"
            )
        if channels % max(1, len(preprocess.windows)):
            raise ValueError(f"{len(preprocess.windows)} windows cannot make up {channels} image channels")
        unknown = sorted(set(self.inference.single) - set(model.class_names))
        if unknown:
            raise ValueError(f"inference.single names classes that the model lacks: {unknown}")
        return self
