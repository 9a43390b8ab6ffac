"""The program ``medmaskrcnn``: joins the commands. Starting it and its ``--help`` never import torch."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import Annotated

import typer

from medmaskrcnn.cli import (
    batch,
    convert,
    demo,
    env,
    evaluate,
    export,
    followup,
    info,
    models,
    optimize,
    pacs,
    segment,
    suggest,
    suspects,
    trace,
    train,
    tune,
)
from medmaskrcnn.cli.console import echo
from medmaskrcnn.cli.failures import EXIT_CODES_HELP
from medmaskrcnn.system.memory import allow_retaining
from medmaskrcnn.system.version import __version__


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
_COMMANDS = (
    ("segment", segment.segment_command, "Scans in, counted and measured instances out.", segment.EXAMPLES),
    ("batch", batch.batch_command, "Every series of a folder, a night long, nothing lost.", batch.EXAMPLES),
    ("followup", followup.followup_command, "One patient over time: what has changed.", followup.EXAMPLES),
    ("convert", convert.convert_command, "Labels from one form into another.", convert.EXAMPLES),
    ("info", info.info_command, "What is in a file or folder, and what fits.", info.EXAMPLES),
    ("models", models.models_command, "The models that ship, with their cards.", models.EXAMPLES),
    ("train", train.train_command, "Labelled scans in, a model out.", train.EXAMPLES),
    ("tune", tune.tune_command, "Many short trainings, to find a better plan.", tune.EXAMPLES),
    ("evaluate", evaluate.evaluate_command, "What a model is worth on labelled scans.", evaluate.EXAMPLES),
    ("suspects", suspects.suspects_command, "Labels that may be wrong, and hard cases.", suspects.EXAMPLES),
    ("suggest", suggest.suggest_command, "Which scans to label next.", suggest.EXAMPLES),
    ("optimize", optimize.optimize_command, "The fastest version that is about as good.", optimize.EXAMPLES),
    ("export", export.export_command, "A model for other runtimes, and in 8 bits.", export.EXAMPLES),
    ("trace", trace.trace_command, "What a network does, step by step, as a page.", trace.EXAMPLES),
    ("demo", demo.demo_command, "The whole way on a phantom CT.", demo.EXAMPLES),
    ("env", env.env_command, "Versions and devices, for bug reports.", env.EXAMPLES),
)
for _name, _command, _in_short, _examples in _COMMANDS:
    app.command(_name, short_help=_in_short, epilog=_epilog(_examples))(_command)
app.add_typer(
    pacs.app, name="pacs", short_help="Scans out of an archive, results into it.", epilog=_epilog(pacs.EXAMPLES)
)


def _print_version(wanted: bool) -> None:
    if wanted:
        echo(f"medmaskrcnn {__version__}")
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
    allow_retaining()
    signal.signal(signal.SIGTERM, _end)
    app()


def _end(number: int, _: object) -> None:
    """End as after an error, so that what was unpacked or half-written is removed."""
    raise SystemExit(128 + number)
