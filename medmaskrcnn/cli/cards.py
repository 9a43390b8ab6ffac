"""What a model is, for people and for programs: its card, and what it was built for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medmaskrcnn.cli.console import echo
from medmaskrcnn.settings import ModelFileSettings, ModelSettings


def card_json(settings: ModelFileSettings, file: Path) -> dict[str, Any]:
    """Card, classes and preprocessing of a model, JSON-able; of the file only its name and size in bytes."""
    return {
        **settings.card.model_dump(mode="json"),
        "classes": list(settings.model.class_names),
        "network": network(settings.model),
        "members": settings.members,
        "preprocess": settings.preprocess.model_dump(mode="json"),
        "score": settings.inference.score,
        "training": settings.training,
        "file": file.name,
        "bytes": file.stat().st_size,
    }


def print_card(settings: ModelFileSettings, file: Path) -> None:
    """The card of a model, on stdout."""
    card = settings.card
    echo(f"{card.name}: {card.summary}" if card.summary else card.name)
    for what, text in _lines(settings, file):
        if text:
            echo(f"  {what + ':':<13}{text}")
    for name, score in card.scores.items():
        echo(f"  {'measured:':<13}{name}: {score}")
    for limit in card.limits:
        echo(f"  {'limit:':<13}{limit}")


def network(model: ModelSettings) -> str:
    """The network in one line: ``Mask R-CNN 2.5D (3 slices), resnet18``."""
    family = "Mask R-CNN" if model.with_masks else "Faster R-CNN"
    slices = 2 * model.context_slices + 1
    dims = f"2.5D ({slices} slices)" if model.context_slices else f"{model.spatial_dims}D"
    return f"{family} {dims}, {model.backbone.name}"


def _lines(settings: ModelFileSettings, file: Path) -> list[tuple[str, str]]:
    card = settings.card
    megabytes = file.stat().st_size / 1e6
    folds = (
        f", {settings.members} folds averaged: as many times the time and the weights" if settings.members > 1 else ""
    )
    return [
        ("classes", ", ".join(settings.model.class_names)),
        ("scans", _scans(card.modality, card.domain)),
        ("data", card.data),
        ("licence", card.licence),
        ("credit", card.attribution),
        ("network", f"{network(settings.model)}{folds}, {megabytes:.1f} MB"),
        ("made by", card.made_by),
    ]


def _scans(modality: str | None, domain: str | None) -> str:
    kind = modality or "any modality"
    return f"{kind}, only from: {domain} (others are refused unless --allow-out-of-domain)" if domain else kind
