"""Every setting of a model: validated on creation, frozen, saved inside the model's file."""

from medmaskrcnn.settings.base import Count, Fraction, NotNegative, Positive, Settings
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

__all__ = [
    "AnchorSettings",
    "BackboneSettings",
    "Count",
    "DetectionSettings",
    "Fraction",
    "InferenceSettings",
    "LabelCode",
    "LossSettings",
    "ModelCard",
    "ModelFileSettings",
    "ModelSettings",
    "NotNegative",
    "Positive",
    "PreprocessSettings",
    "RPNSettings",
    "RoISettings",
    "Settings",
]
