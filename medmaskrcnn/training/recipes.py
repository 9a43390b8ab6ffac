"""How each model that ships was made: settings, nothing else. ``python -m medmaskrcnn.training`` runs them."""

from __future__ import annotations

from collections.abc import Callable

from medmaskrcnn.config import (
    AnchorSettings,
    BackboneSettings,
    DetectionSettings,
    InferenceSettings,
    ModelCard,
    ModelFileSettings,
    ModelSettings,
    PreprocessSettings,
    RoISettings,
    RPNSettings,
)
from medmaskrcnn.structures.volume import PHANTOM_GENERATOR
from medmaskrcnn.training.augment import AugmentSettings
from medmaskrcnn.training.loop import LoopSettings

ABDOMEN_CLASSES = ("liver", "right kidney", "left kidney", "spleen")
PHANTOM_CLASSES = (
    "liver", "spleen", "right kidney", "left kidney", "right lung", "left lung", "vertebra", "tumour",
)  # fmt: skip

Recipe = tuple[ModelFileSettings, AugmentSettings, LoopSettings]

_ABDOMEN_CARD = ModelCard(
    name="abdomen-mr",
    summary="Liver, kidneys and spleen in T2-SPIR abdominal MR.",
    modality="MR",
    data="14 T2-SPIR abdominal MR scans of CHAOS, resampled in plane to 1.25 mm, 7.7 mm slices.",
    licence="CC-BY-SA-4.0",
    attribution=(
        "Made from the CHAOS challenge's MR data (A. E. Kavur et al., CHAOS - Combined (CT-MR) Healthy Abdominal "
        "Organ Segmentation, doi:10.5281/zenodo.3362844), CC-BY-SA 4.0 as its distributor states it."
    ),
    limits=(
        "Made from 14 scans of healthy adults on one kind of scanner and one sequence; not tested on others.",
        "Research use only, not a medical device.",
    ),
)
_PHANTOM_CARD = ModelCard(
    name="phantom-ct",
    summary="Organs and tumours in the synthetic CT phantoms of this package; knows nothing of real CT.",
    modality="CT",
    domain=PHANTOM_GENERATOR,
    data="Synthetic CT phantoms only (medmaskrcnn_datasets).",
    licence="Apache-2.0",
    limits=(
        "Real CT is refused: this model has seen drawings of organs, never a patient.",
        "Made for the demonstration and the tests.",
    ),
)
_MR_AUGMENT = {
    "rotate_degrees": 12.0,
    "zoom": 0.2,
    "shift": 0.06,
    "elastic": 0.035,
    "shift_intensity": 0.25,
    "scale_intensity": 0.4,
    "gamma": 0.4,
    "bias_field": 0.15,
    "noise": 0.15,
}
_LIGHT_3D_STRIDES = ((1, 4, 4), (2, 8, 8), (4, 16, 16), (8, 32, 32))


def abdomen_mr_3d() -> Recipe:
    """The whole scan at once, 2.5 mm in plane, slices as they are."""
    model = ModelSettings(
        spatial_dims=3,
        class_names=ABDOMEN_CLASSES,
        backbone=BackboneSettings(name="light", fpn_channels=48, strides=_LIGHT_3D_STRIDES),
        anchors=AnchorSettings(sizes=((7, 14, 14), (11, 20, 20), (13, 30, 30), (17, 52, 52), (20, 76, 76))),
        rpn=RPNSettings(pre_nms_top_n=300, post_nms_top_n=150, matcher="atss", batch_per_image=128),
        roi=RoISettings(
            box_hidden=128, mask_channels=48, mask_convs=3, canonical_size=224.0, batch_per_image=48, max_mask_rois=8
        ),
        detection=DetectionSettings(per_image=40),
    )
    preprocess = PreprocessSettings(
        spacing_mm=(7.7, 2.5, 2.5),
        percentiles=(0.5, 75.0),
        ceiling=6.0,
        mean=(1.0,),
        std=(2.0,),
        pad_multiple=(8, 32, 32),
    )
    inference = InferenceSettings(tile=(64, 192, 192), single=ABDOMEN_CLASSES)
    augment = AugmentSettings(patch=(40, 128, 128), foreground=0.2, **_MR_AUGMENT)
    settings = ModelFileSettings(card=_ABDOMEN_CARD, model=model, preprocess=preprocess, inference=inference)
    return settings, augment, LoopSettings(steps=6500)


