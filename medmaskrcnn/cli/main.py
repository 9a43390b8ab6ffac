"""The program ``medmaskrcnn``: joins the commands. Starting it and its ``--help`` never import torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

import medmaskrcnn
from medmaskrcnn.cli import demo, env, info, models, segment
from medmaskrcnn.cli.console import say
from medmaskrcnn.cli.failures import EXIT_CODES_HELP


def _epilog(examples: Sequence[str]) -> str:
    """The end of a command's help; the control character keeps click from joining the lines."""
    return "\n".join(["\b", "Examples:", *(f"  {example}" for example in examples), "", EXIT_CODES_HELP])


app = typer.Typer(
    name="medmaskrcnn",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=_epilog(
        [
            "medmaskrcnn demo",
            "medmaskrcnn info study/",
            "medmaskrcnn segment study/ -o result --model abdomen-mr",
        ]
    ),
)
app.command("segment", epilog=_epilog(segment.EXAMPLES))(segment.segment_command)
app.command("info", epilog=_epilog(info.EXAMPLES))(info.info_command)
app.command("models", epilog=_epilog(models.EXAMPLES))(models.models_command)
app.command("demo", epilog=_epilog(demo.EXAMPLES))(demo.demo_command)
app.command("env", epilog=_epilog(env.EXAMPLES))(env.env_command)


def _print_version(wanted: bool) -> None:
    if wanted:
        say(f"medmaskrcnn {medmaskrcnn.__version__}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and stop.")
    ] = False,
) -> None:
    """Find, count and measure organs and tumours in medical scans. Research software, not a medical device."""


def main() -> None:
    """Entry point of the console script."""
    app()
