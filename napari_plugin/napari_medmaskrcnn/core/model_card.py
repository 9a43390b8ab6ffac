"""A model's card in a few lines of HTML: its classes, domain, accuracy and limits."""

from __future__ import annotations

from html import escape

from medmaskrcnn.settings import ModelFileSettings

_MOST_LIMITS = 2


def card_html(settings: ModelFileSettings) -> str:
    """The card as rich text for a label; everything in it is escaped."""
    card, model = settings.card, settings.model
    made_for = card.modality or "any scan"
    if card.domain:
        made_for += f", only from: {card.domain}"
    lines = [
        f"<b>{escape(card.summary or card.name)}</b>",
        f"{model.spatial_dims}D, for {escape(made_for)}",
        f"Finds {escape(', '.join(model.class_names))}",
        *(f"Limit: {escape(limit)}" for limit in card.limits[:_MOST_LIMITS]),
        f"Licence {escape(card.licence or 'not stated')}",
    ]
    return "<br>".join(lines)
