"""The page ``models.md``: the cards of the models that ship, read from their files."""

from __future__ import annotations

from pathlib import Path

from medmaskrcnn.cli.cards import network
from medmaskrcnn.hub.model_file import read_model_settings, shipped_models
from medmaskrcnn.settings import ModelFileSettings

TARGET = "models.md"

HEAD = """# Models

Made from the files that ship; `medmaskrcnn models` prints the same. A model is one `.safetensors` file with weights,
settings, names of classes and preprocessing in it.
"""


def text() -> str:
    """The page."""
    cards = [card(read_model_settings(path), path) for path in shipped_models().values()]
    return "\n".join([HEAD, *cards])


def card(settings: ModelFileSettings, path: Path) -> str:
    """One model's section."""
    about, preprocess = settings.card, settings.preprocess
    spacing = " x ".join(f"{s:g}" if s else "own" for s in preprocess.spacing_mm)
    scans = about.modality or "any modality"
    rows = [
        ("classes", ", ".join(settings.model.class_names)),
        ("scans", f"{scans}, only from: {about.domain}" if about.domain else scans),
        ("network", f"{network(settings.model)}, {path.stat().st_size / 1e6:.1f} MB"),
        ("works at", f"{spacing} mm (slices, rows, columns), axes {preprocess.orientation}"),
        ("default score", f"{settings.inference.score:g}"),
        ("data", about.data),
        ("licence of the weights", about.licence),
        ("credit", about.attribution),
        ("made by", about.made_by.replace("docs/decisions/", "decisions/")),
        *((f"measured: {name}", value) for name, value in about.scores.items()),
        *(("limit", limit) for limit in about.limits),
    ]
    table = [f"| {name} | {value} |" for name, value in rows if value]
    return "\n".join([f"## {about.name}", "", about.summary, "", "| | |", "|---|---|", *table, ""])