def _abdomen_mr_2d(context_slices: int) -> Recipe:
    model = ModelSettings(
        context_slices=context_slices,
        class_names=ABDOMEN_CLASSES,
        backbone=BackboneSettings(name="light", fpn_channels=64),
        anchors=AnchorSettings(sizes=((16, 16), (28, 28), (44, 44), (72, 72), (110, 110))),
        rpn=RPNSettings(pre_nms_top_n=300, post_nms_top_n=150, matcher="atss", batch_per_image=128),
        roi=RoISettings(box_hidden=256, mask_channels=64, canonical_size=112.0, batch_per_image=64),
        detection=DetectionSettings(per_image=30),
    )
    preprocess = PreprocessSettings(
        spacing_mm=(None, 1.6, 1.6), percentiles=(0.5, 90.0), ceiling=3.0, mean=(0.5,), std=(0.5,)
    )
    inference = InferenceSettings(single=ABDOMEN_CLASSES)
    augment = AugmentSettings(patch=(1, 192, 192), foreground=0.7, **_MR_AUGMENT)
    settings = ModelFileSettings(card=_ABDOMEN_CARD, model=model, preprocess=preprocess, inference=inference)
    return settings, augment, LoopSettings(steps=900, batch=8)


def abdomen_mr_2d() -> Recipe:
    """Slice by slice."""
    return _abdomen_mr_2d(0)


def abdomen_mr_25d() -> Recipe:
    """Slice by slice, each with a neighbour on either side as further channels."""
    return _abdomen_mr_2d(1)


def phantom_ct() -> Recipe:
    """2 mm slices of 1.5 mm pixels, a wide and a narrow intensity window as channels."""
    strides = ((2, 4, 4), (4, 8, 8), (8, 16, 16), (16, 32, 32))
    model = ModelSettings(
        spatial_dims=3,
        image_channels=2,
        class_names=PHANTOM_CLASSES,
        backbone=BackboneSettings(name="light", fpn_channels=48, strides=strides),
        anchors=AnchorSettings(sizes=((6, 9, 9), (13, 18, 18), (24, 34, 34), (50, 60, 60), (80, 95, 95))),
        rpn=RPNSettings(pre_nms_top_n=1000, post_nms_top_n=500, matcher="atss", batch_per_image=256),
        roi=RoISettings(
            box_hidden=128,
            mask_channels=48,
            mask_convs=3,
            canonical_size=224.0,
            batch_per_image=160,
            positive_fraction=0.4,
            max_mask_rois=16,
        ),
        detection=DetectionSettings(per_image=80, mask_threshold=0.55),
    )
    preprocess = PreprocessSettings(
        spacing_mm=(2.0, 1.5, 1.5),
        windows=((-1000.0, 600.0), (-50.0, 250.0)),
        mean=(0.5, 0.5),
        std=(0.3, 0.3),
        pad_multiple=(32, 32, 32),
    )
    inference = InferenceSettings(
        tile=(160, 256, 256),
        single=("liver", "spleen", "right kidney", "left kidney", "right lung", "left lung"),
    )
    augment = AugmentSettings(
        patch=(96, 144, 144),
        foreground=0.8,
        favoured=PHANTOM_CLASSES.index("tumour"),
        favoured_patch=(96, 96, 96),
        shift_intensity=0.1,
        scale_intensity=0.1,
        noise=0.1,
    )
    settings = ModelFileSettings(card=_PHANTOM_CARD, model=model, preprocess=preprocess, inference=inference)
    return settings, augment, LoopSettings(steps=6900)


RECIPES: dict[str, Callable[[], Recipe]] = {
    "abdomen-mr": abdomen_mr_3d,
    "abdomen-mr-2d": abdomen_mr_2d,
    "abdomen-mr-2.5d": abdomen_mr_25d,
    "phantom-ct": phantom_ct,
}
