"""Settings of a model, saved in its file, and options of a segmentation; frozen and validated on creation."""

from medmaskrcnn.settings.base import Count, Fraction, NotNegative, Positive, Settings
from medmaskrcnn.settings.familiarity import FamiliaritySettings
from medmaskrcnn.settings.inference import InferenceSettings
from medmaskrcnn.settings.model_file import LabelCode, ModelCard, ModelFileSettings
from medmaskrcnn.settings.network import (
    AnchorSettings,
    BackboneSettings,
    DetectionSettings,
    LossSettings,
    ModelSettings,
    RoISettings,
    RPNSettings,
)
from medmaskrcnn.settings.preprocess import PreprocessSettings
from medmaskrcnn.settings.segment_options import ALL_FORMATS, FORMATS, OutputOptions, Region, SegmentOptions

__all__ = [
    "ALL_FORMATS",
    "FORMATS",
    "AnchorSettings",
    "BackboneSettings",
    "Count",
    "DetectionSettings",
    "FamiliaritySettings",
    "Fraction",
    "InferenceSettings",
    "LabelCode",
    "LossSettings",
    "ModelCard",
    "ModelFileSettings",
    "ModelSettings",
    "NotNegative",
    "OutputOptions",
    "Positive",
    "PreprocessSettings",
    "RPNSettings",
    "Region",
    "RoISettings",
    "SegmentOptions",
    "Settings",
]
