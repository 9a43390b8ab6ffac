"""Remedies that the panels suggest for an error; those not available in napari are left out."""

from __future__ import annotations

from collections.abc import Mapping

from medmaskrcnn.errors import MedMaskRCNNError, Remedy, with_remedy

IN_NAPARI: Mapping[Remedy, str] = {
    Remedy.ALLOW_OUT_OF_DOMAIN: "Choose another model, or tick 'Allow scans outside the model's domain' and run again",
    Remedy.GIVE_ONE_VOLUME: "Right-click the layer > Split Stack, then choose one of the parts",
    Remedy.GIVE_SEQUENCES: "Choose a layer for each sequence under Scan",
    Remedy.USE_FP32: "Choose fp32 under Precision, and if that does not help, another model",
    Remedy.USE_TORCH: "Without them choose torch under Engine",
}


def in_words(error: Exception) -> str:
    """The text of an error as the panels show it."""
    return with_remedy(error.reason, error.remedy, IN_NAPARI) if isinstance(error, MedMaskRCNNError) else str(error)
