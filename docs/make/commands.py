"""The page ``reference/commands.md``: what ``--help`` says of every command."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import typer

from medmaskrcnn.cli.main import app

TARGET = "reference/commands.md"

HEAD = """# Commands

Made from what `medmaskrcnn COMMAND --help` says. Answers go to stdout, everything else to stderr.
"""


def text() -> str:
    """The page."""
    return "\n".join([HEAD, *_commands(typer.main.get_command(app), "medmaskrcnn")])


def _commands(group: Any, called: str) -> Iterator[str]:
    """The lines of a group's commands (click's), and of the groups in it."""
    for name, command in group.commands.items():
        yield from (f"## {called} {name}", "", inspect.cleandoc(command.help or ""), "")
        if hasattr(command, "commands"):
            yield from _commands(command, f"{called} {name}")
        else:
            yield from ("| | |", "|---|---|", *map(row, command.params), "")
            yield from (_examples(command.epilog or ""), "")


def row(parameter: Any) -> str:
    """An argument or option (click's, as typer makes it) as a line of a table."""
    said, what = parameter.help or "", parameter.metavar or ""
    if parameter.param_type_name == "argument":
        name = f"`{what or parameter.name.upper()}`"
    else:
        options = [*parameter.opts, *parameter.secondary_opts]
        name = ", ".join(f"`{option}`" for option in options) + (f" {what}" if what else "")
        default = parameter.show_default if isinstance(parameter.show_default, str) else parameter.default
        if default is not None and default is not False and default != () and not callable(default):
            said += f" Default: {getattr(default, 'value', default)}."
    return f"| {_safe(name)} | {_safe(said)} |"


def _safe(cell: str) -> str:
    return cell.replace("|", "\\|").replace("<", "&lt;")


def _examples(epilog: str) -> str:
    lines = [line.strip() for line in epilog.splitlines() if line.strip().startswith(("medmaskrcnn ", "torchrun "))]
    return "\n".join(["Examples:", "", "```text", *lines, "```"]) if lines else ""
