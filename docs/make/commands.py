"""The page ``reference/commands.md``: what ``--help`` says of every command."""

from __future__ import annotations

import inspect
from typing import Any

import typer

from medmaskrcnn.cli.main import app

TARGET = "reference/commands.md"

HEAD = """# Commands

Made from what `medmaskrcnn COMMAND --help` says. Answers go to stdout, everything else to stderr.
"""


def text() -> str:
    """The page."""
    group = typer.main.get_command(app)
    parts = [HEAD]
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        parts += [f"## medmaskrcnn {name}", "", inspect.cleandoc(command.help or ""), ""]
        parts += ["| | |", "|---|---|", *map(row, command.params), ""]
        parts += [_examples(command.epilog or ""), ""]
    return "\n".join(parts)


def row(parameter: Any) -> str:
    """An argument or option (click's, as typer makes it) as a line of a table."""
    said, what = parameter.help or "", parameter.metavar or ""
    if parameter.param_type_name == "argument":
        name = f"`{what or parameter.name.upper()}`"
    else:
        name = ", ".join(f"`{option}`" for option in parameter.opts) + (f" {what}" if what else "")
        default = parameter.show_default if isinstance(parameter.show_default, str) else parameter.default
        if default is not None and default is not False and default != () and not callable(default):
            said += f" Default: {getattr(default, 'value', default)}."
    return f"| {_safe(name)} | {_safe(said)} |"


def _safe(cell: str) -> str:
    return cell.replace("|", "\\|").replace("<", "&lt;")


def _examples(epilog: str) -> str:
    lines = [line.strip() for line in epilog.splitlines() if line.strip().startswith(("medmaskrcnn ", "torchrun "))]
    return "\n".join(["Examples:", "", "```text", *lines, "```"]) if lines else ""
