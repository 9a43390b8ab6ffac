"""A model's card in a few lines of HTML: its classes, domain, accuracy and limits."""

from __future__ import annotations

from html import escape

from medmaskrcnn.settings import ModelFileSettings
from medmaskrcnn.settings.network import ModelSettings

_MOST_LIMITS = 2


def card_html(settings: ModelFileSettings) -> str:
    """The card as rich text for a label; everything in it is escaped."""
    card, model = settings.card, settings.model
    made_for = card.modality or "any scan"
    if card.domain:
        made_for += f", only from: {card.domain}"
    lines = [
        f"<b>{escape(card.summary or card.name)}</b>",
        f"{_dimensions(model)}, for {escape(made_for)}",
        f"Finds {escape(', '.join(model.class_names))}",
        *(f"Limit: {escape(limit)}" for limit in card.limits[:_MOST_LIMITS]),
        f"Licence {escape(card.licence or 'not stated')}",
    ]
    return "<br>".join(lines)


def _dimensions(model: ModelSettings) -> str:
    """2D, 3D, or 2.5D for a model of slices that looks at the neighbouring ones too."""
    return "2.5D" if model.spatial_dims == 2 and model.context_slices > 1 else f"{model.spatial_dims}D"
