"""Writes the chosen variant as a model file that stores how it is to be run."""

from __future__ import annotations

import platform
from pathlib import Path

from medmaskrcnn.compression.quantise import copy_eight_bits
from medmaskrcnn.compression.search.forms import Forms
from medmaskrcnn.compression.search.variant import VariantResult
from medmaskrcnn.errors import MedMaskRCNNError
from medmaskrcnn.hub.loaded_model import load_model
from medmaskrcnn.hub.model_file import read_model, save_model
from medmaskrcnn.models.runtime.precision import processor_features
from medmaskrcnn.settings import ModelCard, ModelFileSettings
from medmaskrcnn.system.version import __version__


def processor() -> str:
    """The processor that times were measured on."""
    return str(processor_features().get("cpu_name", platform.machine()))


def write_chosen(chosen: VariantResult, original: VariantResult, forms: Forms, file: Path, data: str) -> None:
    """Write the chosen model, and its 8-bit form beside it where it needs one.

    Args:
        chosen: The chosen variant.
        original: The variant it was compared with.
        forms: The files of the variants.
        file: The file to write.
        data: The data that the figures were measured on, for the card.

    Raises:
        OutputError: if a file cannot be written.
        MedMaskRCNNError: if the file does not run as it was measured.
    """
    variant = chosen.variant
    source = forms.file(variant)
    network, settings = read_model(source)
    save_model(network, _settings(settings, chosen, original, data), file)
    if variant.precision == "int8":
        copy_eight_bits(source, file)
    loaded = load_model(file, device=forms.device)
    if (loaded.precision, loaded.engine.split()[0]) != (variant.precision, variant.engine):
        raise MedMaskRCNNError(f"{file} runs by {loaded.engine} in {loaded.precision}, not as {variant.name}")


def _settings(
    settings: ModelFileSettings, chosen: VariantResult, original: VariantResult, data: str
) -> ModelFileSettings:
    variant = chosen.variant
    inference = settings.inference.model_copy(
        update={
            "precision": variant.precision,
            "engine": variant.engine,
            **({} if variant.proposals is None else {"post_nms_top_n_test": variant.proposals}),
        }
    )
    card = _card(settings.card, chosen, original, data)
    return settings.model_copy(update={"card": card, "inference": inference})


def _card(card: ModelCard, chosen: VariantResult, original: VariantResult, data: str) -> ModelCard:
    """The card with the original's figures replaced by those of this search."""
    scores = {f"{name} (before optimize)": text for name, text in card.scores.items()}
    scores["AP and speed"] = (
        f"AP {chosen.ap:.3f} ({original.ap:.3f} before) on {data}; {chosen.times:.1f} times as fast on {processor()}"
    )
    made_by = f"medmaskrcnn {__version__} optimize: {chosen.variant.name}"
    return card.model_copy(
        update={"scores": scores, "made_by": f"{card.made_by}; then {made_by}" if card.made_by else made_by}
    )
