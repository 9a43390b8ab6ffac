"""Builds a network from settings; the only module that knows of which parts a Mask R-CNN consists."""

from __future__ import annotations

from medmaskrcnn.errors import MedMaskRCNNError
from medmaskrcnn.models.backbone import build_backbone
from medmaskrcnn.models.box_head import BoxHead, MeanBoxHead
from medmaskrcnn.models.fpn import Pyramid, build_pyramid
from medmaskrcnn.models.mask_head import MaskHead
from medmaskrcnn.models.mask_rcnn import MaskRCNN
from medmaskrcnn.models.rpn import RPNHead
from medmaskrcnn.models.semantic_head import build_semantic_head
from medmaskrcnn.settings import ModelSettings


def build_model(settings: ModelSettings) -> MaskRCNN:
    """Build the network that ``settings`` describe, with random weights (torch's global generator).

    Raises:
        MedMaskRCNNError: if it is one of the networks that only the ablations build.

    Example:
        >>> from medmaskrcnn.settings import ModelSettings
        >>> model = build_model(ModelSettings(class_names=("liver", "tumour")))
        >>> model.box_head.classes.out_features  # with background
        3
    """
    check_buildable(settings)
    dims = settings.spatial_dims
    backbone = build_backbone(settings.backbone, spatial_dims=dims, in_channels=settings.input_channels)
    return add_heads(build_pyramid(backbone, settings.backbone, spatial_dims=dims), settings)


def check_buildable(settings: ModelSettings) -> None:
    """Refuse the networks that only the ablations build; settings may name them, as older files do.

    Raises:
        MedMaskRCNNError: if ``settings`` describe one of them.
    """
    for name, value, built in (
        ("backbone.pyramid", settings.backbone.pyramid, ("fpn", "c4")),
        ("roi.mask_activation", settings.roi.mask_activation, ("sigmoid",)),
    ):
        if value not in built:
            raise MedMaskRCNNError(
                f"networks with {name} {value!r} are not part of the library: they were built for the ablations alone; "
                "benchmarks/ablation_networks.py in the source repository still builds and runs them"
            )


def add_heads(pyramid: Pyramid, settings: ModelSettings, kind: type[MaskRCNN] = MaskRCNN) -> MaskRCNN:
    """Build the heads that ``settings`` describe and join them with a pyramid to a network of the class ``kind``."""
    dims, classes, roi = settings.spatial_dims, len(settings.class_names), settings.roi
    rpn_head = RPNHead(
        spatial_dims=dims,
        channels=pyramid.channels,
        anchors_per_cell=settings.anchors_per_cell,
        logits=settings.objectness_logits,
    )
    channels, c4 = pyramid.region_channels, settings.backbone.pyramid == "c4"
    box_head: BoxHead | MeanBoxHead
    if c4:
        box_head = MeanBoxHead(channels=channels, spatial_dims=dims, classes=classes)
    else:
        box_head = BoxHead(
            channels=channels, bins=roi.box_size, spatial_dims=dims, hidden=roi.box_hidden, classes=classes
        )
    mask_head = None
    if settings.with_masks:
        convs = 0 if c4 else roi.mask_convs
        mask_head = MaskHead(
            channels=channels, hidden=roi.mask_channels, convs=convs, spatial_dims=dims, classes=classes
        )
    return kind(pyramid, rpn_head, box_head, mask_head, settings, build_semantic_head(pyramid, settings))
