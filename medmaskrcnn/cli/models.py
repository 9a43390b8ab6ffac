"""``medmaskrcnn models``: the models that ship with the package, each with its card. Never imports torch."""

from __future__ import annotations

from typing import Annotated

import typer

from medmaskrcnn.cli.cards import card_json, print_card
from medmaskrcnn.cli.console import echo, print_json
from medmaskrcnn.cli.failures import failing_as_one, logging_to
from medmaskrcnn.hub.model_file import read_model_settings, shipped_models

EXAMPLES = (
    "medmaskrcnn models",
    "medmaskrcnn info my-model.safetensors   (the card of any other model)",
)


def models_command(
    as_json: Annotated[bool, typer.Option("--json", help="Print the cards as JSON.")] = False,
) -> None:
    """List the models that ship with medmaskrcnn: classes, data, licence, scores and limits."""
    with logging_to(None), failing_as_one("the models that ship"):
        models = {name: (file, read_model_settings(file)) for name, file in shipped_models().items()}
        if as_json:
            print_json([card_json(settings, file) for file, settings in models.values()])
            return
        if not models:
            echo("no model ships with this installation")
        for number, (file, settings) in enumerate(models.values()):
            if number:
                echo("")
            print_card(settings, file)
